//! The client against a real RAFT cluster of three.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Follower, Writer, id, northbound, switch};
use ovsdb::TransactError;
use ovsdb::client::ReplicaEvent;
use ovsdb::wire::{Condition, Datum, Mutation, Operation};
use testkit::ovn::{Cluster, Schema};

async fn start(cluster: &Cluster) -> Writer {
    let mut config = northbound(&cluster.remotes());
    config.inactivity = Duration::from_millis(500);
    Writer::start(config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_while_we_write() {
    let mut cluster = Cluster::start(Schema::Northbound);
    let mut writer = start(&cluster).await;
    for round in 0..3 {
        let leader = cluster.wait_for_leader();
        assert_eq!(
            writer
                .follower
                .connected
                .as_ref()
                .unwrap()
                .remote
                .to_string(),
            cluster.remote(leader),
            "we use the leader"
        );
        // A transaction on its way when the leader dies.
        for _ in 0..20 {
            writer.write().await;
        }
        let pending: Vec<_> = (0..5).map(|i| 1_000_000 + round * 100 + i).collect();
        for token in &pending {
            let touch = Operation::mutate(
                "Logical_Switch",
                Condition::row(id("sw")),
                vec![Mutation::insert(
                    "external_ids",
                    Datum::map([(token.to_string(), "x")]),
                )],
            );
            writer
                .follower
                .handle
                .submit(*token, vec![touch])
                .await
                .unwrap();
        }
        cluster.kill(leader);
        let mut open: BTreeSet<_> = pending.into_iter().collect();
        while !open.is_empty() {
            if let ReplicaEvent::Outcome { token, result } = writer.follower.next().await {
                assert!(open.remove(&token), "each outcome comes once");
                if let Err(error) = result {
                    assert!(matches!(
                        error,
                        TransactError::Unknown(_) | TransactError::NotConnected
                    ));
                }
            }
        }
        for _ in 0..20 {
            writer.write().await;
        }
        cluster.restart(leader);
    }
    assert!(writer.follower.connections >= 4);
    assert!(
        writer.longest < Duration::from_secs(15),
        "{:?}",
        writer.longest
    );
    writer.check(&cluster.remotes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_freezes_and_comes_back() {
    let mut cluster = Cluster::start(Schema::Northbound);
    let mut writer = start(&cluster).await;
    for _ in 0..10 {
        writer.write().await;
    }
    let leader = cluster.wait_for_leader();
    cluster.freeze(leader);
    for _ in 0..20 {
        writer.write().await;
    }
    assert!(writer.unknown >= 1, "the one that the frozen leader got");
    // It wakes up, believes to lead, and has our old requests in its socket.
    cluster.thaw(leader);
    for _ in 0..20 {
        writer.write().await;
    }
    tokio::time::sleep(Cluster::ELECTION * 2).await;
    for _ in 0..5 {
        writer.write().await;
    }
    assert!(
        writer.longest < Duration::from_secs(15),
        "{:?}",
        writer.longest
    );
    writer.check(&cluster.remotes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_follower_disturbs_nobody() {
    let mut cluster = Cluster::start(Schema::Northbound);
    let mut writer = start(&cluster).await;
    let leader = cluster.wait_for_leader();
    cluster.freeze((leader + 1) % 3);
    for _ in 0..20 {
        writer.write().await;
    }
    assert_eq!(writer.follower.connections, 1);
    assert_eq!(writer.unknown, 0);
    writer.check(&cluster.remotes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_the_leadership_at_once_and_fetches_only_what_changed() {
    let cluster = Cluster::start(Schema::Northbound);
    let mut f = Follower::live(northbound(&cluster.remotes())).await;
    let many = (0..200).map(|i| switch(&format!("sw{i}"))).collect();
    f.commit(1, many).await.unwrap();
    let deltas = f.deltas;

    let leader = cluster.move_leader();
    let lost = f
        .until_event(|e| matches!(e, ReplicaEvent::Disconnected(_)))
        .await;
    let ReplicaEvent::Disconnected(reason) = lost else {
        unreachable!()
    };
    assert!(
        reason.contains("not the leader") || reason.contains("not connected"),
        "{reason}"
    );
    cluster.ctl(["ls-add", "new"]);
    f.until(|f| f.synced && f.names("Logical_Switch").contains(&"new".to_owned()))
        .await;
    let connected = f.connected.as_ref().unwrap();
    assert!(
        connected.resumed,
        "monitor_cond_since found our last transaction"
    );
    assert_eq!(connected.remote.to_string(), cluster.remote(leader));
    assert_eq!(f.deltas, deltas + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_written_and_then_it_goes_on() {
    let mut cluster = Cluster::start(Schema::Northbound);
    let mut writer = start(&cluster).await;
    writer.write().await;
    let leader = cluster.wait_for_leader();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for other in others {
        cluster.kill(other);
    }
    // The leader notices that it is alone, and says so to its clients.
    let result = writer.follower.commit(500, vec![switch("undecided")]).await;
    assert!(result.is_err(), "{result:?}");
    writer.follower.until(|f| f.connected.is_none()).await;
    assert_eq!(
        writer.follower.handle.transact(vec![switch("never")]).await,
        Err(TransactError::NotConnected)
    );
    for other in others {
        cluster.restart(other);
    }
    for _ in 0..5 {
        writer.write().await;
    }
    writer.check(&cluster.remotes()).await;
    assert!(
        writer
            .follower
            .replica
            .row("Logical_Switch", id("never"))
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_member_serves_who_does_not_need_the_leader() {
    let mut cluster = Cluster::start(Schema::Northbound);
    let leader = cluster.wait_for_leader();
    let follower = (leader + 1) % 3;
    let mut config = northbound(&format!(
        "{},{}",
        cluster.remote(follower),
        cluster.remote(leader)
    ));
    config.leader_only = false;
    let mut f = Follower::live(config).await;
    assert_eq!(
        f.connected.as_ref().unwrap().remote.to_string(),
        cluster.remote(follower)
    );
    // A follower forwards what we write.
    f.commit(1, vec![switch("sw")]).await.unwrap();
    cluster.kill(follower);
    f.until_event(|e| matches!(e, ReplicaEvent::Disconnected(_)))
        .await;
    f.until(|f| f.synced).await;
    assert!(f.connected.as_ref().unwrap().resumed);
    assert_eq!(f.names("Logical_Switch"), ["sw"]);
}
