//! `up`: from nothing (or from half a lab) to a cluster whose pods talk.
//!
//! ```text
//!   namespaces, certificates
//!     ├─ control plane ── CRDs, nodes, DNS ─┬─ controllers (nodes 2 and 3)
//!     ├─ OVN databases ── Open vSwitch ─────┼─ daemons (each node) ── nodes Ready ── cluster DNS ── ping
//!     └─ registry, containerd ──────────────┴─ kubelets, kube-proxies
//! ```
//! Every step looks first whether its result is there already, so that `up` on a running lab changes nothing, on a
//! damaged one repairs it, and with more `--nodes` adds them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cache::{self, Source};
use crate::command::hint;
use crate::lab::{Cni, Lab, Node, Spec, plural};
use crate::preflight::{self, Purpose};
use crate::progress::Progress;
use crate::{components, images, kubernetes, network, ovn, pki, relay};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Number of nodes; fewer than are up changes nothing.
    pub nodes: u8,
    /// See [`Spec`].
    pub dual_stack: bool,
    /// See [`Spec`].
    pub ovn_ha: bool,
    /// See [`Spec`].
    pub ovn_prefix: Option<PathBuf>,
    /// See [`Spec`].
    pub kube_proxy: bool,
    /// See [`Spec`].
    pub dns: bool,
    /// A folder with Kubernetes' programs.
    pub kubernetes_bin: Option<PathBuf>,
    /// See [`Spec`].
    pub pods: Option<net::Cidr>,
    /// See [`Spec`].
    pub cni: Cni,
}

/// Build and fetch whatever a lab needs and the machine does not have.
pub fn prepare(progress: &Progress, kubernetes_bin: Option<&std::path::Path>) -> Result<PathBuf> {
    let source = cache::find(kubernetes_bin)?;
    // agnhost and CoreDNS come from the same build, also when the other programs are the machine's own.
    if !(cache::built() && images::built()) {
        preflight::check(Purpose::Build, None)?;
        // Another one may be at it; then there is nothing left to do afterwards.
        let _lock = crate::lab::lock(&cache::root())?;
        if !cache::built() {
            progress.say(&format!(
                "Kubernetes {} is built once, into {} (about {} minutes on two cores)",
                cache::KUBERNETES,
                cache::root().display(),
                cache::expected().as_secs() / 60
            ));
            progress.run("build Kubernetes", |step| {
                cache::build(step)?;
                step.now(format!("Kubernetes {} built", cache::KUBERNETES));
                Ok(())
            })?;
        }
        progress.run("images", |step| {
            images::build(step)?;
            step.now("images put together from Debian packages");
            Ok(())
        })?;
        cache::prune()?;
    }
    Ok(match source {
        Source::Folder(folder) | Source::Built(folder) => folder,
    })
}

/// Bring a lab up.
pub fn up(name: &str, wish: &Wish, progress: &Progress) -> Result<Lab> {
    if wish.ovn_ha && wish.nodes < 3 {
        bail!("--ovn-ha needs three nodes: one member of the database cluster on each");
    }
    let ovn_prefix = wish
        .ovn_prefix
        .as_ref()
        .map(|prefix| {
            fs::canonicalize(prefix).with_context(|| format!("--ovn-prefix {}", prefix.display()))
        })
        .transpose()?;
    crate::lab::check_name(name)?;
    preflight::check(Purpose::Run, ovn_prefix.as_deref())?;
    preflight::memory(wish.nodes, Lab::open(name).map_or(0, |lab| lab.nodes.len()))?;
    if wish.cni == Cni::KubeOvn {
        for program in ["kube-ovn-controller", "kube-ovn-daemon", "kube-ovn"] {
            components::program(program)?;
        }
    }
    let kubernetes = prepare(progress, wish.kubernetes_bin.as_deref())?;
    let spec = Spec {
        dual_stack: wish.dual_stack,
        ovn_ha: wish.ovn_ha,
        ovn_prefix,
        kubernetes,
        kube_proxy: wish.kube_proxy,
        dns: wish.dns,
        pods: wish.pods,
        cni: wish.cni,
    };
    let dir = Lab::dir_of(name);
    let _lock = crate::lab::lock(&dir)?;
    let lab = merge(name, spec, wish.nodes)?;
    speak_when_interrupted(name)?;
    lab.save()?;
    bring_up(&lab, progress).map_err(|error| unfinished(&lab, &error))?;
    Ok(lab)
}

