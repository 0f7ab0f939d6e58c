//! Where a new connection goes on.

use ovsdb::client::ReplicaEvent;
use ovsdb::wire::Datum;
use serde_json::json;

use crate::common::Follower;
use crate::script::{Listener, NIL, ONE, TWO, schema};

#[tokio::test]
async fn a_new_connection_goes_on_after_the_last_transaction() {
    let listener = Listener::new();
    let mut f = Follower::start(listener.config());
    let mut peer = listener.accept().await;
    peer.serve(
        ONE,
        json!({"T": {ONE: {"initial": {"tags": ["set", [1, 2]]}}}}),
    )
    .await;
    f.until(|f| f.synced).await;
    let update = json!({"T": {ONE: {"modify": {"tags": ["set", [2, 3]]}}}});
    peer.send(json!({"id": null, "method": "update3", "params": ["replica", TWO, update]}))
        .await;
    f.until(|f| f.updates == 2).await;
    drop(peer);

    let mut peer = listener.accept().await;
    let monitor = peer.greet().await;
    assert_eq!(
        monitor["params"][3], TWO,
        "the last transaction we have seen"
    );
    let found = json!([true, TWO, {"T": {ONE: {"modify": {"tags": 3}}}}]);
    peer.reply(&monitor, found).await;
    f.until(|f| f.connections == 2 && f.synced).await;
    assert!(f.connected.as_ref().unwrap().resumed);
    let row = f.replica.row("T", ONE.parse().unwrap()).unwrap();
    assert_eq!(row.get("tags"), Some(&Datum::from(1_i64)));
    drop(peer);

    // A server that does not know it sends everything: rows that stayed the same are not told again.
    let mut peer = listener.accept().await;
    let monitor = peer.greet().await;
    assert_eq!(monitor["params"][3], TWO);
    let rows = json!({"T": {ONE: {"initial": {"tags": 1}}, TWO: {"initial": {"name": "new"}}}});
    peer.reply(&monitor, json!([false, ONE, rows])).await;
    f.until(|f| f.connections == 3 && f.synced).await;
    assert_eq!(f.deltas, 4);
    drop(peer);

    // The database was replaced by an empty one.
    let mut peer = listener.accept().await;
    peer.serve(NIL, json!({})).await;
    f.until(|f| f.connections == 4 && f.synced).await;
    assert_eq!(f.replica.count("T"), 0);
    drop(peer);
    let mut peer = listener.accept().await;
    assert_eq!(
        peer.greet().await["params"][3],
        NIL,
        "nothing to go on after"
    );
}

#[tokio::test]
async fn an_update_that_does_not_fit_means_to_start_over() {
    let listener = Listener::new();
    let mut f = Follower::start(listener.config());
    let mut peer = listener.accept().await;
    peer.serve(ONE, json!({"T": {ONE: {"initial": {"name": "a"}}}}))
        .await;
    f.until(|f| f.synced).await;
    // Half of it would fit: all or nothing.
    let update = json!({"T": {ONE: {"modify": {"name": "b"}}, TWO: {"modify": {"name": "c"}}}});
    peer.send(json!({"id": null, "method": "update3", "params": ["replica", TWO, update]}))
        .await;
    f.until_event(|e| matches!(e, ReplicaEvent::Disconnected(r) if r.contains(TWO)))
        .await;
    assert_eq!(f.names("T"), ["a"]);
    let mut peer = listener.accept().await;
    let monitor = peer.greet().await;
    assert_eq!(monitor["params"][3], NIL, "everything, please");
    let rows = json!({"T": {ONE: {"initial": {"name": "b"}}, TWO: {"initial": {"name": "c"}}}});
    peer.reply(&monitor, json!([false, TWO, rows])).await;
    f.until(|f| f.synced).await;
    assert_eq!(f.names("T"), ["b", "c"]);
}

#[tokio::test]
async fn another_schema_is_not_resumed() {
    let listener = Listener::new();
    let mut f = Follower::start(listener.config());
    let mut peer = listener.accept().await;
    peer.serve(
        ONE,
        json!({"T": {ONE: {"initial": {"tag": 3, "name": "a"}}}}),
    )
    .await;
    f.until(|f| f.synced).await;
    peer.send(json!({"id": null, "method": "monitor_canceled", "params": ["replica"]}))
        .await;
    assert!(matches!(
        f.until_event(|e| matches!(e, ReplicaEvent::Disconnected(_))).await,
        ReplicaEvent::Disconnected(reason) if reason.contains("converted")
    ));

    let mut peer = listener.accept().await;
    peer.expect("set_db_change_aware").await;
    let server = peer.expect("monitor").await;
    peer.refuse(&server, json!("unknown database")).await;
    let request = peer.expect("get_schema").await;
    let mut schema = schema();
    schema["version"] = json!("2.0.0");
    schema["tables"]["T"]["columns"]
        .as_object_mut()
        .unwrap()
        .remove("tag");
    peer.reply(&request, schema).await;
    let monitor = peer.expect("monitor_cond_since").await;
    assert_eq!(monitor["params"][3], NIL);
    assert_eq!(
        monitor["params"][2],
        json!({"T": [{"columns": ["ids", "name", "tags"]}]})
    );
    peer.reply(
        &monitor,
        json!([false, TWO, {"T": {ONE: {"initial": {"name": "a"}}}}]),
    )
    .await;
    f.until(|f| f.synced).await;
    assert_eq!(f.replica.row("T", ONE.parse().unwrap()).unwrap().len(), 1);
}

/// Either alone is reason enough: the schema's version, and the columns that are asked for.
#[tokio::test]
async fn a_converted_database_is_fetched_again() {
    let listener = Listener::new();
    let mut f = Follower::start(listener.config());
    let steps = [
        ("1.0.0", None, false),
        ("1.0.0", None, true),
        ("1.0.1", None, false),
        ("1.0.1", Some("tag"), false),
        ("1.0.1", Some("tag"), true),
    ];
    for (before, (version, without, resumes)) in steps.into_iter().enumerate() {
        let mut schema = schema();
        schema["version"] = json!(version);
        if let Some(column) = without {
            let columns = schema["tables"]["T"]["columns"].as_object_mut();
            columns.unwrap().remove(column);
        }
        let mut peer = listener.accept().await;
        peer.expect("set_db_change_aware").await;
        let server = peer.expect("monitor").await;
        peer.refuse(&server, json!("unknown database")).await;
        let request = peer.expect("get_schema").await;
        peer.reply(&request, schema).await;
        let monitor = peer.expect("monitor_cond_since").await;
        let last = if resumes { TWO } else { NIL };
        assert_eq!(monitor["params"][3], last, "{version} without {without:?}");
        peer.reply(&monitor, json!([resumes, TWO, {}])).await;
        f.until(|f| f.connections == before + 1 && f.synced).await;
        assert_eq!(f.connected.as_ref().unwrap().resumed, resumes);
    }
}
