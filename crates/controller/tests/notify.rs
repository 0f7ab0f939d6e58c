//! Events over HTTP, with the rules that the API server has for them (`events.k8s.io/v1`): a name is taken once, and of
//! an Event that is there, nothing but the series can change.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{patch, post};
use controller::notify;
use engine::{Kind, Notice, ObjectKey};
use k8s_openapi::api::events::v1::Event;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Events by namespace and name.
#[derive(Default)]
struct Store {
    events: BTreeMap<(String, String), Value>,
    /// Answers that are lost after the write is done.
    mute: usize,
    writes: usize,
}

type Shared = Arc<Mutex<Store>>;

fn refuse(code: StatusCode, reason: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason,
        "reason": reason, "code": code.as_u16(),
    });
    (code, status.to_string()).into_response()
}

fn answer(store: &mut Store, event: &Value) -> Response {
    store.writes += 1;
    if store.mute > 0 {
        store.mute -= 1;
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    }
    event.to_string().into_response()
}

async fn create(State(store): State<Shared>, Path(space): Path<String>, body: Bytes) -> Response {
    let mut store = store.lock().unwrap();
    let event: Value = serde_json::from_slice(&body).unwrap();
    let _: Event = serde_json::from_value(event.clone()).unwrap();
    for field in [
        "eventTime",
        "reportingController",
        "reportingInstance",
        "action",
        "reason",
        "type",
    ] {
        assert!(event[field].is_string(), "{field} is required");
    }
    assert!(event["note"].as_str().unwrap().len() <= 1024);
    let kind = event["regarding"]["namespace"].as_str();
    assert_eq!(kind.unwrap_or("default"), space);
    assert_eq!(event["metadata"]["namespace"], json!(space));
    let key = (
        space,
        event["metadata"]["name"].as_str().unwrap().to_owned(),
    );
    if store.events.contains_key(&key) {
        return refuse(StatusCode::CONFLICT, "AlreadyExists");
    }
    store.events.insert(key, event.clone());
    answer(&mut store, &event)
}

async fn repeat(
    State(store): State<Shared>,
    Path(key): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let mut store = store.lock().unwrap();
    let change: Value = serde_json::from_slice(&body).unwrap();
    let Some(event) = store.events.get_mut(&key) else {
        return refuse(StatusCode::NOT_FOUND, "NotFound");
    };
    for (field, value) in change.as_object().unwrap() {
        if field != "series" && event[field] != *value {
            return refuse(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
        }
    }
    assert!(change["series"]["count"].as_i64().unwrap() >= 2);
    assert!(change["series"]["lastObservedTime"].is_string());
    event["series"] = change["series"].clone();
    let event = event.clone();
    answer(&mut store, &event)
}

/// An API server's part that is about Events.
async fn serve(store: Shared) -> Client {
    let path = "/apis/events.k8s.io/v1/namespaces/{namespace}/events";
    let router = Router::new()
        .route(path, post(create))
        .route(&format!("{path}/{{name}}"), patch(repeat))
        .with_state(store);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Client::try_from(Config::new(format!("http://{address}").parse().unwrap())).unwrap()
}

fn notice(object: &ObjectKey, message: &str) -> Notice {
    Notice {
        object: object.clone(),
        uid: "u1".into(),
        warning: true,
        reason: "CidrConflict".into(),
        message: message.to_owned(),
    }
}

/// Tells all this, one after the other, and waits until it is said.
async fn tell(client: Client, notices: Vec<Notice>) {
    let (queue, untold) = mpsc::channel(notify::QUEUE);
    let publisher = tokio::spawn(notify::run(client, "controller-0".to_owned(), untold));
    for notice in notices {
        notify::tell(&queue, notice);
        // Long enough to be written, so that the next one meets what is there.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    drop(queue);
    publisher.await.unwrap();
}

/// Note and count of the Events of an object, in the order of their names.
fn said(store: &Shared, namespace: &str) -> Vec<(String, i64)> {
    let store = store.lock().unwrap();
    let events = store
        .events
        .iter()
        .filter(|((space, _), _)| space == namespace);
    events
        .map(|(_, event)| {
            let count = event["series"]["count"].as_i64().unwrap_or(1);
            (event["note"].as_str().unwrap().to_owned(), count)
        })
        .collect()
}

#[tokio::test]
async fn a_user_reads_the_last_word_and_repetitions_are_counted() {
    let store = Shared::default();
    let client = serve(store.clone()).await;
    let subnet = ObjectKey::cluster(Kind::Subnet, "blue");
    let pod = ObjectKey::pod("web", "nginx-0");
    let words = [
        notice(&subnet, "the CIDR overlaps a"),
        notice(&subnet, "the CIDR overlaps b"),
        notice(&subnet, "the CIDR overlaps b"),
        notice(&pod, "waits"),
    ];
    tell(client, words.to_vec()).await;
    let expected = [("the CIDR overlaps a", 1), ("the CIDR overlaps b", 2)];
    assert_eq!(
        said(&store, "default"),
        expected.map(|(note, count)| (note.to_owned(), count))
    );
    assert_eq!(said(&store, "web"), [("waits".to_owned(), 1)]);
    let store = store.lock().unwrap();
    let event = &store.events.values().next().unwrap();
    assert_eq!(
        event["regarding"],
        json!({"apiVersion": "kubeovn.io/v1", "kind": "Subnet", "name": "blue", "uid": "u1"})
    );
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["reportingController"], "kube-ovn-controller");
    assert_eq!(event["reportingInstance"], "controller-0");
}

#[tokio::test]
async fn an_answer_that_is_lost_makes_no_second_event() {
    let store = Shared::default();
    store.lock().unwrap().mute = 1;
    let client = serve(store.clone()).await;
    let subnet = ObjectKey::cluster(Kind::Subnet, "blue");
    tell(client, vec![notice(&subnet, "no room")]).await;
    assert_eq!(said(&store, "default"), [("no room".to_owned(), 1)]);
}

#[tokio::test]
async fn an_event_that_expired_is_made_anew() {
    let store = Shared::default();
    let client = serve(store.clone()).await;
    let subnet = ObjectKey::cluster(Kind::Subnet, "blue");
    let (queue, untold) = mpsc::channel(notify::QUEUE);
    let publisher = tokio::spawn(notify::run(client, "controller-0".to_owned(), untold));
    notify::tell(&queue, notice(&subnet, "no room"));
    while said(&store, "default").is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    store.lock().unwrap().events.clear();
    notify::tell(&queue, notice(&subnet, "no room"));
    drop(queue);
    publisher.await.unwrap();
    assert_eq!(said(&store, "default"), [("no room".to_owned(), 1)]);
}

/// 220 pods at once, each said three times: one Event each, and no more writes than that.
#[tokio::test]
async fn a_burst_is_one_event_for_each_object() {
    let store = Shared::default();
    let client = serve(store.clone()).await;
    let (queue, untold) = mpsc::channel(notify::QUEUE);
    for _ in 0..3 {
        for n in 0..220 {
            let pod = ObjectKey::pod("web", format!("nginx-{n}"));
            notify::tell(&queue, notice(&pod, "no room"));
        }
    }
    drop(queue);
    notify::run(client, "controller-0".to_owned(), untold).await;
    let said = said(&store, "web");
    assert_eq!(said.len(), 220);
    assert!(said.iter().all(|(_, count)| *count == 3), "{said:?}");
    assert!(store.lock().unwrap().writes <= 230);
}
