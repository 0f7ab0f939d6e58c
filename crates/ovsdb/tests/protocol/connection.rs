//! Probes, frames and nonsense.

use std::time::{Duration, Instant};

use ovsdb::client::{Backoff, ReplicaEvent};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::common::Follower;
use crate::script::{Listener, NIL, ONE, TWO};

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
async fn a_silent_server_that_answers_probes_is_kept() {
    let listener = Listener::new();
    let mut config = listener.config();
    config.inactivity = Duration::from_millis(400);
    let mut f = Follower::start(config);
    let mut peer = listener.accept().await;
    peer.serve(ONE, json!({})).await;
    f.until(|f| f.synced).await;
    for _ in 0..3 {
        let probe = peer.expect("echo").await;
        peer.reply(&probe, json!([])).await;
    }
    assert!(f.handle.status().is_live());
    // The next one gets no answer.
    peer.expect("echo").await;
    assert!(matches!(
        f.next().await,
        ReplicaEvent::Disconnected(why) if why.contains("no answer for")
    ));
}

#[tokio::test]
async fn a_connection_that_was_good_is_made_again_at_once() {
    let listener = Listener::new();
    let mut config = listener.config();
    config.backoff = Backoff {
        initial: Duration::from_secs(8),
        max: Duration::from_secs(8),
    };
    let mut f = Follower::start(config);
    let mut peer = listener.accept().await;
    peer.serve(ONE, json!({})).await;
    f.until(|f| f.synced).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let lost = Instant::now();
    drop(peer);
    let mut peer = listener.accept().await;
    assert!(lost.elapsed() < Duration::from_secs(5));
    // One that is lost as soon as it stands is not a good one.
    peer.serve(ONE, json!({})).await;
    f.until(|f| f.connections == 2 && f.synced).await;
    drop(peer);
    let early = tokio::time::timeout(Duration::from_secs(1), listener.accept());
    assert!(early.await.is_err());
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
