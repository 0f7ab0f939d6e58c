//! Does the gateway of the join subnet answer? That is what the node condition `NetworkUnavailable` says.

use std::net::IpAddr;
use std::time::Duration;

use node::linux;
use node::plan::JOIN_INTERFACE;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::owner::Event;

/// Between probes while the gateway answers, and while it does not.
const CALM: Duration = Duration::from_secs(10);
const EAGER: Duration = Duration::from_millis(200);
/// For one answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Probes in a row that must fail before a gateway counts as lost.
const LOST_AFTER: u32 = 5;

/// The handle by which the owner says what to probe.
#[derive(Debug)]
pub struct Gateways(watch::Sender<Vec<IpAddr>>);

impl Gateways {
    /// Starts the prober. It reports each change of its verdict.
    pub fn start(events: mpsc::Sender<Event>) -> Self {
        let (targets, receiver) = watch::channel(Vec::new());
        tokio::spawn(run(receiver, events, unreachable_one));
        Self(targets)
    }

    /// Probe these from now on; none = nothing to probe.
    pub fn probe(&self, gateways: Vec<IpAddr>) {
        self.0.send_if_modified(|have| {
            let changed = *have != gateways;
            *have = gateways;
            changed
        });
    }
}

async fn run(
    mut targets: watch::Receiver<Vec<IpAddr>>,
    events: mpsc::Sender<Event>,
    probe: fn(&[IpAddr], u16) -> Option<String>,
) {
    let mut verdict: Option<Result<(), String>> = None;
    let mut failures = 0;
    let mut sequence: u16 = 0;
    loop {
        let gateways = targets.borrow_and_update().clone();
        let mut pause = CALM;
        if gateways.is_empty() {
            verdict = None;
            if targets.changed().await.is_err() {
                return;
            }
            continue;
        }
        sequence = sequence.wrapping_add(1);
        let answer = tokio::task::spawn_blocking(move || probe(&gateways, sequence));
        let found = match answer.await {
            Ok(None) => {
                failures = 0;
                Ok(())
            }
            Ok(Some(problem)) => {
                failures += 1;
                pause = EAGER;
                Err(problem)
            }
            // It panicked. What the condition says must not stay as it was for ever.
            Err(_) => {
                failures += 1;
                pause = EAGER;
                Err("probing the gateway: the probe panicked (see the log)".to_owned())
            }
        };
        let patient = found.is_err() && failures < LOST_AFTER;
        if !patient && verdict.as_ref() != Some(&found) {
            verdict = Some(found.clone());
            if events.send(Event::Gateway(found)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            changed = targets.changed() => {
                if changed.is_err() {
                    return;
                }
                verdict = None;
            }
        }
    }
}

fn unreachable_one(gateways: &[IpAddr], sequence: u16) -> Option<String> {
    let id = u16::try_from(std::process::id() & 0xffff).unwrap_or(1);
    gateways.iter().find_map(|gateway| {
        match linux::ping(JOIN_INTERFACE, *gateway, id, sequence, PATIENCE) {
            Ok(true) => None,
            Ok(false) => Some(format!(
                "an answer of the join subnet's gateway {gateway} through {JOIN_INTERFACE} (OVN installs it)"
            )),
            Err(error) => Some(format!("probing gateway {gateway}: {error}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_probe_that_panics_is_a_problem_and_not_the_end() {
        static PROBES: AtomicU32 = AtomicU32::new(0);
        fn probe(_: &[IpAddr], _: u16) -> Option<String> {
            assert!(
                PROBES.fetch_add(1, Ordering::Relaxed) > LOST_AFTER,
                "no luck"
            );
            None
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (events, mut told) = mpsc::channel(4);
            let (_targets, receiver) = watch::channel(vec![IpAddr::from([100, 64, 0, 1])]);
            tokio::spawn(run(receiver, events, probe));
            let first = told.recv().await;
            assert!(
                matches!(&first, Some(Event::Gateway(Err(text))) if text.contains("panic")),
                "{first:?}"
            );
            let next = told.recv().await;
            assert!(matches!(next, Some(Event::Gateway(Ok(())))), "{next:?}");
        });
    }
}
