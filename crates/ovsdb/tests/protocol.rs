//! Servers that a distribution does not have: older ones, wrong ones, and ones that stop at the worst moment. Each is a
//! script of requests and replies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::{Follower, id, switch};
use ovsdb::TransactError;
use ovsdb::client::{Backoff, ClientConfig, MonitorMethod, Remote, ReplicaEvent, TableSelection};
use ovsdb::wire::{Datum, FrameBuffer, Operation};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

const NIL: &str = "00000000-0000-0000-0000-000000000000";
const ONE: &str = "00000000-0000-0000-0000-000000000001";
const TWO: &str = "00000000-0000-0000-0000-000000000002";

struct Listener {
    listener: UnixListener,
    dir: TempDir,
}

impl Listener {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        Self { listener, dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new(vec![Remote::Unix(self.path())], "D");
        config.backoff = Backoff {
            initial: Duration::from_millis(10),
            max: Duration::from_millis(10),
        };
        config.monitor("T", TableSelection::all())
    }

    async fn accept(&self) -> Peer {
        let (stream, _) = timeout(common::PATIENCE, self.listener.accept())
            .await
            .expect("the client connects")
            .unwrap();
        Peer {
            stream,
            frames: FrameBuffer::new(1 << 30),
        }
    }
}

/// The server's end of one connection.
struct Peer {
    stream: UnixStream,
    frames: FrameBuffer,
}

impl Peer {
    /// The next message of the client; none at the end.
    async fn receive(&mut self) -> Option<Value> {
        loop {
            if let Some(frame) = self.frames.next_frame().unwrap() {
                return Some(serde_json::from_slice(frame).unwrap());
            }
            let read = timeout(common::PATIENCE, self.stream.read_buf(self.frames.tail()));
            if read.await.expect("a message of the client").unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next message, which is a request of this method.
    async fn expect(&mut self, method: &str) -> Value {
        let request = self.receive().await.expect("a request");
        assert_eq!(request["method"], method, "{request}");
        request
    }

    async fn send(&mut self, message: Value) {
        self.stream
            .write_all(&serde_json::to_vec(&message).unwrap())
            .await
            .unwrap();
    }

    async fn reply(&mut self, request: &Value, result: Value) {
        self.send(json!({"id": request["id"], "result": result, "error": null}))
            .await;
    }

    async fn refuse(&mut self, request: &Value, error: Value) {
        self.send(json!({"id": request["id"], "result": null, "error": error}))
            .await;
    }

    /// Everything up to the monitor request, as a standalone server of today.
    async fn greet(&mut self) -> Value {
        let aware = self.expect("set_db_change_aware").await;
        self.reply(&aware, json!({})).await;
        let server = self.expect("monitor").await;
        assert_eq!(server["params"][0], "_Server");
        let row = json!({"name": "D", "model": "standalone", "connected": true, "leader": true});
        self.reply(&server, json!({"Database": {ONE: {"new": row}}}))
            .await;
        self.schema().await;
        self.receive().await.expect("a monitor request")
    }

    async fn schema(&mut self) {
        let request = self.expect("get_schema").await;
        self.reply(&request, schema()).await;
    }

    /// A session that is live with the rows of the reply.
    async fn serve(&mut self, last: &str, rows: Value) {
        let monitor = self.greet().await;
        assert_eq!(monitor["method"], "monitor_cond_since");
        self.reply(&monitor, json!([false, last, rows])).await;
    }
}

fn schema() -> Value {
    json!({"name": "D", "version": "1.0.0", "tables": {
        "T": {"columns": {
            "name": {"type": "string"},
            "ids": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}},
            "tags": {"type": {"key": "integer", "min": 0, "max": "unlimited"}},
            "tag": {"type": {"key": "integer", "min": 0, "max": 1}},
        }},
        "Logical_Switch": {"columns": {"name": {"type": "string"}}}
    }})
}

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

#[tokio::test]
async fn answers_probes_in_every_state() {
    let listener = Listener::new();
    let mut f = Follower::start(listener.config());
    let mut peer = listener.accept().await;
    peer.send(json!({"id": "echo", "method": "echo", "params": ["early", 1]}))
        .await;
    peer.send(json!({"id": 5, "method": "steal", "params": []}))
        .await;
    peer.expect("set_db_change_aware").await;
    let server = peer.expect("monitor").await;
    assert_eq!(
        peer.receive().await.unwrap(),
        json!({"id": "echo", "result": ["early", 1], "error": null})
    );
    assert_eq!(
        peer.receive().await.unwrap(),
        json!({"id": 5, "result": null, "error": "unknown method"})
    );
    peer.refuse(&server, json!("unknown database")).await;
    peer.schema().await;
    let monitor = peer.expect("monitor_cond_since").await;
    peer.reply(&monitor, json!([false, NIL, {}])).await;
    f.until(|f| f.synced).await;
    // Nobody reads the events now.
    peer.send(json!({"id": "echo", "method": "echo", "params": []}))
        .await;
    assert_eq!(peer.receive().await.unwrap()["id"], "echo");
}

