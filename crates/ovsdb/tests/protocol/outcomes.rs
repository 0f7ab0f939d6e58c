//! What is known of a transaction.

use std::time::Duration;

use ovsdb::TransactError;
use ovsdb::client::ReplicaEvent;
use ovsdb::wire::Operation;
use serde_json::json;

use crate::common::{Follower, id, switch};
use crate::script::{Listener, ONE};

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
    // The server gives up waiting for the commit: the database is closed or converted.
    f.handle.submit(4, vec![switch("sw")]).await.unwrap();
    let request = peer.expect("transact").await;
    peer.refuse(&request, json!("canceled")).await;
    assert!(matches!(
        f.next().await,
        ReplicaEvent::Outcome { token: 4, result: Err(TransactError::Unknown(why)) } if why == "canceled"
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
