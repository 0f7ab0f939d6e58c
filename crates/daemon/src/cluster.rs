//! Kubernetes: watches in, a few patches and events out.

use std::fmt;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use api::keys;
use api::v1::Subnet;
use api::view::{NodeView, NodeWire, PodKey, PodView, PodWire};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::events::{Event as KubeEvent, EventType, Recorder, Reporter};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use smol_str::SmolStr;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::owner::{Event, Watch};
use crate::views::subnet_facts;

/// Between tries at what an API server need not have.
const OPTIONAL: Duration = Duration::from_mins(1);
/// A watch that has not complained for so long works: it says nothing when it begins again where it was. Longer than its
/// longest pause (30 s) and the longest way to a complaint (5 s to connect, 20 s without an answer).
const CALM: Duration = Duration::from_mins(1);

/// The client, once there is one. Its configuration may come later than we do.
pub type ClientSlot = watch::Receiver<Option<Client>>;

/// Makes the client and starts the watches; tries again until both work.
pub fn start(
    kubeconfig: Option<PathBuf>,
    node: SmolStr,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) -> ClientSlot {
    let (slot, client) = watch::channel(None);
    tokio::spawn(async move {
        let work = async {
            let client = connect(kubeconfig, &events).await;
            let _ = slot.send(Some(client.clone()));
            tokio::join!(
                watch_nodes(client.clone(), events.clone()),
                watch_pods(client.clone(), node.clone(), events.clone()),
                watch_subnets(client.clone(), node, events.clone()),
                watch_service_cidrs(client, events),
            );
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
        // Keeps the slot alive: events may be written until the very end.
        slot.closed().await;
    });
    client
}

async fn connect(kubeconfig: Option<PathBuf>, events: &mpsc::Sender<Event>) -> Client {
    loop {
        let problem = match api::client::client(kubeconfig.as_deref()).await {
            Ok(client) => {
                let _ = events.send(Event::Api("configuration", None)).await;
                return client;
            }
            Err(error) => chain(&error),
        };
        let _ = events
            .send(Event::Api("configuration", Some(problem)))
            .await;
        sleep(Duration::from_secs(1)).await;
    }
}

async fn watch_nodes(client: Client, events: mpsc::Sender<Event>) {
    let stream = watcher(Api::<NodeWire>::all(client), watcher::Config::default());
    pump(
        Kind::needed("nodes"),
        stream,
        events,
        |wire: &NodeWire| Some(NodeView::from(wire)),
        Event::Nodes,
    )
    .await;
}

async fn watch_pods(client: Client, node: SmolStr, events: mpsc::Sender<Event>) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let stream = watcher(Api::<PodWire>::all(client), config);
    // A pod in the host's network has nothing of ours.
    let view = |wire: &PodWire| Some(PodView::from(wire)).filter(|pod| !pod.host_network);
    pump(Kind::needed("pods"), stream, events, view, Event::Pods).await;
}

async fn watch_subnets(client: Client, node: SmolStr, events: mpsc::Sender<Event>) {
    let stream = watcher(Api::<Subnet>::all(client), watcher::Config::default());
    let view = |subnet: &Subnet| subnet_facts(subnet, &node);
    pump(
        Kind::needed("subnets"),
        stream,
        events,
        view,
        Event::Subnets,
    )
    .await;
}

/// API servers before 1.33 do not have these, and a role of upstream's does not name them: then the command line alone
/// counts, and nobody waits.
async fn watch_service_cidrs(client: Client, events: mpsc::Sender<Event>) {
    let api = Api::<ServiceCIDR>::all(client);
    let view = |object: &ServiceCIDR| {
        let cidrs = &object.spec.as_ref()?.cidrs;
        let cidrs = cidrs.iter().flatten().filter_map(|c| c.parse().ok());
        Some((object.name_any().into(), cidrs.collect()))
    };
    let kind = Kind {
        name: "servicecidrs",
        needed: false,
    };
    loop {
        // Asked first: the watcher complains aloud, and begins again at once.
        match api.list(&ListParams::default().limit(1)).await {
            Ok(_) => {
                let stream = watcher(api.clone(), watcher::Config::default());
                pump(kind, stream, events.clone(), view, Event::ServiceCidrs).await;
            }
            Err(error) => debug!("no ServiceCIDRs: {}", chain(&error)),
        }
        sleep(OPTIONAL).await;
    }
}

/// What is watched.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    /// Without it the daemon is not ready; a watch that is not needed ends with its first error.
    needed: bool,
}

impl Kind {
    fn needed(name: &'static str) -> Self {
        Self { name, needed: true }
    }
}

