//! The verbs: ADD, DEL, CHECK, GC, STATUS, VERSION.

use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::config::{Config, invalid};
use crate::daemon::{self, Answer, NoAnswer};
use crate::environment::{Environment, Needs};
use crate::error::{Error, code};
use crate::result;
use crate::version::Version;
use crate::wire::{
    Attachment, Dns, Failure, GcRequest, PATH_ADD, PATH_CHECK, PATH_DEL, PATH_GC, PATH_STATUS,
    Request, Response, StatusRequest,
};

/// The daemon waits for the controller's addresses and for OVN's flows. The kubelet gives a sandbox four minutes
/// (twice its runtimeRequestTimeout); whoever gives up earlier can say why.
const ADD_TIMEOUT: Duration = Duration::from_secs(90);
const DEL_TIMEOUT: Duration = Duration::from_mins(1);
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);
const GC_TIMEOUT: Duration = Duration::from_mins(1);
/// Runtimes ask every few seconds.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a verb and returns what to print.
pub fn run(command: &str, stdin: &[u8], version: &mut Option<Version>) -> Result<String, Error> {
    match command {
        "VERSION" => Ok(versions(stdin)),
        "ADD" => add(stdin, version),
        "DEL" => del(stdin, version),
        "CHECK" => check(stdin, version),
        "GC" => gc(stdin, version),
        "STATUS" => status(stdin, version),
        other => Err(Error::new(
            code::INVALID_ENVIRONMENT,
            format!("unknown CNI_COMMAND `{other}`"),
        )
        .details("known: ADD, DEL, CHECK, GC, STATUS, VERSION")),
    }
}

