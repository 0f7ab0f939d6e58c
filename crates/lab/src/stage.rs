//! The verbs of scenarios: they wait as long as a person would, and fail with what was seen.

use std::cell::RefCell;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::cgroup;
use crate::command::{capture, output, wait_for};
use crate::kubernetes;
use crate::lab::{FAR, Lab, Launch, Node, Place};
use crate::network::EXT;
use crate::ovn;
use crate::progress::Progress;

/// What a scenario works with.
pub struct Stage<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// For words in between.
    pub progress: &'a Progress,
    /// Manifests to delete at the end, in the order they were applied.
    made: RefCell<Vec<String>>,
    notes: RefCell<Vec<String>>,
}

/// A running pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Unique id.
    pub uid: String,
    /// The node it runs on.
    pub node: String,
    /// Its addresses, the first family first.
    pub addresses: Vec<IpAddr>,
}

impl Pod {
    /// The first address.
    pub fn address(&self) -> Result<IpAddr> {
        self.addresses
            .first()
            .copied()
            .with_context(|| format!("pod {}/{} has no address", self.namespace, self.name))
    }

    /// The addresses of another pod in the families that this one has, too.
    pub fn reachable<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = IpAddr> + 'a {
        let shared = |address: &IpAddr| {
            self.addresses
                .iter()
                .any(|own| own.is_ipv4() == address.is_ipv4())
        };
        other.addresses.iter().copied().filter(shared)
    }
}

/// How long a pod may take to run before a scenario calls it a failure.
const PATIENCE: Duration = Duration::from_mins(1);

impl<'a> Stage<'a> {
    /// A stage on a lab that is up.
    pub fn new(lab: &'a Lab, progress: &'a Progress) -> Self {
        Self {
            lab,
            progress,
            made: RefCell::default(),
            notes: RefCell::default(),
        }
    }

    /// What the scenario measured; empties the list.
    pub fn take_notes(&self) -> Vec<String> {
        self.notes.take()
    }

    /// Leave everything as it is at the end.
    pub fn keep(&self) {
        self.made.take();
    }