/// Turns a watch into events of the owner. A re-list becomes one [`Watch::Replace`]; an object that the view leaves out
/// counts as gone.
async fn pump<K, V>(
    kind: Kind,
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    events: mpsc::Sender<Event>,
    view: impl Fn(&K) -> Option<V>,
    event: impl Fn(Watch<V>) -> Event,
) where
    K: kube::Resource,
{
    let mut stream = pin!(stream.default_backoff());
    let mut list = Vec::new();
    let mut troubled = false;
    let gone = |object: &K| {
        Watch::Delete(
            object.namespace().unwrap_or_default().into(),
            object.name_any().into(),
        )
    };
    loop {
        let Ok(next) = timeout(CALM, stream.next()).await else {
            if std::mem::take(&mut troubled)
                && events.send(Event::Api(kind.name, None)).await.is_err()
            {
                return;
            }
            continue;
        };
        let Some(next) = next else { return };
        let change = match next {
            Ok(watcher::Event::Init) => {
                list.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                list.extend(view(&object));
                continue;
            }
            Ok(watcher::Event::InitDone) => Watch::Replace(std::mem::take(&mut list)),
            Ok(watcher::Event::Apply(object)) => {
                view(&object).map_or_else(|| gone(&object), Watch::Apply)
            }
            Ok(watcher::Event::Delete(object)) => gone(&object),
            // It was cut off, and begins again at once; only if it cannot is something wrong.
            Err(error @ watcher::Error::WatchFailed(_)) if kind.needed => {
                debug!("watching {}: {}", kind.name, chain(&error));
                continue;
            }
            Err(error) => {
                let problem = chain(&error);
                debug!("watching {}: {problem}", kind.name);
                if !kind.needed {
                    return;
                }
                troubled = true;
                let event = Event::Api(kind.name, Some(problem));
                if events.send(event).await.is_err() {
                    return;
                }
                continue;
            }
        };
        if std::mem::take(&mut troubled) && events.send(Event::Api(kind.name, None)).await.is_err()
        {
            return;
        }
        if events.send(event(change)).await.is_err() {
            return;
        }
    }
}

/// An error with its causes in one line; kube's own texts leave them out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The node condition `NetworkUnavailable`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    unavailable: bool,
    message: String,
}

impl Condition {
    pub fn of(gateway: &Result<(), String>) -> Self {
        match gateway {
            Ok(()) => Self {
                unavailable: false,
                message: "the gateway of the join subnet answers".into(),
            },
            Err(problem) => Self {
                unavailable: true,
                message: format!("waiting for {problem}"),
            },
        }
    }

    /// Upstream's reasons.
    fn reason(&self) -> &'static str {
        if self.unavailable {
            "JoinSubnetGatewayUnreachable"
        } else {
            "JoinSubnetGatewayReachable"
        }
    }
}

/// Writes to the own Node.
#[derive(Clone)]
pub struct NodeWriter {
    client: ClientSlot,
    node: SmolStr,
}

impl NodeWriter {
    pub fn new(client: ClientSlot, node: SmolStr) -> Self {
        Self { client, node }
    }

    /// Patches what is given.
    pub async fn write(
        &self,
        chassis: Option<SmolStr>,
        condition: Option<Condition>,
    ) -> Result<(), String> {
        let client = self.client.borrow().clone();
        let nodes: Api<Node> = Api::all(client.ok_or("no client yet")?);
        let params = PatchParams {
            field_manager: Some(keys::FIELD_MANAGER_DAEMON.into()),
            ..PatchParams::default()
        };
        if let Some(chassis) = chassis {
            let patch = json!({"metadata": {"annotations": {keys::CHASSIS: chassis}}});
            nodes
                .patch(&self.node, &params, &Patch::Merge(&patch))
                .await
                .map_err(|e| chain(&e))?;
            info!("the Node's chassis is {chassis}");
        }
        if let Some(condition) = condition {
            let now = Timestamp::now().to_string();
            let patch = json!({"status": {"conditions": [{
                "type": "NetworkUnavailable",
                "status": if condition.unavailable { "True" } else { "False" },
                "reason": condition.reason(),
                "message": condition.message,
                "lastTransitionTime": now,
                "lastHeartbeatTime": now,
            }]}});
            nodes
                .patch_status(&self.node, &params, &Patch::Strategic(&patch))
                .await
                .map_err(|e| chain(&e))?;
            info!("the Node's condition: {}", condition.reason());
        }
        Ok(())
    }
}

/// What happened to a pod, for its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodEvent {
    Configured,
    ConfigureFailed,
}

impl fmt::Display for PodEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configured => "PodNetworkConfigured",
            Self::ConfigureFailed => "PodNetworkConfigureFailed",
        })
    }
}

/// Writes events on pods, in the background and best effort: a pod does not wait for them.
#[derive(Debug, Clone)]
pub struct Events {
    queue: mpsc::Sender<(PodKey, SmolStr, PodEvent, String)>,
}

impl Events {
    pub fn start(mut client: ClientSlot, node: SmolStr) -> Self {
        let (queue, mut inbox) = mpsc::channel::<(PodKey, SmolStr, PodEvent, String)>(256);
        tokio::spawn(async move {
            let client = match client.wait_for(Option::is_some).await {
                Ok(client) => client.clone(),
                Err(_) => return,
            };
            let Some(client) = client else { return };
            let reporter = Reporter {
                controller: "kube-ovn-daemon".into(),
                instance: Some(node.to_string()),
            };
            let recorder = Recorder::new(client, reporter);
            while let Some((pod, uid, event, note)) = inbox.recv().await {
                if let Err(error) = publish(&recorder, &pod, &uid, event, note).await {
                    warn!("event {event} on pod {pod}: {}", chain(&error));
                }
            }
        });
        Self { queue }
    }

