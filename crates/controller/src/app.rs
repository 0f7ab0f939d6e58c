//! The process: one task owns the engine, all others carry things to it or from it.
//!
//! ```text
//!  6 watches ───────────┐
//!  elector (Lease) ─────┤ bounded channel                ┌─> a task per Kubernetes write (bounded by the engine) ──┐
//!  ends of writes ──────┴───────────────> main loop ─────┤                                                          │
//!        ^                                 Engine::step  ├─> notices (bounded, one task)                            │
//!        │                                  ^   ^        └─> submit ─> NB and SB clients                            │
//!        └──────────────────────────────────┼───┼───────────────────────────────────────────────────────────────────┘
//!  NB client, SB client: replica and outcomes in order        admin pages: a question, an answer
//! ```
//!
//! The loop waits for nothing but events: effects are handed on, never awaited. Everything that has arrived is taken in
//! one turn, so that a burst of pods is one look at each object and one transaction.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use engine::{Config, Effect, Engine, Event, LogLine, Role};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use ovsdb::client::{Events, Handle};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::admin::{Admin, HeldPlan, Question, Snapshot};
use crate::clock::Clock;
use crate::flags::Flags;
use crate::inventory::Groups;
use crate::lease::{Elector, Guard};
use crate::watch::Troubles;
use crate::{databases, inventory, notify, watch, writer};

/// Events that wait for the loop; a watch that is faster waits itself.
const EVENTS: usize = 4096;
/// Events taken in one turn: bounds the time until a question is answered.
const TURN: usize = 1024;
/// Time for writes under way at the end.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Runs the controller until `stop`.
pub async fn run(flags: Flags, stop: CancellationToken) -> anyhow::Result<()> {
    for flag in flags.upstream.without_effect() {
        warn!(flag, "accepted, but without effect in this version");
    }
    let fabric = flags.fabric()?;
    let timing = flags.election()?;
    let (queries, asked) = mpsc::channel(16);
    let troubles = Troubles::default();
    let admin = Admin::new(queries, troubles.clone());
    let address = SocketAddr::new(flags.bind_address, flags.pprof_port);
    // The pages are up until the end: their end must not be mistaken for that of the work.
    let over = CancellationToken::new();
    let _over = over.clone().drop_guard();
    let mut pages = tokio::spawn(admin.clone().serve(address, over));

    // The databases' sessions begin while the API server is still being waited for.
    let (nb, nb_events) = databases::northbound(&flags)?;
    let (sb, sb_events) = databases::southbound(&flags)?;
    let Some((client, cluster)) = stop
        .run_until_cancelled(reach_cluster(&flags, &admin))
        .await
    else {
        return Ok(());
    };

    let clock = Clock::start();
    let guard = Guard::new(clock);
    let identity = flags.identity();
    let config = Config {
        identity: identity.clone(),
        cluster,
        fabric,
        allow_mass_delete: flags.allow_mass_delete,
        accept_unsupported: flags.accept_unsupported,
        ..Config::default()
    };
    info!(%identity, %cluster, "starting");
    let (events, inbox) = mpsc::channel(EVENTS);
    let lists = watch::start(&client, &events, &troubles, &stop);
    let elector = Elector::new(
        client.clone(),
        &flags.pod_namespace,
        identity.to_string(),
        timing,
        guard.clone(),
    );
    // The lease is given back after the last write, so the elector has a stop of its own.
    let release = CancellationToken::new();
    let election = tokio::spawn(elector.run(events.clone(), release.clone()));
    let (notices, untold) = mpsc::channel(notify::QUEUE);
    tokio::spawn(notify::run(client.clone(), identity.to_string(), untold));
    admin.starting(None);

    let main = Loop {
        engine: Engine::new(config, clock.now()),
        clock,
        client,
        guard,
        nb,
        sb,
        events,
        lists,
        groups: flags.groups(),
        notices,
        writes: TaskTracker::new(),
        wake: None,
        turns: 0,
    };
    let inputs = Inputs {
        inbox,
        nb: nb_events,
        sb: sb_events,
        asked,
    };
    tokio::select! {
        result = main.run(inputs, stop.clone()) => result?,
        result = &mut pages => result.context("the admin server ended")??,
    }
    release.cancel();
    // A lease that cannot be given back runs out by itself.
    let _ = tokio::time::timeout(Duration::from_secs(5), election).await;
    info!("stopped");
    Ok(())
}

