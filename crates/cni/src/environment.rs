//! `CNI_*` variables.

use crate::error::{Error, code};

/// What the runtime says about the container.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Environment {
    pub container_id: String,
    pub netns: String,
    pub ifname: String,
    pub pod_name: String,
    pub pod_namespace: String,
    /// Empty if the runtime does not say.
    pub pod_uid: String,
}

/// The pod as `CNI_ARGS` names it.
#[derive(Debug, Default)]
struct Pod {
    name: String,
    namespace: String,
    uid: String,
}

/// Which variables a verb needs.
#[derive(Clone, Copy)]
pub struct Needs {
    pub netns: bool,
    pub pod: bool,
}

impl Environment {
    /// Reads the variables through `get`.
    pub fn read(needs: Needs, get: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let value = |name: &str| get(name).unwrap_or_default();
        let pod = match pod(&value("CNI_ARGS")) {
            Err(error) if needs.pod => return Err(error),
            // Who takes an interface away does not stop at arguments that it can do without.
            pod => pod.unwrap_or_default(),
        };
        let environment = Self {
            container_id: value("CNI_CONTAINERID"),
            netns: value("CNI_NETNS"),
            ifname: value("CNI_IFNAME"),
            pod_name: pod.name,
            pod_namespace: pod.namespace,
            pod_uid: pod.uid,
        };

        let mut missing = Vec::new();
        for (name, value, needed) in [
            ("CNI_CONTAINERID", &environment.container_id, true),
            ("CNI_NETNS", &environment.netns, needs.netns),
            ("CNI_IFNAME", &environment.ifname, true),
            ("K8S_POD_NAME in CNI_ARGS", &environment.pod_name, needs.pod),
            (
                "K8S_POD_NAMESPACE in CNI_ARGS",
                &environment.pod_namespace,
                needs.pod,
            ),
        ] {
            if needed && value.is_empty() {
                missing.push(name);
            }
        }
        if !missing.is_empty() {
            return Err(invalid(format!("missing: {}", missing.join(", "))));
        }
        if !is_container_id(&environment.container_id) {
            return Err(invalid(format!(
                "CNI_CONTAINERID `{}` must begin with a letter or digit and hold letters, digits, `_`, `.` and `-`",
                environment.container_id
            )));
        }
        if !is_ifname(&environment.ifname) {
            return Err(invalid(format!(
                "CNI_IFNAME `{}` is not an interface name: at most 15 characters, no `/`, `:` or space",
                environment.ifname
            )));
        }
        Ok(environment)
    }
}

fn invalid(details: String) -> Error {
    Error::new(code::INVALID_ENVIRONMENT, "invalid environment variables").details(details)
}

/// The pod out of `K=V;K=V`.
fn pod(args: &str) -> Result<Pod, Error> {
    let mut pod = Pod::default();
    for pair in args.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(invalid(format!("CNI_ARGS: `{pair}` is not KEY=VALUE")));
        };
        match key {
            "K8S_POD_NAME" => value.clone_into(&mut pod.name),
            "K8S_POD_NAMESPACE" => value.clone_into(&mut pod.namespace),
            "K8S_POD_UID" => value.clone_into(&mut pod.uid),
            _ => {}
        }
    }
    Ok(pod)
}

fn is_container_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn is_ifname(text: &str) -> bool {
    // IFNAMSIZ is 16 with the final zero (linux/if.h).
    text.len() <= 15
        && !matches!(text, "" | "." | "..")
        && !text.contains(|c: char| matches!(c, '/' | ':') || c.is_whitespace())
}