    /// Queues an event. One that finds the queue full is dropped: the log has it.
    pub fn publish(&self, pod: &PodKey, uid: &SmolStr, event: PodEvent, note: String) {
        let _ = self.queue.try_send((pod.clone(), uid.clone(), event, note));
    }
}

async fn publish(
    recorder: &Recorder,
    pod: &PodKey,
    uid: &SmolStr,
    event: PodEvent,
    note: String,
) -> kube::Result<()> {
    let reference = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace.to_string()),
        name: Some(pod.name.to_string()),
        uid: (!uid.is_empty()).then(|| uid.to_string()),
        ..ObjectReference::default()
    };
    let event = KubeEvent {
        type_: match event {
            PodEvent::Configured => EventType::Normal,
            PodEvent::ConfigureFailed => EventType::Warning,
        },
        reason: event.to_string(),
        note: Some(note),
        action: "ConfigureNetwork".into(),
        secondary: None,
    };
    recorder.publish(&event, &reference).await
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    type Item = watcher::Result<watcher::Event<NodeWire>>;

    fn failed() -> Item {
        let why = kube::Error::LinesCodecMaxLineLengthExceeded;
        Err(watcher::Error::WatchStartFailed(why))
    }

    fn node(name: &str) -> NodeWire {
        serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
    }

    /// What the owner hears of a watch that says this, and then nothing for a while; and what it has heard before that.
    async fn heard(kind: Kind, items: Vec<Item>) -> (Vec<String>, Vec<String>) {
        let stream = stream::iter(items).chain(stream::pending());
        let (events, mut inbox) = mpsc::channel(64);
        tokio::spawn(pump(
            kind,
            stream,
            events,
            |node: &NodeWire| Some(NodeView::from(node)).filter(|n| n.name != "left-out"),
            Event::Nodes,
        ));
        let mut text = Vec::new();
        let mut early = None;
        let start = tokio::time::Instant::now();
        while let Ok(Some(event)) = timeout(CALM * 3, inbox.recv()).await {
            if start.elapsed() >= CALM {
                early.get_or_insert_with(|| text.clone());
            }
            text.push(match event {
                Event::Nodes(Watch::Apply(node)) => format!("apply {}", node.name),
                Event::Nodes(Watch::Delete(_, name)) => format!("delete {name}"),
                Event::Nodes(Watch::Replace(list)) => format!("replace by {}", list.len()),
                Event::Api(kind, problem) => format!("{kind} {}", problem.is_some()),
                other => panic!("{other:?}"),
            });
        }
        (early.unwrap_or_else(|| text.clone()), text)
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_becomes_events() {
        let (_, all) = heard(
            Kind::needed("nodes"),
            vec![
                Ok(watcher::Event::Init),
                Ok(watcher::Event::InitApply(node("a"))),
                Ok(watcher::Event::InitApply(node("left-out"))),
                Ok(watcher::Event::InitDone),
                Ok(watcher::Event::Apply(node("b"))),
                Ok(watcher::Event::Apply(node("left-out"))),
                Ok(watcher::Event::Delete(node("b"))),
                // A second list that ends before it is whole, and a third.
                Ok(watcher::Event::Init),
                Ok(watcher::Event::InitApply(node("a"))),
                Ok(watcher::Event::Init),
                Ok(watcher::Event::InitApply(node("a"))),
                Ok(watcher::Event::InitDone),
            ],
        )
        .await;
        let wanted = [
            "replace by 1",
            "apply b",
            "delete left-out",
            "delete b",
            "replace by 1",
        ];
        assert_eq!(all, wanted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_silent_after_trouble_works() {
        let nodes = Kind::needed("nodes");
        let (early, all) = heard(nodes, vec![failed()]).await;
        assert_eq!(early, ["nodes true"]);
        assert_eq!(all, ["nodes true", "nodes false"]);
        let again = vec![failed(), Ok(watcher::Event::Apply(node("a")))];
        let (early, all) = heard(nodes, again).await;
        assert_eq!(early, ["nodes true", "nodes false", "apply a"]);
        assert_eq!(all, early);
        // It was cut off, and begins again.
        let why = kube::Error::LinesCodecMaxLineLengthExceeded;
        let cut = Err(watcher::Error::WatchFailed(why));
        assert!(heard(nodes, vec![cut]).await.1.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_not_needed_ends_quietly() {
        let kind = Kind {
            name: "servicecidrs",
            needed: false,
        };
        let more = Ok(watcher::Event::Apply(node("a")));
        assert!(heard(kind, vec![failed(), more]).await.1.is_empty());
    }

    #[test]
    fn condition_is_upstreams() {
        let good = Condition::of(&Ok(()));
        assert_eq!(good.reason(), "JoinSubnetGatewayReachable");
        let bad = Condition::of(&Err("an answer of 100.64.0.1".into()));
        assert_eq!(bad.reason(), "JoinSubnetGatewayUnreachable");
        assert!(bad.message.contains("100.64.0.1"));
    }
}