    /// Apply a manifest; its objects are deleted when the scenario ends.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        if manifest.contains("kind: Namespace") || manifest.contains("kind: Subnet") {
            self.not_going(manifest)?;
        }
        self.made.borrow_mut().push(manifest.to_owned());
        kubernetes::apply(self.lab, manifest)?;
        Ok(())
    }

    /// Wait until objects of the same names that an earlier run deleted are gone: `apply` would take them for ours.
    fn not_going(&self, manifest: &str) -> Result<()> {
        self.eventually(
            "objects of an earlier run to go",
            Duration::from_mins(1),
            || {
                let there = crate::command::capture_with_input(
                    self.lab.kubectl()?.args([
                        "get",
                        "--ignore-not-found",
                        "-f",
                        "-",
                        "-o",
                        "json",
                    ]),
                    manifest,
                )?;
                ensure!(
                    !there.contains("\"deletionTimestamp\""),
                    "they are on their way out"
                );
                Ok(())
            },
        )
    }

    /// Delete the objects of a manifest now and wait until they are gone.
    pub fn delete(&self, manifest: &str) -> Result<()> {
        crate::command::capture_with_input(
            self.lab.kubectl()?.args([
                "delete",
                "--ignore-not-found",
                "--now",
                "--timeout=90s",
                "-f",
                "-",
            ]),
            manifest,
        )?;
        self.made.borrow_mut().retain(|made| made != manifest);
        Ok(())
    }

    /// Delete what the scenario made. It goes while the next scenario runs; one that counts begins with [`Self::calm`].
    pub fn sweep(&self) -> Result<()> {
        let mut made = self.made.take();
        if made.is_empty() {
            return Ok(());
        }
        made.reverse();
        crate::command::capture_with_input(
            self.lab.kubectl()?.args([
                "delete",
                "--ignore-not-found",
                "--wait=false",
                "--now",
                "-f",
                "-",
            ]),
            &made.join("\n---\n"),
        )
        .context("cannot clean up after the scenario")?;
        Ok(())
    }

    /// Wait until nothing that an earlier scenario made is still on its way out.
    pub fn calm(&self) -> Result<()> {
        self.eventually(
            "what earlier scenarios made to go",
            Duration::from_mins(1),
            || {
                for kind in ["namespaces", "pods", "subnets.kubeovn.io"] {
                    // The baseline without the fabric knows no subnets.
                    let Ok(list) = self.get(&[kind, "-A"]) else {
                        continue;
                    };
                    for item in list["items"].as_array().into_iter().flatten() {
                        let meta = &item["metadata"];
                        ensure!(
                            meta["deletionTimestamp"].is_null(),
                            "{kind} {} is still going",
                            meta["name"]
                        );
                    }
                }
                Ok(())
            },
        )
    }

    /// Run kubectl.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        kubernetes::kubectl(self.lab, args)
    }

    /// Remember a figure for the report.
    pub fn note(&self, text: impl Into<String>) {
        self.notes.borrow_mut().push(text.into());
    }

    /// A pod once it runs and is ready.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<Pod> {
        wait_for(&format!("pod {namespace}/{name}"), PATIENCE, || {
            let pod = kubernetes::get(self.lab, &["pod", "-n", namespace, name])?;
            Ok(ready(&pod).then(|| read_pod(&pod)))
        })
        .map_err(|error| self.why(namespace, error))
    }

    /// All pods of a namespace with a label once there are `count` and all are ready; sorted by address.
    pub fn pods(&self, namespace: &str, label: &str, count: usize) -> Result<Vec<Pod>> {
        self.pods_within(namespace, label, count, PATIENCE)
    }

    /// See [`Self::pods`].
    pub fn pods_within(
        &self,
        namespace: &str,
        label: &str,
        count: usize,
        limit: Duration,
    ) -> Result<Vec<Pod>> {
        wait_for(
            &format!("{count} pods {label} in {namespace}"),
            limit,
            || {
                let list = kubernetes::get(self.lab, &["pods", "-n", namespace, "-l", label])?;
                let items: Vec<&Value> = list["items"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|pod| !pod["metadata"]["deletionTimestamp"].is_string())
                    .collect();
                if items.len() != count || !items.iter().all(|pod| ready(pod)) {
                    let fine = items.iter().filter(|pod| ready(pod)).count();
                    bail!("{fine} of {} are ready", items.len());
                }
                let mut pods: Vec<Pod> = items.into_iter().map(read_pod).collect();
                pods.sort_by(|a, b| (&a.addresses, &a.name).cmp(&(&b.addresses, &b.name)));
                Ok(Some(pods))
            },
        )
        .map_err(|error| self.why(namespace, error))
    }

    /// Add the latest warnings of a namespace to an error: most of the time they are the explanation.
    fn why(&self, namespace: &str, error: anyhow::Error) -> anyhow::Error {
        let events = kubernetes::kubectl(
            self.lab,
            &[
                "get",
                "events",
                "-n",
                namespace,
                "--field-selector=type=Warning",
                "--sort-by=.lastTimestamp",
                "-o",
                "custom-columns=O:.involvedObject.name,R:.reason,M:.message",
                "--no-headers",
            ],
        )
        .unwrap_or_default();
        let last: Vec<&str> = events.lines().rev().take(3).collect();
        if last.is_empty() {
            error
        } else {
            error.context(format!("warnings in {namespace}: {}", last.join(" | ")))
        }
    }

    /// A busybox pod on a certain node.
    pub fn busybox(&self, namespace: &str, name: &str, node: &Node) -> Result<Pod> {
        self.apply(&pod_manifest(
            namespace,
            name,
            &node.name,
            crate::images::BUSYBOX,
            "[sleep, \"360000\"]",
        ))?;
        self.pod(namespace, name)
    }

    /// An agnhost pod on a certain node that serves its name and the client's address on port 8080 (TCP and UDP 8081).
    pub fn server(&self, namespace: &str, name: &str, node: &Node) -> Result<Pod> {
        self.apply(&pod_manifest(
            namespace,
            name,
            &node.name,
            crate::images::AGNHOST,
            "[/agnhost, netexec, --http-port=8080, --udp-port=8081]",
        ))?;
        self.pod(namespace, name)
    }

    /// A node of the lab by its place in the list, counted from 0.
    pub fn node(&self, index: usize) -> Result<&Node> {
        self.lab
            .nodes
            .get(index)
            .with_context(|| format!("the lab has no node number {}", index + 1))
    }

    /// A program of the host in the pod's network namespace.
    pub fn in_pod(&self, pod: &Pod, program: &str) -> Result<Command> {
        in_pod(self.lab, pod, program)
    }

    /// Run a shell line in the pod's network namespace and return what it prints.
    pub fn sh(&self, pod: &Pod, line: &str) -> Result<String> {
        capture(self.in_pod(pod, "sh")?.args(["-c", line]))
    }

    /// Run a shell line in a node.
    pub fn node_sh(&self, node: &Node, line: &str) -> Result<String> {
        capture(
            self.lab
                .command(Place::Node(&node.name), "sh")?
                .args(["-c", line]),
        )
    }

    /// Run a shell line on the host outside.
    pub fn outside_sh(&self, line: &str) -> Result<String> {
        capture(self.lab.command(Place::Net(EXT), "sh")?.args(["-c", line]))
    }

    /// Fetch a page by what is inside the container itself: its programs, its resolver.
    pub fn exec(&self, pod: &Pod, command: &[&str]) -> Result<String> {
        let mut args = vec!["exec", "-n", &pod.namespace, &pod.name, "--"];
        args.extend(command);
        self.kubectl(&args)
    }

    /// The node that a pod runs on.
    pub fn node_of(&self, pod: &Pod) -> Result<&Node> {
        self.lab.node(&pod.node)
    }

    /// A web server on the host outside, at 198.51.100.1:8080; `/clientip` tells who asks. Runs until the lab goes.
    pub fn outside_server(&self) -> Result<String> {
        let program = crate::cache::kubernetes().join("bin/agnhost");
        self.lab.ensure(&Launch {
            component: "outside-server",
            node: None,
            place: Place::Net(EXT),
            program: &program.to_string_lossy(),
            args: ["netexec", "--http-port=8080", "--udp-port=8081"]
                .map(str::to_owned)
                .to_vec(),
            env: Vec::new(),
            watch_program: false,
        })?;
        self.eventually("the server outside", Duration::from_secs(10), || {
            self.outside_sh(&format!("curl -sf -m 1 http://{FAR}:8080/hostname"))
                .map(drop)
        })?;
        Ok(format!("{FAR}:8080"))
    }

    /// Nobody answers: the command must fail.
    pub fn is_refused(&self, from: &Pod, line: &str) -> Result<()> {
        let said = output(self.in_pod(from, "sh")?.args(["-c", line]))?;
        ensure!(
            !said.status.success(),
            "`{line}` in {} succeeded; it must not",
            from.name
        );
        Ok(())
    }

    /// Number of rows of a table of the northbound or southbound database that satisfy `column=value` conditions.
    pub fn rows(&self, database: &str, table: &str, conditions: &[&str]) -> Result<usize> {
        let mut args = vec!["--bare", "--columns=_uuid", "find", table];
        args.extend(conditions);
        let text = ovn::ctl(self.lab, database, &args)?;
        Ok(text.lines().filter(|line| !line.trim().is_empty()).count())
    }

    /// Wait until something holds; what it says in between is the error if it never does.
    pub fn eventually(
        &self,
        what: &str,
        limit: Duration,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        wait_for(what, limit, || check().map(Some))
    }

    /// A Kubernetes object as JSON.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        kubernetes::get(self.lab, args)
    }
}

