//! Watches: one task per kind, all into one bounded channel.
//!
//! ```text
//!  list + watch ──> kube's watcher (lists anew by itself) ──> pump: object to view ──> bounded channel ──> main loop
//!                             ^                                                                             │
//!                             └──────────── begun anew where the engine asks for a list ── Lists ───────────┘
//! ```
//!
//! An object is cut down to its view before it enters the channel; nothing wider outlives the line that decoded it.

use std::collections::BTreeMap;
use std::error::Error;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::v1::{Ip, Subnet, Vpc};
use api::view::{NamespaceWire, NodeWire, PodWire};
use engine::{EffectId, Event, Kind, KubeEvent, ObjectKey};
use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::kinds::Watched;

#[cfg(test)]
mod tests;

/// Objects in one page of a list: bounds the memory that a list takes here and on the server.
const PAGE: u32 = 500;
/// First pause after an error.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause after errors. Short: what is waited for is mostly an API server or a CRD that is on its way.
const LONGEST: Duration = Duration::from_secs(2);
/// A watch that has not complained for so long works: it says nothing when it begins again where it was. Longer than the
/// longest pause and the longest way to a complaint (5 s to connect, 20 s without an answer).
const CALM: Duration = Duration::from_secs(30);

/// What is wrong with each watch at the moment, for readiness.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<Mutex<BTreeMap<Kind, String>>>);

impl Troubles {
    /// Sets what is wrong; returns whether that is news.
    fn set(&self, kind: Kind, trouble: Option<String>) -> bool {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(text) => troubles.insert(kind, text.clone()) != Some(text),
            None => troubles.remove(&kind).is_some(),
        }
    }

    /// A sentence for each watch that does not work.
    pub fn list(&self) -> Vec<String> {
        let troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        troubles
            .iter()
            .map(|(kind, error)| format!("watch of {}: {error}", kind.plural()))
            .collect()
    }
}

/// The way to each watch: which list the engine asked for last.
pub type Lists = BTreeMap<Kind, watch::Sender<Option<EffectId>>>;

/// Starts every watch.
pub fn start(
    client: &Client,
    events: &mpsc::Sender<Event>,
    troubles: &Troubles,
    stop: &CancellationToken,
) -> Lists {
    fn spawn<K: Watched>(
        client: &Client,
        events: &mpsc::Sender<Event>,
        troubles: &Troubles,
        stop: &CancellationToken,
    ) -> (Kind, watch::Sender<Option<EffectId>>) {
        let (ask, asked) = watch::channel(None);
        let config = watcher::Config::default().page_size(PAGE);
        let api = Api::<K>::all(client.clone());
        let begin = move || watcher(api.clone(), config.clone());
        let work = keep(begin, events.clone(), troubles.clone(), asked);
        let stop = stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(work).await });
        (K::KIND, ask)
    }
    [
        spawn::<Vpc>(client, events, troubles, stop),
        spawn::<Subnet>(client, events, troubles, stop),
        spawn::<Ip>(client, events, troubles, stop),
        spawn::<NamespaceWire>(client, events, troubles, stop),
        spawn::<NodeWire>(client, events, troubles, stop),
        spawn::<PodWire>(client, events, troubles, stop),
    ]
    .into()
}

/// Keeps one kind's watch, and begins it anew where the engine asks for a list: the request is sent after it was asked
/// for, and has no `resourceVersion`, so it shows no less than what was stored at that moment.
async fn keep<K: Watched, S>(
    begin: impl Fn() -> S,
    events: mpsc::Sender<Event>,
    troubles: Troubles,
    mut asked: watch::Receiver<Option<EffectId>>,
) where
    S: Stream<Item = watcher::Result<watcher::Event<K>>>,
{
    let kind = K::KIND;
    loop {
        // What is cut off here in the middle comes again with the list.
        let id = tokio::select! {
            () = pump(begin(), events.clone(), troubles.clone()) => return,
            changed = asked.changed() => match changed {
                Ok(()) => *asked.borrow_and_update(),
                Err(_) => return,
            },
        };
        if let Some(id) = id
            && events
                .send(Event::Kube(KubeEvent::Asked { kind, id }))
                .await
                .is_err()
        {
            return;
        }
    }
}

/// Carries one kind's watch until the receiver is gone.
async fn pump<K: Watched>(
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    events: mpsc::Sender<Event>,
    troubles: Troubles,
) {
    let kind = K::KIND;
    let mut stream = pin!(stream);
    let mut pause = FIRST;
    loop {
        let Ok(item) = timeout(CALM, stream.next()).await else {
            troubles.set(kind, None);
            pause = FIRST;
            continue;
        };
        let Some(item) = item else { return };
        let event = match item {
            Ok(watcher::Event::Init) => KubeEvent::Begin(kind),
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                KubeEvent::Apply(object.into_object())
            }
            Ok(watcher::Event::Delete(object)) => {
                let meta = object.meta();
                let key = ObjectKey {
                    kind,
                    namespace: meta.namespace.as_deref().unwrap_or_default().into(),
                    name: meta.name.as_deref().unwrap_or_default().into(),
                };
                let resource_version = meta.resource_version.as_deref().unwrap_or_default().into();
                KubeEvent::Delete {
                    key,
                    resource_version,
                }
            }
            Ok(watcher::Event::InitDone) => {
                debug!(kind = kind.plural(), "listed");
                KubeEvent::End(kind)
            }
            Err(error) => {
                // One that was cut off begins again where it was; something is wrong if that happens again and again
                // and nothing comes in between.
                if matches!(error, watcher::Error::WatchFailed(_)) && pause < LONGEST {
                    debug!(kind = kind.plural(), %error, "watch cut off");
                } else {
                    let text = explain(kind, &error);
                    // The same trouble every two seconds is one trouble.
                    if troubles.set(kind, Some(text.clone())) {
                        warn!(kind = kind.plural(), error = text, "watch interrupted");
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
                continue;
            }
        };
        if !matches!(event, KubeEvent::Begin(_)) {
            troubles.set(kind, None);
            pause = FIRST;
        }
        if events.send(Event::Kube(event)).await.is_err() {
            return;
        }
    }
}

/// The error with its causes; what to do where that is known.
fn explain(kind: Kind, error: &watcher::Error) -> String {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(status),
        _ => None,
    };
    if status.is_some_and(|status| status.code == 404) {
        let (plural, group) = (kind.plural(), api::v1::GROUP);
        return format!(
            "the API server does not know {plural}.{group}: install the CustomResourceDefinitions"
        );
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