/// What failed, and what the reader can do about it: nothing is taken away that would explain the failure.
fn unfinished(lab: &Lab, error: &anyhow::Error) -> anyhow::Error {
    anyhow!(
        "{error:#}\nlab `{}` is not complete, and still there:\n{}",
        lab.name,
        ways_on(&lab.name)
    )
}

/// What can be done with a lab that is half made, one line each.
fn ways_on(name: &str) -> String {
    let lines = [
        ("status", "what runs, and what it waits for"),
        ("logs COMPONENT", "what a component said"),
        ("up", "go on from here"),
        ("down", "end it"),
    ]
    .map(|(verb, what)| (hint(name, verb), what));
    let width = lines.iter().map(|(command, _)| command.len()).max();
    lines
        .map(|(command, what)| format!("  {command:<width$}   {what}", width = width.unwrap_or(0)))
        .join("\n")
}

/// Whoever interrupts `up` learns what is left: the processes of a lab do not belong to the terminal and stay.
fn speak_when_interrupted(name: &str) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen for signals")?;
    let name = name.to_owned();
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            eprintln!(
                "\ninterrupted; lab `{name}` is as far as it came, and still there:\n{}",
                ways_on(&name)
            );
            // As a shell reports an end by a signal.
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// The lab as it is to be: the saved one with more nodes, or a new one.
fn merge(name: &str, spec: Spec, nodes: u8) -> Result<Lab> {
    let mut lab = Lab::plan(name, spec, nodes)?;
    if !lab.dir.join("lab.json").exists() {
        return Ok(lab);
    }
    let saved = Lab::open(name)?;
    let mut comparable = saved.spec.clone();
    // Another build of the same programs is not another lab.
    comparable.kubernetes.clone_from(&lab.spec.kubernetes);
    if comparable != lab.spec {
        bail!(
            "lab `{name}` is up with {}, not with {}; name another lab, or take it down first: {}",
            saved.spec.options(),
            lab.spec.options(),
            hint(name, "down")
        );
    }
    lab.spec = saved.spec;
    let known = saved.nodes.len();
    let mut all = saved.nodes;
    for node in lab.nodes {
        if !all.iter().any(|n| n.number == node.number) && all.len() < usize::from(nodes).max(known)
        {
            all.push(node);
        }
    }
    all.sort_by_key(|n| n.number);
    lab.nodes = all;
    Ok(lab)
}

/// Start everything that does not run.
pub fn bring_up(lab: &Lab, progress: &Progress) -> Result<()> {
    progress.run("namespaces and wires", |step| {
        let certificates = std::thread::scope(|scope| {
            let certificates = scope.spawn(|| pki::ensure(lab));
            network::base(lab)?;
            for node in &lab.nodes {
                network::node(lab, node)?;
            }
            certificates
                .join()
                .unwrap_or_else(|_| bail!("making certificates failed"))
        });
        certificates?;
        images::serve(lab)?;
        relay::ensure(lab)?;
        step.now(format!("{} wired", plural(lab.nodes.len(), "node")));
        Ok(())
    })?;
    std::thread::scope(|scope| {
        let control = scope.spawn(|| control_plane(lab, progress));
        let fabric = scope.spawn(|| fabric(lab, progress));
        for node in &lab.nodes {
            kubernetes::containerd(lab, node)?;
        }
        let control = join(control);
        let fabric = join(fabric);
        control.and(fabric)
    })?;
    programs_of_nodes(lab)?;
    progress.run("nodes", |step| {
        kubernetes::nodes_ready(lab, Duration::from_secs(90))?;
        step.now(format!("{} Ready", plural(lab.nodes.len(), "node")));
        Ok(())
    })?;
    if lab.spec.dns {
        progress.run("cluster DNS", |step| {
            kubernetes::kubectl(
                lab,
                &[
                    "-n",
                    "kube-system",
                    "rollout",
                    "status",
                    "deployment/coredns",
                    "--timeout=90s",
                ],
            )?;
            step.now("cluster DNS answers");
            Ok(())
        })?;
    }
    lab.forget_discovery()
}

