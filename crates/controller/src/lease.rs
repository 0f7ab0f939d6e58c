//! The Lease `kube-ovn-controller`: IO around [`engine::lease`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Context;
use engine::lease::{Claim, Decision, Election, Record, Timing};
use engine::{Event, LeaseEvent};
use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::clock::Clock;

/// Name of the Lease: upstream's, so that the two implementations exclude each other.
pub const NAME: &str = "kube-ovn-controller";

/// Until when writes may be sent; shared with the writers.
#[derive(Clone, Debug)]
pub struct Guard {
    until: Arc<AtomicI64>,
    clock: Clock,
}

impl Guard {
    /// A guard that lets nothing through yet.
    pub fn new(clock: Clock) -> Self {
        Self {
            until: Arc::new(AtomicI64::new(i64::MIN)),
            clock,
        }
    }

    pub(crate) fn set(&self, until: Option<Timestamp>) {
        let millis = until.map_or(i64::MIN, Timestamp::as_millisecond);
        self.until.store(millis, Ordering::Release);
    }

    /// Whether the lease is ours now.
    pub fn holds(&self) -> bool {
        self.clock.now().as_millisecond() < self.until.load(Ordering::Acquire)
    }
}

/// One process's part in the election.
pub struct Elector {
    /// Leases of the component's namespace.
    pub api: Api<Lease>,
    /// Who we are.
    pub identity: String,
    /// Times.
    pub timing: Timing,
    /// The engine's clock.
    pub clock: Clock,
    /// Told about every renewal.
    pub guard: Guard,
}

impl Elector {
    /// An elector for the Lease in `namespace`.
    pub fn new(
        client: Client,
        namespace: &str,
        identity: String,
        timing: Timing,
        guard: Guard,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            identity,
            timing,
            clock: guard.clock,
            guard,
        }
    }

    /// Takes, keeps and watches the Lease until `stop`; then gives it back if it is ours.
    pub async fn run(self, events: mpsc::Sender<Event>, stop: CancellationToken) {
        let mut election = Election::default();
        let mut leading = false;
        // A lease that its holder gives back is seen at once, not after the retry period.
        let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let released = watcher(self.api.clone(), config).filter_map(|event| async {
            match event {
                Ok(watcher::Event::Apply(lease)) => holder(&lease).is_empty().then_some(()),
                Ok(watcher::Event::Delete(_)) => Some(()),
                Ok(_) => None,
                Err(_) => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    None
                }
            }
        });
        pin_mut!(released);
        loop {
            let wait = match timeout(self.timing.renew_deadline / 2, self.turn(&mut election)).await
            {
                Ok(Ok(Turn::Ours { until })) => {
                    if !leading {
                        info!(identity = self.identity, "the lease is ours");
                    }
                    leading = true;
                    self.guard.set(Some(until));
                    if events
                        .send(Event::Lease(LeaseEvent::Leader { until }))
                        .await
                        .is_err()
                    {
                        break;
                    }
                    self.timing.retry
                }
                Ok(Ok(Turn::Theirs { holder, look_at })) => {
                    if leading {
                        warn!(holder, "the lease was taken by another");
                    }
                    leading = false;
                    self.guard.set(None);
                    if events
                        .send(Event::Lease(LeaseEvent::Standby))
                        .await
                        .is_err()
                    {
                        break;
                    }
                    self.clock.until(look_at)
                }
                Ok(Err(error)) => {
                    debug!(error = format!("{error:#}"), "lease");
                    if leading {
                        warn!(
                            error = format!("{error:#}"),
                            "the lease could not be renewed"
                        );
                    }
                    self.timing.retry.min(Duration::from_secs(1))
                }
                Err(_) => {
                    warn!("the API server did not answer about the lease");
                    Duration::ZERO
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
                Some(()) = released.next(), if !leading => {}
            }
        }
        self.guard.set(None);
        if leading
            && let Err(error) = timeout(Duration::from_secs(3), self.release())
                .await
                .unwrap_or(Ok(()))
        {
            warn!(
                error = format!("{error:#}"),
                "the lease could not be given back"
            );
        }
    }

    /// Reads the Lease and does what is to be done about it.
    async fn turn(&self, election: &mut Election) -> anyhow::Result<Turn> {
        let lease = self.api.get_opt(NAME).await.context("reading the lease")?;
        // The guarantee counts from before the request: the server cannot have stored it earlier.
        let now = self.clock.now();
        let record = lease.as_ref().map(record);
        let held_by = record
            .as_ref()
            .map(|r| r.holder.clone())
            .unwrap_or_default();
        match election.decide(record, &self.identity, now, &self.timing) {
            Decision::Wait(look_at) => Ok(Turn::Theirs {
                holder: held_by,
                look_at,
            }),
            Decision::Claim(claim) => {
                self.write(lease, &claim)
                    .await
                    .context("writing the lease")?;
                Ok(Turn::Ours {
                    until: Election::guarantee(now, &self.timing),
                })
            }
        }
    }

    async fn write(&self, lease: Option<Lease>, claim: &Claim) -> anyhow::Result<()> {
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.duration.as_secs()).ok(),
            acquire_time: Some(MicroTime(claim.acquired)),
            renew_time: Some(MicroTime(claim.renewed)),
            lease_transitions: Some(claim.transitions),
            ..lease
                .as_ref()
                .and_then(|l| l.spec.clone())
                .unwrap_or_default()
        };
        let params = PostParams {
            field_manager: Some(api::keys::FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        if let Some(lease) = lease {
            let lease = Lease {
                spec: Some(spec),
                ..lease
            };
            self.api.replace(NAME, &params, &lease).await?;
        } else {
            let metadata = ObjectMeta {
                name: Some(NAME.to_owned()),
                ..ObjectMeta::default()
            };
            let lease = Lease {
                metadata,
                spec: Some(spec),
            };
            self.api.create(&params, &lease).await?;
        }
        Ok(())
    }

    /// Gives the Lease back, as client-go does: no holder, one second.
    async fn release(&self) -> anyhow::Result<()> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            return Ok(());
        };
        if holder(&lease) != self.identity {
            return Ok(());
        }
        let now = MicroTime(self.clock.now());
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            ..lease.spec.clone().unwrap_or_default()
        };
        self.api
            .replace(
                NAME,
                &PostParams::default(),
                &Lease {
                    spec: Some(spec),
                    ..lease
                },
            )
            .await?;
        info!("the lease is given back");
        Ok(())
    }
}

enum Turn {
    Ours { until: Timestamp },
    Theirs { holder: String, look_at: Timestamp },
}

fn holder(lease: &Lease) -> &str {
    lease
        .spec
        .as_ref()
        .and_then(|s| s.holder_identity.as_deref())
        .unwrap_or_default()
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        acquired: spec.acquire_time.map(|t| t.0),
        renewed: spec.renew_time.map(|t| t.0),
        transitions: spec.lease_transitions.unwrap_or_default(),
        resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}
