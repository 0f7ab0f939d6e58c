//! The fabric's own programs: controllers, a daemon per node, the CNI plugin. They run as processes in the nodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command::capture;
use crate::lab::{Lab, Launch, NAMESPACE, Node, Place};
use crate::ovn;

/// Port of the controller's /healthz, /readyz, /metrics.
pub const CONTROLLER_PORT: u16 = 10660;
/// The daemon's.
pub const DAEMON_PORT: u16 = 10665;

/// How long a leading controller that says nothing more keeps its lease. A lab is where fail-over is tried: seconds, not
/// half a minute.
pub const LEASE: Duration = Duration::from_secs(6);

/// A program that was built together with this one: it lies in the same folder.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the path of this program")?;
    // After a rebuild the kernel reports the path of the replaced file with a remark.
    let own = PathBuf::from(own.to_string_lossy().trim_end_matches(" (deleted)"));
    let beside = own.with_file_name(name);
    if beside.exists() {
        return Ok(beside);
    }
    bail!(
        "{} is missing: build it with `make build`",
        beside.display()
    )
}

/// The checkout that this program was built from: for manifests that belong to other parts (`deploy/crds`).
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("."))
        .to_path_buf()
}

/// The custom resource definitions.
pub fn crds() -> Result<String> {
    let folder = checkout().join("deploy/crds");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .with_context(|| format!("no custom resource definitions in {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    let mut manifest = String::new();
    for file in files {
        manifest += &fs::read_to_string(&file)?;
        manifest += "\n---\n";
    }
    Ok(manifest)
}

/// The nodes that run a controller: the second and the third, as an installation of three nodes has them.
pub fn controller_nodes(lab: &Lab) -> Vec<&Node> {
    match lab.nodes.len() {
        0 | 1 => lab.nodes.iter().collect(),
        2 => lab.nodes.iter().rev().collect(),
        _ => lab.nodes[1..3].iter().collect(),
    }
}

/// Name of the controller on a node, as a pod of a Deployment would have it.
pub fn controller_name(node: &Node) -> String {
    format!("kube-ovn-controller-{}", node.short())
}

/// Start the controllers.
pub fn controllers(lab: &Lab) -> Result<()> {
    let program = program("kube-ovn-controller")?.display().to_string();
    for node in controller_nodes(lab) {
        let mut launch = Launch::on(node, "kube-ovn-controller", &program)
            .arg(format!(
                "--kubeconfig={}",
                lab.pki("kube-ovn-controller.kubeconfig").display()
            ))
            .arg(format!("--ovn-nb-addr={}", lab.database(ovn::NB_PORT)))
            .arg(format!("--ovn-sb-addr={}", lab.database(ovn::SB_PORT)))
            .arg(format!("--default-cidr={}", lab.spec.pods()))
            .args(
                lab.spec
                    .excluded()
                    .map(|ranges| format!("--default-exclude-ips={ranges}")),
            )
            .arg(format!(
                "--node-switch-cidr={}",
                lab.spec.families("100.64.0.0/16", "fd00:100:64::/112")
            ))
            .arg(format!(
                "--service-cluster-ip-range={}",
                lab.spec.services()
            ))
            .arg(format!(
                "--leader-elect-lease-duration={}s",
                LEASE.as_secs()
            ))
            .args([
                "--leader-elect-renew-deadline=4s",
                "--leader-elect-retry-period=1s",
            ])
            .env("POD_NAME", controller_name(node))
            .env("POD_NAMESPACE", NAMESPACE)
            .env("POD_IP", node.address().to_string())
            .env("POD_IPS", node.address().to_string())
            .env("KUBE_NODE_NAME", &node.name)
            .env("RUST_BACKTRACE", "1");
        launch.watch_program = true;
        lab.ensure(&launch)?;
    }
    Ok(())
}

/// Start the daemon of a node, after its CNI plugins are in place.
pub fn daemon(lab: &Lab, node: &Node) -> Result<()> {
    install(lab, node, &["loopback", "portmap"])?;
    plugin(lab, node)?;
    let program = program("kube-ovn-daemon")?.display().to_string();
    let mut launch = Launch::on(node, "kube-ovn-cni", &program)
        .arg(format!(
            "--kubeconfig={}",
            lab.pki("kube-ovn-cni.kubeconfig").display()
        ))
        .arg("--ovs-socket=/run/openvswitch/db.sock")
        .arg("--bind-socket=/run/openvswitch/kube-ovn-daemon.sock")
        .arg(format!(
            "--service-cluster-ip-range={}",
            lab.spec.services()
        ))
        .arg("--cni-conf-dir=/etc/cni/net.d")
        .arg("--cni-conf-name=01-kube-ovn.conflist")
        .env("NODE_NAME", &node.name)
        .env("KUBE_NODE_NAME", &node.name)
        .env("POD_NAMESPACE", NAMESPACE)
        .env("RUST_BACKTRACE", "1");
    launch.watch_program = true;
    lab.ensure(&launch)?;
    Ok(())
}

/// Put plugins of Debian's `containernetworking-plugins` into the node's /opt/cni/bin.
pub fn install(lab: &Lab, node: &Node, names: &[&str]) -> Result<()> {
    let folder = Path::new("/usr/lib/cni");
    let mut copy = lab.command(Place::Node(&node.name), "cp")?;
    copy.args(["-u", "--"])
        .args(names.iter().map(|name| folder.join(name)))
        .arg("/opt/cni/bin/");
    capture(&mut copy)?;
    Ok(())
}

/// Our plugin: the small static build if `make cni` made it and it is not older, else the one of this build.
fn plugin(lab: &Lab, node: &Node) -> Result<()> {
    let built = program("kube-ovn").or_else(|error| {
        let small = small_plugin();
        small.exists().then_some(small).ok_or(error)
    })?;
    let small = small_plugin();
    let time = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let source = if small.exists() && time(&small) >= time(&built) {
        small
    } else {
        built
    };
    capture(
        lab.command(Place::Node(&node.name), "sh")?
            // A plugin that is being executed cannot be overwritten, only replaced.
            .args(["-c", "cp \"$1\" /opt/cni/bin/.kube-ovn && chmod 755 /opt/cni/bin/.kube-ovn && mv /opt/cni/bin/.kube-ovn /opt/cni/bin/kube-ovn", "sh"])
            .arg(source),
    )?;
    Ok(())
}

fn small_plugin() -> PathBuf {
    // Where `crates/cni/build-static` puts it.
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    checkout().join("target").join(triple).join("cni/kube-ovn")
}

/// Ask a component's health endpoint inside its node; the text explains what it waits for.
pub fn health(lab: &Lab, node: &str, port: u16, path: &str) -> Result<(bool, String)> {
    let mut curl = lab.command(Place::Node(node), "curl")?;
    curl.args(["-s", "-m", "2", "-w", "\n%{http_code}"])
        .arg(format!("http://127.0.0.1:{port}{path}"));
    let text = String::from_utf8_lossy(&crate::command::output(&mut curl)?.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').unwrap_or(("", "000"));
    Ok((code == "200", body.trim().to_owned()))
}

/// What our components wait for, in their own words.
pub fn complaints(lab: &Lab) -> Vec<String> {
    let mut lines = Vec::new();
    for record in lab.records() {
        let port = match record.component.as_str() {
            "kube-ovn-controller" => CONTROLLER_PORT,
            "kube-ovn-cni" => DAEMON_PORT,
            _ => continue,
        };
        let Some(node) = &record.node else { continue };
        if !record.alive() {
            lines.push(format!("{} ended", record.key()));
        } else if let Ok((false, words)) = health(lab, node, port, "/readyz") {
            lines.push(format!(
                "{} waits: {}",
                record.key(),
                words.replace('\n', ", ")
            ));
        }
    }
    lines
}

/// Wait until a daemon serves; its own words are the error otherwise.
pub fn daemon_ready(lab: &Lab, node: &Node, limit: Duration) -> Result<()> {
    let what = format!("kube-ovn-cni on {}", node.name);
    lab.wait_with(&[("kube-ovn-cni", &node.name)], &what, limit, || {
        let (ready, words) = health(lab, &node.name, DAEMON_PORT, "/readyz")?;
        if ready {
            Ok(Some(()))
        } else {
            bail!("{words}")
        }
    })
}