fn join(handle: std::thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    handle
        .join()
        .unwrap_or_else(|_| bail!("a step of `up` panicked"))
}

fn control_plane(lab: &Lab, progress: &Progress) -> Result<()> {
    progress.run("control plane", |step| {
        kubernetes::api(lab)?;
        let mut manifest = kubernetes::base_manifest(lab);
        if lab.spec.cni == Cni::KubeOvn {
            manifest = components::crds()? + &manifest;
        }
        kubernetes::apply(lab, &manifest)?;
        kubernetes::managers(lab)?;
        step.now("control plane answers");
        Ok(())
    })
}

fn fabric(lab: &Lab, progress: &Progress) -> Result<()> {
    if lab.spec.cni != Cni::KubeOvn {
        return Ok(());
    }
    progress.run("OVN and Open vSwitch", |step| {
        ovn::central(lab)?;
        each(&lab.nodes, |node| ovn::node(lab, node))?;
        ovn::warm_tunnels(lab)?;
        step.now("OVN databases, Open vSwitch on each node, tunnels");
        Ok(())
    })
}

/// What every node runs beside containerd and Open vSwitch, and the controllers.
fn programs_of_nodes(lab: &Lab) -> Result<()> {
    if lab.spec.cni == Cni::KubeOvn {
        components::controllers(lab)?;
    }
    each(&lab.nodes, |node| programs_of(lab, node))
}

fn programs_of(lab: &Lab, node: &Node) -> Result<()> {
    kubernetes::kubelet(lab, node)?;
    match lab.spec.cni {
        Cni::KubeOvn => components::daemon(lab, node)?,
        Cni::Bridge => kubernetes::bridge_cni(lab, node)?,
    }
    if lab.spec.kube_proxy {
        kubernetes::proxy(lab, node)?;
    }
    Ok(())
}

/// Add a node to a running lab: number `number`, freshly installed.
pub fn add_node(lab: &mut Lab, number: u8, generation: u32, progress: &Progress) -> Result<()> {
    let _lock = lab.lock()?;
    if lab.nodes.iter().any(|n| n.number == number) {
        bail!("node number {number} is there already");
    }
    let node = Node::new(number, generation);
    lab.nodes.push(node.clone());
    lab.nodes.sort_by_key(|n| n.number);
    lab.save()?;
    progress.run(&format!("node {}", node.name), |_| {
        pki::ensure_node(lab, &node)?;
        network::node(lab, &node)?;
        kubernetes::apply(lab, &kubernetes::node_manifest(&node))?;
        kubernetes::containerd(lab, &node)?;
        if lab.spec.cni == Cni::KubeOvn {
            ovn::node(lab, &node)?;
            ovn::warm_tunnels(lab)?;
        }
        programs_of(lab, &node)?;
        kubernetes::nodes_ready(lab, Duration::from_mins(1))
    })
}

/// Do something for each node at the same time; the first error counts.
pub fn each(nodes: &[Node], work: impl Fn(&Node) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let running: Vec<_> = nodes
            .iter()
            .map(|node| {
                let work = &work;
                scope.spawn(move || work(node).with_context(|| format!("node {}", node.name)))
            })
            .collect();
        running
            .into_iter()
            .map(join)
            .collect::<Vec<_>>()
            .into_iter()
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_made_lab_is_named_in_every_way_on() {
        let text = ways_on("two");
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.lines().all(|l| l.contains(" --name two ")), "{text}");
    }
}
