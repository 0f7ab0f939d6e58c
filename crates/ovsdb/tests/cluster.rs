//! The client against a real RAFT cluster of three.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{Follower, id, northbound, port, switch};
use ovsdb::TransactError;
use ovsdb::client::ReplicaEvent;
use ovsdb::wire::{Condition, Datum, Mutation, Mutator, Operation, Row};
use testkit::ovn::{Cluster, Schema};

/// Makes one port per step, the way the controller does it: rows have UUIDs of our choice, and after an unknown outcome
/// the replica says whether to try again. The switch counts the steps, so that a transaction that was committed twice
/// would show.
struct Writer {
    follower: Follower,
    step: u64,
    unknown: usize,
    unsent: usize,
    longest: Duration,
}

const TRIES: usize = 1000;

impl Writer {
    async fn start(cluster: &Cluster) -> Self {
        let mut config = northbound(&cluster.remotes());
        config.inactivity = Duration::from_millis(500);
        let mut follower = Follower::live(config).await;
        let count = Row::new()
            .with("name", "sw")
            .with("external_ids", Datum::map([("made", "by the test")]));
        let insert = Operation::insert("Logical_Switch", id("sw"), count);
        let global = Operation::insert("NB_Global", id("global"), Row::new().with("nb_cfg", 0_i64));
        follower.commit(0, vec![insert, global]).await.unwrap();
        Self {
            follower,
            step: 0,
            unknown: 0,
            unsent: 0,
            longest: Duration::ZERO,
        }
    }

    fn name(step: u64) -> String {
        format!("port-{step}")
    }

    fn operations(step: u64) -> Vec<Operation> {
        let mut operations: Vec<_> = port("sw", &Self::name(step)).into();
        operations.push(Operation::mutate(
            "NB_Global",
            Condition::Always(true),
            vec![Mutation::new("nb_cfg", Mutator::Add, 1_i64)],
        ));
        operations
    }

    async fn write(&mut self) {
        self.step += 1;
        let row = id(&Self::name(self.step));
        let start = Instant::now();
        for _ in 0..TRIES {
            match self
                .follower
                .commit(self.step, Self::operations(self.step))
                .await
            {
                Ok(_) => {
                    assert!(
                        self.follower
                            .replica
                            .row("Logical_Switch_Port", row)
                            .is_some(),
                        "committed, and not in the replica"
                    );
                    break;
                }
                Err(TransactError::NotConnected) => {
                    self.unsent += 1;
                    self.follower.until(|f| f.synced).await;
                }
                Err(TransactError::Unknown(_)) => {
                    self.unknown += 1;
                    self.follower.drain();
                    self.follower.until(|f| f.synced).await;
                    if self
                        .follower
                        .replica
                        .row("Logical_Switch_Port", row)
                        .is_some()
                    {
                        break;
                    }
                }
                Err(TransactError::Refused { error, .. })
                    if error.error == "duplicate uuid" || error.error == "constraint violation" =>
                {
                    // An unknown one that was committed late, after we looked. The replica has it by now.
                    assert!(
                        self.follower
                            .replica
                            .row("Logical_Switch_Port", row)
                            .is_some()
                    );
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        self.longest = self.longest.max(start.elapsed());
    }

    /// Everything is there, once.
    async fn check(&mut self, cluster: &Cluster) {
        let expected: BTreeSet<_> = (1..=self.step).map(Self::name).collect();
        let names = self.follower.names("Logical_Switch_Port");
        assert_eq!(names.len() as u64, self.step);
        assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), expected);
        let switch = self
            .follower
            .replica
            .row("Logical_Switch", id("sw"))
            .unwrap();
        assert_eq!(switch.atoms("ports").len() as u64, self.step);

        let fresh = Follower::live(northbound(&cluster.remotes())).await;
        assert_eq!(self.follower.replica, fresh.replica);
        let count = cluster.ctl(["get", "nb_global", ".", "nb_cfg"]);
        assert_eq!(
            count.trim().parse::<u64>().unwrap(),
            self.step,
            "doubled or lost"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_while_we_write() {
    let mut cluster = Cluster::start(Schema::Northbound);
    let mut writer = Writer::start(&cluster).await;
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
    writer.check(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_freezes_and_comes_back() {
    let mut cluster = Cluster::start(Schema::Northbound);
    let mut writer = Writer::start(&cluster).await;
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
    writer.check(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_follower_disturbs_nobody() {
    let mut cluster = Cluster::start(Schema::Northbound);
    let mut writer = Writer::start(&cluster).await;
    let leader = cluster.wait_for_leader();
    cluster.freeze((leader + 1) % 3);
    for _ in 0..20 {
        writer.write().await;
    }
    assert_eq!(writer.follower.connections, 1);
    assert_eq!(writer.unknown, 0);
    writer.check(&cluster).await;
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
    let mut writer = Writer::start(&cluster).await;
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
    writer.check(&cluster).await;
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
