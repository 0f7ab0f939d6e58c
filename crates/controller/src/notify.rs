//! Events for users, one after the other: `events.k8s.io/v1` with the aggregation of kube's recorder.

use std::time::Duration;

use engine::Notice;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

/// Longest `note` that the API takes, in bytes.
const NOTE: usize = 1024;
/// Notices that wait; more are logged only.
pub const QUEUE: usize = 256;

/// Publishes notices until the sender is gone.
pub async fn run(client: Client, identity: String, mut notices: mpsc::Receiver<Notice>) {
    let reporter = Reporter {
        controller: api::keys::FIELD_MANAGER.to_owned(),
        instance: Some(identity),
    };
    let recorder = Recorder::new(client, reporter);
    while let Some(notice) = notices.recv().await {
        let reference = ObjectReference {
            api_version: Some(notice.object.kind.api_version().to_owned()),
            kind: Some(notice.object.kind.name().to_owned()),
            name: Some(notice.object.name.to_string()),
            namespace: Some(notice.object.namespace.to_string()).filter(|n| !n.is_empty()),
            uid: Some(notice.uid.to_string()).filter(|u| !u.is_empty()),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: if notice.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: notice.reason.to_string(),
            note: Some(cut(&notice.message, NOTE).to_owned()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        match timeout(
            Duration::from_secs(10),
            recorder.publish(&event, &reference),
        )
        .await
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(object = %notice.object, %error, "event not published"),
            Err(_) => warn!(object = %notice.object, "event not published in time"),
        }
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

/// The first `limit` bytes of a text, at a character's border.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