/// A client, and the cluster's identity: the uid of `kube-system`. Waits as long as it takes.
async fn reach_cluster(flags: &Flags, admin: &Admin) -> (Client, Uuid) {
    loop {
        match try_cluster(flags).await {
            Ok(reached) => return reached,
            Err(error) => {
                let text = format!("the API server: {error:#}");
                warn!("waiting for {text}");
                admin.starting(Some(text));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn try_cluster(flags: &Flags) -> anyhow::Result<(Client, Uuid)> {
    let client = api::client::client(flags.kubeconfig.as_deref()).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = namespaces
        .get("kube-system")
        .await
        .context("reading the namespace kube-system")?;
    let uid = namespace.metadata.uid.context("kube-system has no uid")?;
    Ok((client, uid.parse().context("the uid of kube-system")?))
}

struct Inputs {
    inbox: mpsc::Receiver<Event>,
    nb: Events,
    sb: Events,
    asked: mpsc::Receiver<Question>,
}

struct Loop {
    engine: Engine,
    clock: Clock,
    client: Client,
    guard: Guard,
    nb: Handle,
    sb: Handle,
    /// Ends of writes come back through here.
    events: mpsc::Sender<Event>,
    /// The watches, to ask them for a list.
    lists: watch::Lists,
    /// Where the Go implementation's resources are.
    groups: Groups,
    notices: mpsc::Sender<engine::Notice>,
    writes: TaskTracker,
    wake: Option<Instant>,
    turns: u64,
}

impl Loop {
    async fn run(mut self, mut inputs: Inputs, stop: CancellationToken) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(TURN);
        loop {
            let wake = self.wake;
            let timer = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(question) = inputs.asked.recv() => {
                    if let Some(event) = self.answer(question) {
                        batch.push(event);
                    }
                }
                event = inputs.nb.recv() => {
                    let event = event.context("the client of the northbound database ended")?;
                    batch.push(databases::event(event, Event::Nb));
                }
                event = inputs.sb.recv() => {
                    let event = event.context("the client of the southbound database ended")?;
                    batch.push(databases::event(event, Event::Sb));
                }
                Some(event) = inputs.inbox.recv() => batch.push(event),
                () = timer => {
                    self.wake = None;
                    batch.push(Event::Tick);
                }
            }
            while batch.len() < TURN
                && let Some(event) = inputs.nb.try_recv()
            {
                batch.push(databases::event(event, Event::Nb));
            }
            while batch.len() < TURN
                && let Ok(event) = inputs.inbox.try_recv()
            {
                batch.push(event);
            }
            self.turns += 1;
            let effects = self.engine.step_all(batch.drain(..), self.clock.now());
            for effect in effects {
                self.carry_out(effect).await;
            }
        }
        self.writes.close();
        // Nobody listens to what the writes, the watches and the elector have to say; they must not be stuck with it.
        let deaf = async { while inputs.inbox.recv().await.is_some() {} };
        tokio::select! {
            () = self.writes.wait() => {}
            () = tokio::time::sleep(LAST_WRITES) => {
                warn!("some writes to the API server were still under way at the end");
            }
            () = deaf => {}
        }
        Ok(())
    }

    async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Kube { id, write } => {
                let (client, guard, events) =
                    (self.client.clone(), self.guard.clone(), self.events.clone());
                self.writes.spawn(async move {
                    let outcome = writer::execute(client, write, guard).await;
                    // The loop is gone at the end; the next start finds out what became of the write.
                    let _ = events.send(Event::KubeDone { id, outcome }).await;
                });
            }
            Effect::Nb { id, ops, .. } => submit(&self.nb, &self.events, id, ops).await,
            Effect::Sb { id, ops } => submit(&self.sb, &self.events, id, ops).await,
            Effect::List { id, kind } => {
                if let Some(watch) = self.lists.get(&kind) {
                    watch.send_replace(Some(id));
                }
            }
            Effect::Inventory { id } => {
                let (client, events) = (self.client.clone(), self.events.clone());
                let groups = self.groups.clone();
                // Nothing is lost with it if the process ends.
                tokio::spawn(async move {
                    let in_use = inventory::take(&client, &groups).await;
                    let in_use = in_use.map_err(|error| format!("{error:#}"));
                    let _ = events.send(Event::Inventory { id, in_use }).await;
                });
            }
            Effect::Notice(notice) => notify::tell(&self.notices, notice),
            Effect::Wake(at) => self.wake = Some(Instant::now() + self.clock.until(at)),
            Effect::Log(line) => log(&line),
        }
    }

    /// Answers; an order comes back as an event for the engine. Who asked may be gone.
    fn answer(&mut self, question: Question) -> Option<Event> {
        match question {
            Question::Snapshot(asker) => drop(asker.send(self.snapshot())),
            Question::Held(asker) => {
                let mut plan = self.held();
                plan.lines = self.engine.held_deletes();
                drop(asker.send(plan));
            }
            Question::Release(rows, asker) => {
                let plan = self.held();
                if plan.leads && plan.rows() > 0 {
                    warn!(
                        agreed = rows,
                        held = plan.rows(),
                        "consent to a mass deletion"
                    );
                }
                drop(asker.send(plan));
                return Some(Event::ReleaseBrakes { rows });
            }
        }
        None
    }

    fn held(&self) -> HeldPlan {
        HeldPlan {
            leads: matches!(self.engine.role(), Role::Leader { .. }),
            tables: self.engine.held(),
            lines: Vec::new(),
            unclaimed: self.engine.unclaimed().to_vec(),
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let databases = [("northbound", &self.nb), ("southbound", &self.sb)]
            .into_iter()
            .filter(|(_, handle)| !handle.status().is_live())
            .map(|(name, handle)| format!("{name} database: {}", handle.status()))
            .collect();
        Snapshot {
            report: self.engine.report(),
            turns: self.turns,
            databases,
        }
    }
}

/// Hands a transaction to a client. At most one is under way for each database, so there is always room.
async fn submit(
    handle: &Handle,
    events: &mpsc::Sender<Event>,
    id: engine::EffectId,
    ops: Vec<ovsdb::wire::Operation>,
) {
    if let Err(error) = handle.submit(id.0, ops).await {
        let event = Event::Committed {
            id,
            outcome: databases::outcome(&Err(error)),
        };
        let events = events.clone();
        tokio::spawn(async move { events.send(event).await });
    }
}

fn log(line: &LogLine) {
    match line {
        LogLine::Ready { leases } => info!(
            leases,
            "complete: every list, the northbound replica and the ledger"
        ),
        LogLine::Leading { epoch } => info!(epoch, "leading"),
        LogLine::CatchingUp { kinds } => info!(
            kinds = kinds.join(","),
            "nothing is given up before these are listed anew"
        ),
        LogLine::Stopped { why } => warn!(why, "not leading any more"),
        LogLine::PodReady {
            pod,
            addresses,
            subnet,
        } => info!(%pod, %addresses, %subnet, "pod network ready"),
        LogLine::PortGone { port } => info!(%port, "port and address released"),
        LogLine::WriteFailed {
            write,
            error,
            retry_in_ms,
        } => {
            warn!(write, error, retry_in_ms, "write failed");
        }
        LogLine::Parked { unit, error } => {
            error!(unit, error, "the northbound database refuses rows");
        }
        LogLine::Held { what } => {
            error!(
                what,
                "the brakes are on: so much is not deleted without consent; see /brakes on the admin port"
            );
        }
        LogLine::TakeoverRefused { in_use } => {
            error!(
                in_use,
                "the Go implementation's network uses what this version does not have: nothing is written without --accept-unsupported"
            );
        }
        LogLine::Warning { text } => warn!("{text}"),
    }
}
