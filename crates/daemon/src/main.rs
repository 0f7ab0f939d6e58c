//! `kube-ovn-daemon`: the agent on each node. It sets the node up for the fabric and serves the CNI plugin.
//!
//! It never exits because something is not there yet: it waits, and `/readyz` says for what.

mod admin;
mod args;
mod chassis;
mod cluster;
mod cni;
mod conflist;
mod gateway;
mod kernel;
mod leftovers;
mod metrics;
mod owner;
#[cfg(test)]
mod scenario;
mod trust;
mod views;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use ovsdb::client::{Client, ClientConfig, Remote, TableSelection};
use smol_str::SmolStr;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use args::{Args, LogFormat};
use conflist::Conflist;
use owner::{Event, Owner, Parts, Readiness};

/// Events that may wait for the owner before senders do.
const QUEUE: usize = 1024;
/// For CNI requests under way when the daemon is told to stop.
const FAREWELL: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    log(&args);
    if args.install_cni_config {
        if let Some(conflist) = Conflist::new(&args) {
            conflist
                .install()
                .with_context(|| format!("writing {}", conflist.path().display()))?;
        }
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("daemon")
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(args));
    // The kernel threads block in system calls; they end with the process.
    runtime.shutdown_background();
    result
}

fn log(args: &Args) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&args.log_level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "kube-ovn-daemon configures the node's network: run it as root"
    );
    let node_name: SmolStr = args.node()?.into();
    let config = args.node_config()?;
    for flag in args.without_effect() {
        warn!("{flag} is not supported yet and has no effect");
    }
    info!(
        "kube-ovn-daemon {} on node {node_name}",
        env!("CARGO_PKG_VERSION")
    );

    let stop = CancellationToken::new();
    let (events, inbox) = mpsc::channel(QUEUE);
    let (readiness, readiness_out) = watch::channel(Readiness {
        waiting: vec!["the first look at the node".into()],
        ..Readiness::default()
    });
    let metrics = Arc::new(metrics::Metrics::new(&node_name));

    let mut monitor = ClientConfig::new(
        Remote::parse_list(&format!("unix:{}", args.ovs_socket.display()))?,
        "Open_vSwitch",
    );
    monitor.leader_only = false;
    monitor.tables = node::ovs::MONITORED
        .iter()
        .map(|(table, columns)| {
            let columns = columns.iter().copied();
            (SmolStr::new_static(table), TableSelection::columns(columns))
        })
        .collect::<BTreeMap<_, _>>();
    let (ovs, ovs_events) = Client::connect(monitor)?;

    let client = cluster::start(
        args.kubeconfig.clone(),
        node_name.clone(),
        events.clone(),
        stop.clone(),
    );
    let admin = admin::Admin {
        readiness: readiness_out,
        metrics: Arc::clone(&metrics),
        owner: events.clone(),
        cni_socket: args.bind_socket.clone(),
    };
    admin::serve(&admin, &listen_addresses(&args), args.pprof_port, &stop);

    let busy = leftovers::Busy::default();
    let owner = Owner::new(Parts {
        config,
        node_name: node_name.clone(),
        jobs: kernel::spawn_worker(events.clone())?,
        ovs: ovs.clone(),
        events: events.clone(),
        conflist: Conflist::new(&args),
        gateways: gateway::Gateways::start(events.clone()),
        writer: cluster::NodeWriter::new(client.clone(), node_name.clone()),
        readiness,
        busy: busy.clone(),
        patience: leftovers::PATIENCE,
        system_id: chassis::FILE.into(),
    });
    kernel::spawn_monitor(events.clone())?;
    let owner = tokio::spawn(owner.run(inbox, ovs_events, stop.clone()));

    let cni = cni::Cni {
        owner: events.clone(),
        events: cluster::Events::start(client, node_name),
        metrics,
        busy,
        wait: Duration::from_secs(args.cni_wait_seconds),
        running: cni::Running::default(),
        tasks: TaskTracker::new(),
    };
    let tasks = cni.tasks.clone();
    let closing = CancellationToken::new();
    let socket = args.bind_socket.clone();
    let mut serving = tokio::spawn(cni::keep(cni, socket, closing.clone()));

    tokio::select! {
        () = told_to_stop() => info!("stopping"),
        ended = owner => {
            ended.context("the owner loop ended")?;
            bail!("the owner loop ended");
        }
        ended = &mut serving => {
            ended.context("the CNI server ended")?;
            bail!("the CNI server ended");
        }
    }
    // No new requests; those under way still need the owner.
    closing.cancel();
    tasks.close();
    let farewell = async {
        tasks.wait().await;
        // Their answers are on their way.
        let _ = serving.await;
    };
    if timeout(FAREWELL, farewell).await.is_err() {
        warn!("CNI requests were still under way; the runtime repeats them");
    }
    stop.cancel();
    // The socket's file stays: by now it may be that of the daemon that takes over from us, and one that nobody listens on
    // is replaced by the next.
    drop::<mpsc::Sender<Event>>(events);
    Ok(())
}

fn listen_addresses(args: &Args) -> Vec<IpAddr> {
    if args.enable_bind_local_ip && !args.pod_ips.is_empty() {
        return args.pod_ips.clone();
    }
    // One socket for both families where the kernel has IPv6.
    if std::path::Path::new("/proc/sys/net/ipv6").exists() {
        vec![Ipv6Addr::UNSPECIFIED.into()]
    } else {
        vec![Ipv4Addr::UNSPECIFIED.into()]
    }
}

async fn told_to_stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
