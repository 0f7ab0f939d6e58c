//! The thread that does the node's kernel work, and the one that listens for changes.
//!
//! Both live as long as the process and block in system calls; they talk to the owner loop through channels.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::thread;
use std::time::Duration;

use node::linux::{self, Firewall, Monitor, Noticed, Socket};
use node::plan::{LinkState, NodePlan, diff};
use smol_str::SmolStr;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::owner::Event;

/// Ninety pods that start together become a few looks at the kernel.
const BURST: Duration = Duration::from_millis(100);

/// Reach this plan.
#[derive(Debug, Clone)]
pub struct Job {
    pub plan: Arc<NodePlan>,
    /// Look also at what costs a process to look at: our nftables table, the host's own chains.
    pub audit: bool,
}

/// What became of a job.
#[derive(Debug)]
pub struct Report {
    pub plan: Arc<NodePlan>,
    pub links: BTreeMap<SmolStr, LinkState>,
    /// How many operations were carried out.
    pub done: u64,
    pub error: Option<String>,
}

/// Starts the worker; jobs are done one after the other.
pub fn spawn_worker(events: mpsc::Sender<Event>) -> io::Result<blocking::Sender<Job>> {
    let (jobs, inbox) = blocking::channel::<Job>();
    thread::Builder::new()
        .name("kernel".into())
        .spawn(move || {
            let mut worker = Worker::default();
            while let Ok(job) = inbox.recv() {
                let report = worker.run(&job);
                if events.blocking_send(Event::Kernel(report)).is_err() {
                    return;
                }
            }
        })?;
    Ok(jobs)
}

#[derive(Debug, Default)]
struct Worker {
    socket: Option<Socket>,
    firewall: Firewall,
}

impl Worker {
    fn run(&mut self, job: &Job) -> Report {
        let mut report = Report {
            plan: Arc::clone(&job.plan),
            links: BTreeMap::new(),
            done: 0,
            error: None,
        };
        if let Err(error) = self.reach(job, &mut report) {
            // A socket in an unknown state is not worth keeping.
            self.socket = None;
            report.error = Some(error);
        }
        report
    }

    fn reach(&mut self, job: &Job, report: &mut Report) -> Result<(), String> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::open().map_err(|e| e.to_string())?,
        };
        let firewall = &mut self.firewall;
        let state = linux::observe(&mut socket, firewall, &job.plan, job.audit)
            .map_err(|e| e.to_string())?;
        let ops = diff(&job.plan, &state);
        report.links = state.links;
        let mut failed = None;
        let mut rules = job.audit;
        for op in &ops {
            rules |= matches!(op, node::plan::KernelOp::Nft(_));
            match linux::apply(&mut socket, firewall, op) {
                Ok(()) => {
                    info!("{op}");
                    report.done += 1;
                }
                // The rest may well succeed; the next round repeats what did not.
                Err(error) => {
                    warn!("{error}");
                    failed.get_or_insert(error.to_string());
                }
            }
        }
        if !ops.is_empty() {
            report.links = linux::links(&mut socket).map_err(|e| e.to_string())?;
        }
        if rules && job.plan.nft.is_some() {
            match linux::keep_accepted() {
                Ok(done) => done.iter().for_each(|rule| info!("accept rule {rule}")),
                Err(error) => warn!("the host's own firewall chains: {error}"),
            }
        }
        self.socket = Some(socket);
        failed.map_or(Ok(()), Err)
    }
}

/// Starts the listener: an event when links, addresses, routes or rules changed, and at most one for all that change
/// within [`BURST`].
pub fn spawn_monitor(events: mpsc::Sender<Event>) -> io::Result<()> {
    thread::Builder::new()
        .name("monitor".into())
        .spawn(move || {
            loop {
                let result = Monitor::open().and_then(|monitor| {
                    // Nobody told what changed before it was open.
                    let mut noticed = Noticed {
                        links: true,
                        rules: true,
                    };
                    while events.blocking_send(Event::KernelChanged(noticed)).is_ok() {
                        thread::sleep(BURST);
                        noticed = monitor.wait()?;
                    }
                    Ok(())
                });
                match result {
                    Ok(()) => return,
                    Err(error) => debug!("netlink monitor: {error}"),
                }
                thread::sleep(Duration::from_secs(1));
            }
        })?;
    Ok(())
}