#[tokio::test]
async fn bytes_may_come_one_by_one() {
    let listener = Listener::new();
    let mut f = Follower::start(listener.config());
    let mut peer = listener.accept().await;
    peer.serve(ONE, json!({})).await;
    f.until(|f| f.synced).await;
    let update = json!({"T": {ONE: {"insert": {"name": "}\"{é\\"}}}});
    let message = json!({"id": null, "method": "update3", "params": ["replica", TWO, update]});
    for byte in serde_json::to_vec(&message).unwrap() {
        peer.stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    f.until(|f| f.names("T") == ["}\"{é\\"]).await;
}

/// What became of a transaction is unknown only if the server may have read all of it.
#[tokio::test]
async fn a_request_that_was_not_sent_whole_was_not_committed() {
    let listener = Listener::new();
    let mut f = Follower::start(listener.config());
    let mut peer = listener.accept().await;
    peer.serve(ONE, json!({})).await;
    f.until(|f| f.synced).await;
    // The first goes out; the second fills the socket of a server that does not read.
    f.handle.submit(1, vec![switch("sw")]).await.unwrap();
    peer.expect("transact").await;
    let large = Operation::comment("x".repeat(8 << 20));
    f.handle.submit(2, vec![large]).await.unwrap();
    f.handle.submit(3, vec![switch("behind")]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(peer);
    let mut results = Vec::new();
    f.until_event(|e| {
        matches!(
            e,
            ReplicaEvent::Outcome {
                token: 1,
                result: Err(TransactError::Unknown(_))
            }
        )
    })
    .await;
    while results.len() < 2 {
        if let ReplicaEvent::Outcome { token, result } = f.next().await {
            results.push((token, result));
        }
    }
    results.sort_by_key(|(token, _)| *token);
    assert_eq!(
        results,
        [
            (2, Err(TransactError::NotConnected)),
            (3, Err(TransactError::NotConnected))
        ]
    );
}

#[tokio::test]
async fn trouble_in_the_cluster_leaves_the_outcome_open() {
    let listener = Listener::new();
    let mut f = Follower::start(listener.config());
    let mut peer = listener.accept().await;
    peer.serve(ONE, json!({})).await;
    f.until(|f| f.synced).await;
    f.handle.submit(1, vec![switch("sw")]).await.unwrap();
    let request = peer.expect("transact").await;
    assert_eq!(request["params"][0], "D");
    assert_eq!(request["params"][1]["uuid"], id("sw").to_string());
    let error = json!({"error": "cluster error", "details": "lost leadership"});
    peer.reply(&request, json!([{}, error])).await;
    assert!(matches!(
        f.next().await,
        ReplicaEvent::Outcome { result: Err(TransactError::Unknown(why)), .. } if why.contains("lost leadership")
    ));
    // Refused as a whole, for certain.
    f.handle.submit(2, vec![switch("sw")]).await.unwrap();
    let request = peer.expect("transact").await;
    peer.refuse(
        &request,
        json!({"error": "not allowed", "details": "read only"}),
    )
    .await;
    assert!(matches!(
        f.next().await,
        ReplicaEvent::Outcome {
            result: Err(TransactError::Refused { index: None, .. }),
            ..
        }
    ));
}

#[tokio::test]
async fn nonsense_ends_the_connection_and_nothing_else() {
    let listener = Listener::new();
    let mut f = Follower::start(listener.config());
    for nonsense in [
        "HTTP/1.1 400 Bad Request\r\n",
        "{}",
        r#"{"id":99,"result":1,"error":null}"#,
        r#"{"id":null,"method":"update3","params":["replica"]}"#,
        r#"{"id":null,"method":"update3","params":["other","00000000-0000-0000-0000-000000000001",{}]}"#,
        r#"{"id":null,"method":"update","params":["replica",{"T":7}]}"#,
        "[[[[[[",
    ] {
        let mut peer = listener.accept().await;
        peer.serve(ONE, json!({})).await;
        f.until(|f| f.synced).await;
        peer.stream.write_all(nonsense.as_bytes()).await.unwrap();
        f.until_event(|e| matches!(e, ReplicaEvent::Disconnected(_)))
            .await;
        assert!(peer.receive().await.is_none(), "{nonsense}");
    }
    let mut peer = listener.accept().await;
    peer.serve(ONE, json!({})).await;
    f.until(|f| f.synced).await;
}

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
