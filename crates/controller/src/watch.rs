//! Watches of the API server, as events of the engine.
//!
//! ```text
//!  list + watch of each kind ──> watcher (lists again by itself, backs off) ──> pump ──> one bounded channel ──> run
//! ```
//!
//! Each object is cut down to its view before it enters the channel; what is wider than a view never outlives the line
//! that decoded it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use api::v1::{Ip, Subnet, Vpc};
use api::view::{NamespaceView, NamespaceWire, NodeView, NodeWire, PodView, PodWire};
use engine::{Event, Kind, KubeEvent, Object};
use futures::StreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::runtime::WatchStreamExt;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// Objects in one page of a list: bounds what a list of 100 000 pods holds at once.
const PAGE: u32 = 500;

/// Why watches do not come up: shown by /readyz.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<Mutex<BTreeMap<Kind, String>>>);

impl Troubles {
    fn set(&self, kind: Kind, trouble: Option<String>) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(text) => map.insert(kind, text),
            None => map.remove(&kind),
        };
    }

    /// `watch of subnets: ...`, a line each.
    pub fn lines(&self) -> Vec<String> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.iter().map(|(kind, text)| format!("watch of {}: {text}", kind.plural())).collect()
    }
}

/// Starts all watches. They end when the channel closes.
pub fn start(client: &Client, out: &mpsc::Sender<Event>, troubles: &Troubles) {
    spawn(Kind::Vpc, Api::<Vpc>::all(client.clone()), |vpc| Object::Vpc(Box::new(vpc)), out, troubles);
    spawn(Kind::Subnet, Api::<Subnet>::all(client.clone()), |subnet| Object::Subnet(Box::new(subnet)), out, troubles);
    spawn(Kind::Ip, Api::<Ip>::all(client.clone()), |ip| Object::Ip(Box::new(ip)), out, troubles);
    spawn(Kind::Namespace, Api::<NamespaceWire>::all(client.clone()), |wire| Object::Namespace(NamespaceView::from(&wire)), out, troubles);
    spawn(Kind::Node, Api::<NodeWire>::all(client.clone()), |wire| Object::Node(NodeView::from(&wire)), out, troubles);
    spawn(Kind::Pod, Api::<PodWire>::all(client.clone()), |wire| Object::Pod(PodView::from(&wire)), out, troubles);
}

fn spawn<K>(kind: Kind, api: Api<K>, narrow: fn(K) -> Object, out: &mpsc::Sender<Event>, troubles: &Troubles)
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    tokio::spawn(pump(kind, api, narrow, out.clone(), troubles.clone()));
}

async fn pump<K>(kind: Kind, api: Api<K>, narrow: fn(K) -> Object, out: mpsc::Sender<Event>, troubles: Troubles)
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().page_size(PAGE);
    let mut stream = std::pin::pin!(watcher(api, config).default_backoff());
    let mut last = String::new();
    while let Some(item) = stream.next().await {
        let event = match item {
            Ok(watcher::Event::Init) => KubeEvent::Begin(kind),
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => KubeEvent::Apply(narrow(object)),
            Ok(watcher::Event::InitDone) => {
                troubles.set(kind, None);
                last.clear();
                KubeEvent::End(kind)
            }
            Ok(watcher::Event::Delete(object)) => {
                let object = narrow(object);
                KubeEvent::Delete { key: object.key(), resource_version: object.resource_version().into() }
            }
            Err(error) => {
                let text = explain(kind, &error);
                // The same trouble once a second is one trouble.
                if text == last {
                    debug!(kind = kind.plural(), error = %text, "watch still fails");
                } else {
                    warn!(kind = kind.plural(), error = %text, "watch failed; trying again");
                }
                troubles.set(kind, Some(text.clone()));
                last = text;
                continue;
            }
        };
        if out.send(Event::Kube(event)).await.is_err() {
            return;
        }
    }
}

fn explain(kind: Kind, error: &watcher::Error) -> String {
    let missing = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    };
    if missing && kind.api_version() != "v1" {
        return format!("the cluster does not know {}; are the CRDs of {} installed?", kind.plural(), kind.api_version());
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
