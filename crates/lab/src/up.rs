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

/// What the command line asks for. An option that is not given says nothing: a lab that is up keeps what it has.
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
    /// See [`Spec::kube_proxy`].
    pub no_kube_proxy: bool,
    /// See [`Spec::dns`].
    pub no_dns: bool,
    /// A folder with Kubernetes' programs.
    pub kubernetes_bin: Option<PathBuf>,
    /// See [`Spec`].
    pub pods: Option<net::Cidr>,
    /// See [`Spec`].
    pub cni: Cni,
}

impl Wish {
    /// The lab that is asked for: what is given, and for the rest what the lab of that name was made with.
    fn spec(&self, kubernetes: PathBuf, ovn_prefix: Option<PathBuf>, saved: Option<&Spec>) -> Spec {
        Spec {
            dual_stack: self.dual_stack || saved.is_some_and(|s| s.dual_stack),
            ovn_ha: self.ovn_ha || saved.is_some_and(|s| s.ovn_ha),
            ovn_prefix: ovn_prefix.or_else(|| saved?.ovn_prefix.clone()),
            // Another build of the same programs is not another lab: what runs goes on with those it was started with.
            kubernetes: saved.map_or(kubernetes, |s| s.kubernetes.clone()),
            pods: self.pods.or_else(|| saved?.pods),
            kube_proxy: !self.no_kube_proxy && saved.is_none_or(|s| s.kube_proxy),
            dns: !self.no_dns && saved.is_none_or(|s| s.dns),
            cni: match (self.cni, saved) {
                (Cni::KubeOvn, Some(saved)) => saved.cni,
                (cni, _) => cni,
            },
        }
    }
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
    crate::lab::check_name(name)?;
    let dir = Lab::dir_of(name);
    let there = dir.join("lab.json").exists();
    let known = if there { Some(Lab::open(name)?) } else { None };
    let nodes = known.as_ref().map_or(0, |lab| lab.nodes.len());
    if wish.ovn_ha && usize::from(wish.nodes).max(nodes) < 3 {
        bail!("--ovn-ha needs three nodes: one member of the database cluster on each");
    }
    let ovn_prefix = wish
        .ovn_prefix
        .as_ref()
        .map(|prefix| {
            fs::canonicalize(prefix).with_context(|| format!("--ovn-prefix {}", prefix.display()))
        })
        .transpose()?;
    let saved = known.as_ref().map(|lab| &lab.spec);
    let prefix = ovn_prefix.as_deref();
    preflight::check(
        Purpose::Run,
        prefix.or_else(|| saved?.ovn_prefix.as_deref()),
    )?;
    preflight::memory(wish.nodes, nodes)?;
    if wish.cni == Cni::KubeOvn {
        for program in ["kube-ovn-controller", "kube-ovn-daemon", "kube-ovn"] {
            components::program(program)?;
        }
    }
    let kubernetes = prepare(progress, wish.kubernetes_bin.as_deref())?;
    let _lock = crate::lab::lock(&dir)?;
    let lab = merge(name, wish, kubernetes, ovn_prefix)?;
    if there && !lab.spec.is_plain() {
        progress.say(&format!(
            "lab {name} is there, with {}, and stays so",
            lab.spec.options()
        ));
    }
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
fn merge(name: &str, wish: &Wish, kubernetes: PathBuf, ovn_prefix: Option<PathBuf>) -> Result<Lab> {
    if !Lab::dir_of(name).join("lab.json").exists() {
        return Lab::plan(name, wish.spec(kubernetes, ovn_prefix, None), wish.nodes);
    }
    let mut lab = Lab::open(name)?;
    let wanted = wish.spec(kubernetes, ovn_prefix, Some(&lab.spec));
    if wanted != lab.spec {
        bail!(
            "lab `{name}` is up with {}; it cannot become one with {}; name another lab, or take it down first: {}",
            lab.spec.options(),
            wanted.options(),
            hint(name, "down")
        );
    }
    for node in Lab::plan(name, wanted, wish.nodes)?.nodes {
        if lab.nodes.len() >= usize::from(wish.nodes) {
            break;
        }
        if !lab.nodes.iter().any(|n| n.number == node.number) {
            lab.nodes.push(node);
        }
    }
    lab.nodes.sort_by_key(|n| n.number);
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

    fn wish() -> Wish {
        Wish {
            nodes: 3,
            dual_stack: false,
            ovn_ha: false,
            ovn_prefix: None,
            no_kube_proxy: false,
            no_dns: false,
            kubernetes_bin: None,
            pods: None,
            cni: Cni::KubeOvn,
        }
    }

    #[test]
    fn a_lab_keeps_the_options_that_are_not_given_again() {
        let first = Wish {
            dual_stack: true,
            ovn_ha: true,
            no_dns: true,
            pods: "10.20.0.0/16".parse().ok(),
            ..wish()
        };
        let saved = first.spec("/one".into(), Some("/ovn".into()), None);
        assert_eq!(
            saved.options(),
            "--dual-stack --ovn-ha --no-dns --ovn-prefix /ovn --pod-cidr 10.20.0.0/16"
        );
        assert_eq!(wish().spec("/two".into(), None, Some(&saved)), saved);
        assert_eq!(first.spec("/two".into(), None, Some(&saved)), saved);
        // What is given and differs is not passed over in silence.
        let other = Wish {
            no_kube_proxy: true,
            ..wish()
        };
        assert_ne!(other.spec("/two".into(), None, Some(&saved)), saved);
        let plain = wish().spec("/one".into(), None, None);
        assert!(plain.is_plain() && !saved.is_plain());
        assert_ne!(first.spec("/one".into(), None, Some(&plain)), plain);
    }

    #[test]
    fn a_half_made_lab_is_named_in_every_way_on() {
        let text = ways_on("two");
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.lines().all(|l| l.contains(" --name two ")), "{text}");
    }
}