/// An address as it stands in a URL.
pub fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// A pod of one container that ends at once when told to.
pub fn pod_manifest(namespace: &str, name: &str, node: &str, image: &str, command: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\n\
         spec:\n  nodeName: {node}\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - {{name: main, image: \"{image}\", command: {command}}}\n---\n"
    )
}

fn ready(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null()
        && pod["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn read_pod(pod: &Value) -> Pod {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Pod {
        namespace: text(&pod["metadata"]["namespace"]),
        name: text(&pod["metadata"]["name"]),
        uid: text(&pod["metadata"]["uid"]),
        node: text(&pod["spec"]["nodeName"]),
        addresses: pod["status"]["podIPs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|a| a["ip"].as_str()?.parse().ok())
            .collect(),
    }
}

/// A pod by `NS/POD` or `POD` (of the namespace `default`).
pub fn find_pod(lab: &Lab, name: &str) -> Result<Pod> {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    Ok(read_pod(&kubernetes::get(
        lab,
        &["pod", "-n", namespace, name],
    )?))
}

/// A program of the host in the network namespace of a pod.
pub fn in_pod(lab: &Lab, pod: &Pod, program: &str) -> Result<Command> {
    let node = lab.node(&pod.node)?;
    let group = lab.cgroup(node);
    let pid = cgroup::of_pod(|name| name == group, &pod.uid)
        .into_iter()
        .next()
        .with_context(|| {
            format!(
                "pod {}/{} has no process on {}",
                pod.namespace, pod.name, pod.node
            )
        })?;
    let mut command = Command::new("nsenter");
    command
        .arg("-t")
        .arg(pid.to_string())
        .args(["-n", "--"])
        .arg(program)
        .env("PATH", lab.path());
    Ok(command)
}
