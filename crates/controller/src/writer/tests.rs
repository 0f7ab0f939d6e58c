use std::sync::{Arc, Mutex};

use axum::http::{Method, StatusCode, Uri};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::clock::Clock;

type Requests = Arc<Mutex<Vec<(Method, String, Value)>>>;

/// An API server that gives one answer to everything, and what it was asked.
async fn server(code: u16, answer: Value) -> (Client, Requests) {
    let requests = Requests::default();
    let taken = Arc::clone(&requests);
    let status = StatusCode::from_u16(code).unwrap();
    let router = axum::Router::new().fallback(move |method: Method, uri: Uri, body: String| {
        let body = serde_json::from_str(&body).unwrap_or_default();
        let mut taken = taken.lock().unwrap();
        taken.push((method, uri.to_string(), body));
        std::future::ready((status, axum::Json(answer.clone())))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&listener);
    tokio::spawn(async { axum::serve(listener, router).await });
    (client, requests)
}

fn client(listener: &TcpListener) -> Client {
    let uri = format!("http://{}", listener.local_addr().unwrap());
    api::client::from_config(kube::Config::new(uri.parse().unwrap())).unwrap()
}

fn refusal(code: u16) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "Why", "code": code,
    })
}

fn held() -> Guard {
    let guard = Guard::new(Clock::start());
    guard.set(Some(Timestamp::MAX));
    guard
}

fn pod_patch() -> KubeWrite {
    let metadata = json!({
        "uid": "u", "resourceVersion": "7", "annotations": {"ovn.kubernetes.io/allocated": "true"},
    });
    KubeWrite::Patch {
        key: ObjectKey::pod("ns", "a"),
        part: Part::Main,
        body: json!({ "metadata": metadata }),
    }
}

fn vpc() -> Vpc {
    let vpc = json!({
        "apiVersion": "kubeovn.io/v1", "kind": "Vpc", "metadata": {"name": "v"}, "spec": {},
    });
    serde_json::from_value(vpc).unwrap()
}

#[tokio::test]
async fn nothing_is_sent_without_the_lease() {
    let (client, requests) = server(200, json!({})).await;
    let never = Guard::new(Clock::start());
    let over = Guard::new(Clock::start());
    over.set(Some(Timestamp::UNIX_EPOCH));
    for guard in [never, over] {
        let outcome = execute(client.clone(), pod_patch(), guard).await;
        assert!(matches!(outcome, KubeOutcome::Retry(_)), "{outcome:?}");
    }
    assert!(requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn each_refusal_means_what_it_means() {
    let no = || "no".to_owned();
    for (code, meaning) in [
        (404, KubeOutcome::NotFound),
        (409, KubeOutcome::Conflict(no())),
        (400, KubeOutcome::Refused(no())),
        (403, KubeOutcome::Refused(no())),
        (422, KubeOutcome::Refused(no())),
        (401, KubeOutcome::Retry(no())),
        (429, KubeOutcome::Retry(no())),
        (500, KubeOutcome::Unknown(no())),
        (503, KubeOutcome::Unknown(no())),
        (504, KubeOutcome::Unknown(no())),
    ] {
        let (client, requests) = server(code, refusal(code)).await;
        let outcome = execute(client, pod_patch(), held()).await;
        assert_eq!(outcome, meaning, "{code}");
        // Sent again by whom? The lease may be another's by then.
        assert_eq!(requests.lock().unwrap().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn a_kind_that_is_not_installed_yet_is_waited_for() {
    let write = || KubeWrite::Create(Object::Vpc(Box::new(vpc())));
    let (client, _) = server(404, refusal(404)).await;
    let outcome = execute(client, write(), held()).await;
    assert_eq!(outcome, KubeOutcome::Retry("no".to_owned()));
    let (client, _) = server(409, refusal(409)).await;
    let outcome = execute(client, write(), held()).await;
    assert_eq!(outcome, KubeOutcome::Conflict("no".to_owned()));
}

#[tokio::test]
async fn a_session_that_breaks_leaves_the_outcome_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&listener);
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let outcome = execute(client, pod_patch(), held()).await;
    assert!(matches!(outcome, KubeOutcome::Unknown(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_patch_goes_to_its_part_of_its_object_as_it_is() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "ns", "uid": "u"}});
    let (client, requests) = server(200, pod).await;
    let outcome = execute(client, pod_patch(), held()).await;
    let done = matches!(&outcome, KubeOutcome::Done(Some(Object::Pod(pod))) if pod.uid == "u");
    assert!(done, "{outcome:?}");
    let status = KubeWrite::Patch {
        key: ObjectKey::cluster(Kind::Vpc, "v"),
        part: Part::Status,
        body: json!({"status": {"standby": true}}),
    };
    let (vpcs, statuses) = server(200, serde_json::to_value(vpc()).unwrap()).await;
    execute(vpcs, status, held()).await;
    let KubeWrite::Patch { body, .. } = pod_patch() else {
        unreachable!()
    };
    let manager = "fieldManager=kube-ovn-controller";
    let [(method, uri, sent)] = &requests.lock().unwrap()[..] else {
        panic!("one request")
    };
    assert_eq!((method, sent), (&Method::PATCH, &body));
    assert!(
        uri.starts_with("/api/v1/namespaces/ns/pods/a?") && uri.contains(manager),
        "{uri}"
    );
    let uri = &statuses.lock().unwrap()[0].1;
    assert!(
        uri.starts_with("/apis/kubeovn.io/v1/vpcs/v/status?"),
        "{uri}"
    );
}

#[tokio::test]
async fn only_the_very_object_is_deleted() {
    let (client, requests) = server(200, serde_json::to_value(vpc()).unwrap()).await;
    for version in [Some("7".into()), None] {
        let write = KubeWrite::Delete {
            key: ObjectKey::cluster(Kind::Vpc, "v"),
            uid: "u".into(),
            resource_version: version,
        };
        execute(client.clone(), write, held()).await;
    }
    let requests = requests.lock().unwrap();
    let sent: Vec<&Value> = requests
        .iter()
        .map(|(method, uri, body)| {
            assert_eq!(method, Method::DELETE);
            assert!(uri.starts_with("/apis/kubeovn.io/v1/vpcs/v"), "{uri}");
            &body["preconditions"]
        })
        .collect();
    assert_eq!(sent[0], &json!({"uid": "u", "resourceVersion": "7"}));
    assert_eq!(sent[1]["uid"], "u");
}