fn versions(stdin: &[u8]) -> String {
    #[derive(Serialize)]
    struct Versions {
        #[serde(rename = "cniVersion")]
        cni_version: &'static str,
        #[serde(rename = "supportedVersions")]
        supported: [&'static str; Version::ALL.len()],
    }
    // The asker's version if it is one of ours. Asking for versions never fails, whatever the configuration says.
    let asked = serde_json::from_slice::<Config>(stdin)
        .ok()
        .filter(|config| !config.cni_version.is_empty())
        .and_then(|config| Version::parse(&config.cni_version));
    serde_json::to_string(&Versions {
        cni_version: asked.unwrap_or(Version::CURRENT).as_str(),
        supported: Version::ALL.map(Version::as_str),
    })
    .unwrap_or_default()
}

fn add(stdin: &[u8], version: &mut Option<Version>) -> Result<String, Error> {
    let config = Config::read(stdin, version)?;
    let environment = environment(Needs {
        netns: true,
        pod: true,
    })?;
    let request = Request {
        routes: config.routes.as_deref().unwrap_or_default(),
        dns: config.dns.clone().unwrap_or_default(),
        vf_driver: &config.vf_driver,
        vhost_user_socket_name: &config.vhost_user_socket_name,
        ..request(&config, &environment)
    };
    let body = call(&config, PATH_ADD, &request, ADD_TIMEOUT)?;
    let response: Response = serde_json::from_slice(&body).map_err(|error| {
        Error::new(code::DECODING_FAILURE, "cannot decode the daemon's answer")
            .details(error.to_string())
    })?;
    if !response.error.is_empty() {
        return Err(
            Error::new(code::TRY_AGAIN_LATER, "the Kube-OVN daemon refused")
                .details(response.error),
        );
    }
    result::print(
        &response,
        version.unwrap_or(Version::CURRENT),
        &environment.netns,
        &config.dns.clone().unwrap_or_default(),
    )
}

fn del(stdin: &[u8], version: &mut Option<Version>) -> Result<String, Error> {
    let config = Config::read(stdin, version)?;
    // The namespace may be gone, and the container id is enough to find what is left.
    let environment = environment(Needs {
        netns: false,
        pod: false,
    })?;
    call(
        &config,
        PATH_DEL,
        &request(&config, &environment),
        DEL_TIMEOUT,
    )?;
    Ok(String::new())
}

fn check(stdin: &[u8], version: &mut Option<Version>) -> Result<String, Error> {
    let config = Config::read(stdin, version)?;
    since(*version, Version::V0_4_0, "CHECK")?;
    let environment = environment(Needs {
        netns: true,
        pod: true,
    })?;
    let Some(previous) = &config.prev_result else {
        return Err(invalid("`prevResult` is missing: CHECK needs ADD's result"));
    };
    let (addresses, mac) = result::previous(previous, &environment.ifname);
    let request = Request {
        addresses: Some(addresses),
        mac_address: Some(mac),
        ..request(&config, &environment)
    };
    call(&config, PATH_CHECK, &request, CHECK_TIMEOUT)?;
    Ok(String::new())
}

fn gc(stdin: &[u8], version: &mut Option<Version>) -> Result<String, Error> {
    let config = Config::read(stdin, version)?;
    since(*version, Version::V1_1_0, "GC")?;
    // An absent list is not an empty one: everything would be collected.
    let Some(valid) = config
        .valid_attachments
        .as_ref()
        .or(config.attachments.as_ref())
    else {
        return Err(invalid("`cni.dev/valid-attachments` is missing"));
    };
    let request = GcRequest {
        cni_type: &config.kind,
        network: &config.name,
        provider: &config.provider,
        valid_attachments: valid
            .iter()
            .map(|attachment| Attachment {
                container_id: &attachment.container_id,
                if_name: &attachment.ifname,
            })
            .collect(),
    };
    call(&config, PATH_GC, &request, GC_TIMEOUT)?;
    Ok(String::new())
}

fn status(stdin: &[u8], version: &mut Option<Version>) -> Result<String, Error> {
    let config = Config::read(stdin, version)?;
    since(*version, Version::V1_1_0, "STATUS")?;
    let request = StatusRequest {
        cni_type: &config.kind,
        provider: &config.provider,
    };
    call(&config, PATH_STATUS, &request, STATUS_TIMEOUT)?;
    Ok(String::new())
}

fn environment(needs: Needs) -> Result<Environment, Error> {
    Environment::read(needs, |name| {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    })
}

/// Verbs are younger than configurations.
fn since(version: Option<Version>, needed: Version, verb: &str) -> Result<(), Error> {
    let version = version.unwrap_or(Version::CURRENT);
    if version >= needed {
        return Ok(());
    }
    Err(Error::new(
        code::INCOMPATIBLE_VERSION,
        format!(
            "the configuration's version {} does not know {verb}",
            version.as_str()
        ),
    )
    .details(format!("{verb} needs cniVersion {}", needed.as_str())))
}

/// The part of a request that every verb on an interface sends.
fn request<'a>(config: &'a Config, environment: &'a Environment) -> Request<'a> {
    Request {
        cni_type: &config.kind,
        pod_name: &environment.pod_name,
        pod_namespace: &environment.pod_namespace,
        pod_uid: &environment.pod_uid,
        container_id: &environment.container_id,
        net_ns: &environment.netns,
        if_name: &environment.ifname,
        provider: &config.provider,
        routes: &[],
        dns: Dns::default(),
        vf_driver: "",
        device_id: &config.device_id,
        vhost_user_socket_volume_name: &config.vhost_user_socket_volume_name,
        vhost_user_socket_name: "",
        vhost_user_socket_consumption: &config.vhost_user_socket_consumption,
        addresses: None,
        mac_address: None,
    }
}

/// Posts a request; an answer other than success is an error with the daemon's own words.
fn call(
    config: &Config,
    path: &str,
    request: &impl Serialize,
    timeout: Duration,
) -> Result<Vec<u8>, Error> {
    // STATUS has a code of its own for "not now".
    let later = if path == PATH_STATUS {
        code::PLUGIN_NOT_AVAILABLE
    } else {
        code::TRY_AGAIN_LATER
    };
    let body = serde_json::to_vec(request).map_err(|error| {
        Error::new(code::IO_FAILURE, "cannot encode the request").details(error.to_string())
    })?;
    let timeout = config.timeout(timeout);
    match daemon::post(&config.server_socket, path, body, timeout) {
        Ok(Answer {
            status: 200..=299,
            body,
        }) => Ok(body),
        Ok(answer) => Err(refusal(&answer, later)),
        Err(reason) => Err(no_answer(&config.server_socket, reason, later)),
    }
}

fn refusal(answer: &Answer, later: u32) -> Error {
    // Something that is no JSON is quoted as it is.
    let failure = serde_json::from_slice(&answer.body).unwrap_or_else(|_| Failure {
        error: String::from_utf8_lossy(&answer.body).trim().to_owned(),
        code: None,
    });
    let code = failure.code.unwrap_or(match answer.status {
        400 => code::INVALID_NETWORK_CONFIG,
        _ => later,
    });
    Error::new(code, "the Kube-OVN daemon refused")
        .details(format!("status {}: {}", answer.status, failure.error))
}

fn no_answer(socket: &str, reason: NoAnswer, later: u32) -> Error {
    match reason {
        NoAnswer::Down(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Error::new(later, "no permission to reach the Kube-OVN daemon")
                .details(format!("{socket}: {error}"))
        }
        NoAnswer::Down(error) => Error::new(later, "the Kube-OVN daemon is not running").details(
            format!("{socket}: {error}; the pod kube-ovn-cni on this node serves it, try again when it runs"),
        ),
        NoAnswer::Slow(timeout) => Error::new(
            later,
            format!(
                "the Kube-OVN daemon did not answer within {} s",
                timeout.as_secs()
            ),
        )
        .details(format!("{socket}; the logs of kube-ovn-cni on this node say what it waits for")),
        NoAnswer::Broken(error) => Error::new(later, "the Kube-OVN daemon broke off")
            .details(format!("{socket}: {error}; it may have been restarted, try again")),
    }
}
