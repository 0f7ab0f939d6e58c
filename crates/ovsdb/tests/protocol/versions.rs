//! Older protocols.

use ovsdb::client::MonitorMethod;
use ovsdb::wire::Datum;
use serde_json::json;

use crate::common::Follower;
use crate::script::{Listener, ONE, TWO};

#[tokio::test]
async fn falls_back_to_monitor_cond() {
    let listener = Listener::new();
    let mut f = Follower::start(listener.config());
    let mut peer = listener.accept().await;
    let since = peer.greet().await;
    peer.refuse(&since, json!("unknown method")).await;
    let cond = peer.expect("monitor_cond").await;
    peer.reply(&cond, json!({"T": {ONE: {"initial": {"name": "a"}}}}))
        .await;
    f.until(|f| f.synced).await;
    assert_eq!(f.connected.as_ref().unwrap().method, MonitorMethod::Cond);
    let update = json!({"T": {ONE: {"modify": {"name": "b"}}, TWO: {"insert": {}}}});
    peer.send(json!({"id": null, "method": "update2", "params": ["replica", update]}))
        .await;
    f.until(|f| f.names("T") == ["", "b"]).await;
}

/// Open vSwitch before 2.6: no `_Server`, no conditions, whole rows in updates.
#[tokio::test]
async fn falls_back_to_the_protocol_of_the_rfc() {
    let listener = Listener::new();
    let mut f = Follower::start(listener.config());
    let mut peer = listener.accept().await;
    let aware = peer.expect("set_db_change_aware").await;
    peer.refuse(&aware, json!("unknown method")).await;
    let server = peer.expect("monitor").await;
    peer.refuse(
        &server,
        json!({"error": "unknown database", "details": "_Server"}),
    )
    .await;
    peer.schema().await;
    for method in ["monitor_cond_since", "monitor_cond"] {
        let request = peer.expect(method).await;
        peer.refuse(&request, json!("unknown method")).await;
    }
    let monitor = peer.expect("monitor").await;
    assert_eq!(
        monitor["params"],
        json!(["D", "replica", {"T": [{"columns": ["ids", "name", "tag", "tags"]}]}])
    );
    // This protocol sends defaults, too.
    let new = json!({"name": "a", "ids": ["map", []], "tags": ["set", [1, 2]], "tag": ["set", []]});
    peer.reply(&monitor, json!({"T": {ONE: {"new": new}}}))
        .await;
    f.until(|f| f.synced).await;
    assert_eq!(f.connected.as_ref().unwrap().method, MonitorMethod::Plain);
    let row = f.replica.row("T", ONE.parse().unwrap()).unwrap();
    assert_eq!(row.len(), 2, "{row:?}");

    let new = json!({"name": "a", "ids": ["map", []], "tags": 1, "tag": 5});
    let update =
        json!({"T": {ONE: {"old": {"tags": ["set", [1, 2]], "tag": ["set", []]}, "new": new}}});
    peer.send(json!({"id": null, "method": "update", "params": ["replica", update]}))
        .await;
    f.until(|f| f.updates == 2).await;
    let row = f.replica.row("T", ONE.parse().unwrap()).unwrap();
    assert_eq!(
        (row.get("tags"), row.int("tag")),
        (Some(&Datum::from(1_i64)), 5)
    );
    let update = json!({"T": {ONE: {"old": {"name": "a"}}}});
    peer.send(json!({"id": null, "method": "update", "params": ["replica", update]}))
        .await;
    f.until(|f| f.replica.count("T") == 0).await;
}
