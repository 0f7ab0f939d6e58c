//! Which member of a cluster is used.

use ovsdb::TransactError;
use ovsdb::client::{Remote, ReplicaEvent};
use serde_json::json;

use crate::common::{Follower, switch};
use crate::script::{Listener, NIL, ONE};

/// A member that loses the leadership is left at once; one that never had it is not asked for anything else.
#[tokio::test]
async fn only_the_leader_is_used() {
    let (first, second) = (Listener::new(), Listener::new());
    let mut config = first.config();
    config.remotes.push(Remote::Unix(second.path()));
    let mut f = Follower::start(config);
    let member = |leader: bool, connected: bool| {
        let row =
            json!({"name": "D", "model": "clustered", "connected": connected, "leader": leader});
        json!({"Database": {ONE: {"new": row}}})
    };

    let mut peer = first.accept().await;
    peer.expect("set_db_change_aware").await;
    let server = peer.expect("monitor").await;
    assert_eq!(
        server["params"][2],
        json!({"Database": [{"columns": ["name", "model", "connected", "leader", "cid"]}]})
    );
    peer.reply(&server, member(false, true)).await;
    assert!(peer.receive().await.is_none(), "not even the schema");

    let mut peer = second.accept().await;
    peer.expect("set_db_change_aware").await;
    let server = peer.expect("monitor").await;
    peer.reply(&server, member(true, true)).await;
    peer.schema().await;
    let monitor = peer.expect("monitor_cond_since").await;
    peer.reply(&monitor, json!([false, ONE, {}])).await;
    f.until(|f| f.synced).await;

    f.handle.submit(1, vec![switch("sw")]).await.unwrap();
    peer.expect("transact").await;
    peer.send(json!({"id": null, "method": "update", "params": ["server", member(false, true)]}))
        .await;
    let outcome = f.next().await;
    assert!(
        matches!(
            outcome,
            ReplicaEvent::Outcome {
                token: 1,
                result: Err(TransactError::Unknown(_))
            }
        ),
        "{outcome:?}"
    );
    let lost = f.next().await;
    assert!(
        matches!(&lost, ReplicaEvent::Disconnected(reason) if reason.contains("not the leader")),
        "{lost:?}"
    );

    let mut peer = first.accept().await;
    peer.expect("set_db_change_aware").await;
    let server = peer.expect("monitor").await;
    peer.reply(&server, member(true, false)).await;
    assert!(peer.receive().await.is_none(), "cut off from its cluster");
}

/// Without the leader, a member may be behind: what we have seen must not be undone.
#[tokio::test]
async fn a_member_that_is_behind_is_passed_over() {
    const CLUSTER: &str = "00000000-0000-0000-0000-00000000000c";
    const REBORN: &str = "00000000-0000-0000-0000-00000000000d";
    let listener = Listener::new();
    let mut config = listener.config();
    config.leader_only = false;
    let mut f = Follower::start(config);
    let member = |cluster: &str, index: u64| {
        let cid = json!(["uuid", cluster]);
        let row = json!({
            "name": "D", "model": "clustered", "connected": true, "leader": false, "cid": cid, "index": index
        });
        json!({"Database": {ONE: {"new": row}}})
    };
    let mut connections = 0;
    for (cluster, index, later, fits) in [
        (CLUSTER, 100, 107, true),
        (CLUSTER, 106, 0, false),
        (CLUSTER, 107, 108, true),
        // Another cluster's log has nothing to do with it.
        (REBORN, 5, 6, true),
    ] {
        let mut peer = listener.accept().await;
        peer.expect("set_db_change_aware").await;
        let server = peer.expect("monitor").await;
        let columns = &server["params"][2]["Database"][0]["columns"];
        assert!(columns.as_array().unwrap().contains(&json!("index")));
        peer.reply(&server, member(cluster, index)).await;
        if !fits {
            assert!(peer.receive().await.is_none(), "{index} is behind");
            let problem = f.handle.status().problem.unwrap();
            assert!(
                problem.contains("106") && problem.contains("107"),
                "{problem}"
            );
            continue;
        }
        peer.schema().await;
        let monitor = peer.expect("monitor_cond_since").await;
        peer.reply(&monitor, json!([false, NIL, {}])).await;
        connections += 1;
        f.until(|f| f.connections == connections && f.synced).await;
        let update = member(cluster, later);
        peer.send(json!({"id": null, "method": "update", "params": ["server", update]}))
            .await;
        // The echo comes back when the update was taken.
        peer.send(json!({"id": "x", "method": "echo", "params": []}))
            .await;
        peer.receive().await.unwrap();
        drop(peer);
    }
}
