//! Events for users (`events.k8s.io/v1`).
//!
//! ```text
//! engine ── tell ──> queue ──> Pace: what is told when ──> one write at a time ──> API server
//!             └─> log                   └───────────────── outcome ───────┘
//! ```

mod pace;

use std::pin::pin;
use std::time::{Duration, Instant};

use engine::Notice;
use futures::future::OptionFuture;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tracing::{info, warn};

use pace::{Outcome, Pace, Publication};

/// Notices that wait; more are logged only.
pub const QUEUE: usize = pace::TOPICS;
/// Longest wait for the API server.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest `reportingInstance` that the API takes.
const INSTANCE: usize = 128;

/// Publishes notices until the sender is gone and all is said.
pub async fn run(client: Client, identity: String, mut notices: mpsc::Receiver<Notice>) {
    let start = u128::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default();
    let mut pace = Pace::new(start, Instant::now());
    let identity = pace::cut(&identity, INSTANCE);
    let (mut sent, mut open) = (None, true);
    let mut write = pin!(OptionFuture::from(None));
    loop {
        if sent.is_none()
            && let Some(next) = pace.next(Instant::now())
        {
            write.set(Some(publish(client.clone(), identity.to_owned(), next.clone())).into());
            sent = Some(next);
        }
        let due = if sent.is_none() { pace.due() } else { None };
        if !open && sent.is_none() && due.is_none() {
            return;
        }
        tokio::select! {
            notice = notices.recv(), if open => match notice {
                Some(notice) => if !pace.hear(notice, Instant::now()) {
                    warn!("too many events at once; the last one is in this log only");
                },
                None => open = false,
            },
            Some((outcome, error)) = write.as_mut(), if sent.is_some() => {
                let Some(sent) = sent.take() else { continue };
                let object = sent.topic.object.clone();
                if pace.answered(sent, outcome, Instant::now()) {
                    warn!(%object, error, "event not published; it is in this log only");
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
        }
    }
}

/// Carries out one write.
async fn publish(client: Client, identity: String, publication: Publication) -> (Outcome, String) {
    let object = &publication.topic.object;
    // Events about objects of the cluster live in `default`.
    let namespace = match object.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    };
    let events: Api<Event> = Api::namespaced(client, namespace);
    let event = event(&publication, namespace, identity);
    let written = async {
        if publication.again {
            let patch = Patch::Merge(json!({ "series": event.series }));
            let params = PatchParams::default();
            events.patch(&publication.name, &params, &patch).await
        } else {
            events.create(&PostParams::default(), &event).await
        }
    };
    match timeout(PATIENCE, written).await {
        Ok(Ok(_)) => (Outcome::Done, String::new()),
        Ok(Err(error)) => (outcome(&error), error.to_string()),
        Err(_) => (Outcome::Failed, format!("no answer in {PATIENCE:?}")),
    }
}

fn outcome(error: &Error) -> Outcome {
    let Error::Api(status) = error else {
        return Outcome::Failed;
    };
    match status.code {
        409 if status.reason == "AlreadyExists" => Outcome::Exists,
        404 => Outcome::Gone,
        400 | 403 | 413 | 422 => Outcome::Refused,
        _ => Outcome::Failed,
    }
}

fn event(publication: &Publication, namespace: &str, identity: String) -> Event {
    let topic = &publication.topic;
    let now = MicroTime(Timestamp::now());
    let series = (publication.count > 1).then(|| EventSeries {
        count: publication.count,
        last_observed_time: now.clone(),
    });
    let filled = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Event {
        metadata: ObjectMeta {
            name: Some(publication.name.clone()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        regarding: Some(ObjectReference {
            api_version: Some(topic.object.kind.api_version().to_owned()),
            kind: Some(topic.object.kind.name().to_owned()),
            name: Some(topic.object.name.to_string()),
            namespace: filled(&topic.object.namespace),
            uid: filled(&topic.uid),
            ..ObjectReference::default()
        }),
        type_: Some(if topic.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(topic.reason.to_string()),
        note: Some(publication.note.clone()),
        action: Some("Reconcile".to_owned()),
        event_time: Some(now),
        series,
        reporting_controller: Some(api::keys::FIELD_MANAGER.to_owned()),
        reporting_instance: Some(identity),
        ..Event::default()
    }
}

/// Says it in the log, and hands it on if there is room.
pub fn tell(queue: &mpsc::Sender<Notice>, notice: Notice) {
    if notice.warning {
        warn!(object = %notice.object, reason = %notice.reason, "{}", notice.message);
    } else {
        info!(object = %notice.object, reason = %notice.reason, "{}", notice.message);
    }
    if queue.try_send(notice).is_err() {
        warn!("too many events at once; the last one is in this log only");
    }
}
