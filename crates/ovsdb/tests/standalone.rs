//! The client against a real standalone ovsdb-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use common::{Follower, id, northbound, port, switch};
use ovsdb::TransactError;
use ovsdb::client::{
    Client, ClientConfig, MonitorMethod, Remote, ReplicaEvent, State, Status, TableSelection,
};
use ovsdb::wire::{Condition, Datum, Mutation, Operation, Row, Until};
use testkit::ovn::{Schema, Server, ServerOptions};

#[tokio::test]
async fn follows_inserts_modifications_and_deletions() {
    let server = Server::start(Schema::Northbound);
    server.ctl(["ls-add", "before"]);
    let mut f = Follower::live(northbound(&server.remote())).await;
    assert_eq!(f.names("Logical_Switch"), ["before"]);
    assert_eq!(
        f.connected.as_ref().unwrap().method,
        MonitorMethod::CondSince
    );

    let mut operations = vec![switch("sw"), Operation::comment("a switch and two ports")];
    operations.extend(port("sw", "a"));
    operations.extend(port("sw", "b"));
    let results = f.commit(1, operations).await.expect("committed");
    assert_eq!(results.len(), 6);
    assert_eq!(results[0].uuid, Some(id("sw")), "the UUID we chose");
    assert_eq!(results[3].count, Some(1));
    // The outcome came after the update with all that it did.
    let row = f.replica.row("Logical_Switch", id("sw")).unwrap();
    let mut ports: Vec<_> = row.uuids("ports").collect();
    ports.sort();
    let mut expected = vec![id("a"), id("b")];
    expected.sort();
    assert_eq!(ports, expected);
    assert_eq!(
        f.replica
            .row("Logical_Switch_Port", id("a"))
            .unwrap()
            .map_str("external_ids", "pod"),
        Some("a")
    );

    // Every kind of column: set, map with a changed value, optional that comes and goes, scalar.
    let a = Condition::row(id("a"));
    let edit = vec![
        Operation::mutate(
            "Logical_Switch_Port",
            a.clone(),
            vec![
                Mutation::delete_keys("external_ids", ["pod"]),
                Mutation::insert("external_ids", Datum::map([("pod", "changed")])),
                Mutation::insert("addresses", Datum::set(["dynamic", "router"])),
            ],
        ),
        Operation::update(
            "Logical_Switch_Port",
            a.clone(),
            Row::new().with("tag", 7_i64).with("enabled", false),
        ),
    ];
    f.commit(2, edit).await.expect("committed");
    let row = f.replica.row("Logical_Switch_Port", id("a")).unwrap();
    assert_eq!(row.map_str("external_ids", "pod"), Some("changed"));
    assert_eq!(row.map_str("external_ids", "vendor"), Some("kube-ovn"));
    assert_eq!(
        row.strs("addresses").collect::<Vec<_>>(),
        ["dynamic", "router"]
    );
    assert_eq!(row.int("tag"), 7);
    assert_eq!(row.get("enabled"), Some(&Datum::from(false)));

    let back = vec![
        Operation::mutate(
            "Logical_Switch_Port",
            a.clone(),
            vec![Mutation::delete("addresses", Datum::set(["dynamic"]))],
        ),
        Operation::update(
            "Logical_Switch_Port",
            a,
            Row::new()
                .with("tag", Datum::empty())
                .with("enabled", Datum::empty()),
        ),
    ];
    f.commit(3, back).await.expect("committed");
    let row = f.replica.row("Logical_Switch_Port", id("a")).unwrap();
    assert_eq!(row.get("addresses"), Some(&Datum::from("router")));
    assert!(!row.contains_key("tag") && !row.contains_key("enabled"));

    // Another client's deletion; the ports go with their switch.
    server.ctl(["ls-del", "sw"]);
    f.until(|f| f.replica.count("Logical_Switch") == 1).await;
    assert_eq!(f.replica.count("Logical_Switch_Port"), 0);

    let fresh = Follower::live(northbound(&server.remote())).await;
    assert_eq!(f.replica, fresh.replica);
}

#[tokio::test]
async fn an_awaited_result_finds_its_effects_in_the_queue() {
    let server = Server::start(Schema::Northbound);
    let mut f = Follower::live(northbound(&server.remote())).await;
    for i in 0..100 {
        let name = format!("sw{i}");
        f.handle.transact(vec![switch(&name)]).await.unwrap();
        f.drain();
        assert!(f.replica.row("Logical_Switch", id(&name)).is_some());
    }
}

#[tokio::test]
async fn pipelined_transactions_keep_their_order() {
    let server = Server::start(Schema::Northbound);
    let mut f = Follower::live(northbound(&server.remote())).await;
    for i in 0..40 {
        let operation = if i == 0 {
            switch("sw")
        } else {
            Operation::mutate(
                "Logical_Switch",
                Condition::row(id("sw")),
                vec![Mutation::insert(
                    "external_ids",
                    Datum::map([(format!("{i:02}"), "x")]),
                )],
            )
        };
        f.handle.submit(i, vec![operation]).await.unwrap();
    }
    let mut next = 0;
    while next < 40 {
        if let ReplicaEvent::Outcome { token, result } = f.next().await {
            assert_eq!(token, next);
            result.expect("committed");
            let row = f.replica.row("Logical_Switch", id("sw")).unwrap();
            assert!(row.pairs("external_ids").len() >= usize::try_from(next).unwrap());
            next += 1;
        }
    }
}

#[tokio::test]
async fn says_which_operation_the_server_refused() {
    let server = Server::start(Schema::Northbound);
    let f = Follower::live(northbound(&server.remote())).await;
    f.handle.transact(vec![switch("sw")]).await.unwrap();

    let again = f
        .handle
        .transact(vec![Operation::comment("once more"), switch("sw")])
        .await;
    let Err(TransactError::Refused { index, error }) = again else {
        panic!("{again:?}");
    };
    assert_eq!((index, error.error.as_str()), (Some(1), "duplicate uuid"));

    // A strong reference to nothing is found at the commit, after the last operation.
    let dangling = Operation::mutate(
        "Logical_Switch",
        Condition::row(id("sw")),
        vec![Mutation::insert("ports", id("nothing"))],
    );
    let dangling = f.handle.transact(vec![dangling]).await;
    let Err(TransactError::Refused { index, error }) = dangling else {
        panic!("{dangling:?}");
    };
    assert_eq!(
        (index, error.error.as_str()),
        (None, "referential integrity violation")
    );

    let unknown = f.handle.transact(vec![Operation::delete(
        "No_Such_Table",
        Condition::Always(true),
    )]);
    assert!(matches!(
        unknown.await,
        Err(TransactError::Refused { index: Some(0), .. })
    ));

    let select = Operation::Select {
        table: "Logical_Switch".into(),
        conditions: vec![Condition::eq("name", "sw")],
        columns: Some(vec!["_uuid".into(), "name".into()]),
    };
    let results = f.handle.transact(vec![select]).await.unwrap();
    let rows = results[0].rows.as_ref().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].uuid("_uuid"), Some(id("sw")));
}

/// Were they sent, the server would hang up, and again at each retry.
#[tokio::test]
async fn what_a_server_cannot_read_is_refused_here() {
    let server = Server::start(Schema::Northbound);
    let mut f = Follower::live(northbound(&server.remote())).await;
    let nul = switch("a\0b");
    let in_a_map = Operation::mutate(
        "Logical_Switch",
        Condition::Always(true),
        vec![Mutation::insert(
            "external_ids",
            Datum::map([("k\\\0", "v")]),
        )],
    );
    let not_finite = Operation::update(
        "Logical_Switch",
        Condition::Always(true),
        Row::new().with("name", f64::NAN),
    );
    for (operation, why) in [
        (nul, "NUL"),
        (in_a_map, "NUL"),
        (Operation::comment("\0"), "NUL"),
        (not_finite, "not finite"),
    ] {
        let result = f.handle.transact(vec![operation]).await;
        assert!(
            matches!(&result, Err(TransactError::Encoding(reason)) if reason.contains(why)),
            "{result:?}"
        );
    }
    // What only looks like one passes, and so does every other control character.
    let name = "\\u0000 \u{1}\u{7f}\\\\u0000\"";
    f.commit(1, vec![switch(name)]).await.expect("committed");
    assert_eq!(f.names("Logical_Switch"), [name]);
    assert_eq!(f.connections, 1);
}

/// The guard that the controller puts before each of its transactions.
#[tokio::test]
async fn a_wait_with_timeout_0_is_a_guard() {
    let server = Server::start(Schema::Northbound);
    server.ctl(["init"]);
    let f = Follower::live(northbound(&server.remote())).await;
    let guard = |epoch: &str| {
        Operation::require(
            "NB_Global",
            vec![Condition::new(
                "external_ids",
                ovsdb::wire::Function::Excludes,
                Datum::map([("leader-epoch", epoch)]),
            )],
            vec!["_uuid".into()],
            Until::Equal,
            vec![],
        )
    };
    let set = Operation::mutate(
        "NB_Global",
        Condition::Always(true),
        vec![Mutation::insert(
            "external_ids",
            Datum::map([("leader-epoch", "7")]),
        )],
    );
    f.handle.transact(vec![set]).await.unwrap();
    f.handle
        .transact(vec![guard("7"), switch("by the leader")])
        .await
        .unwrap();
    let late = f
        .handle
        .transact(vec![guard("6"), switch("too late")])
        .await;
    assert!(late.as_ref().unwrap_err().is_timed_out(), "{late:?}");
    assert_eq!(
        server
            .ctl(["--bare", "--columns=name", "list", "Logical_Switch"])
            .trim(),
        "by the leader"
    );
}

#[tokio::test]
async fn asks_only_for_what_the_server_has() {
    let server = Server::start(Schema::Northbound);
    let config = northbound(&server.remote())
        .monitor("From_The_Future", TableSelection::all())
        .monitor(
            "Logical_Router",
            TableSelection::columns(["name", "teleport", "ports"]),
        );
    let f = Follower::live(config).await;
    let connected = f.connected.unwrap();
    assert_eq!(connected.missing.tables, ["From_The_Future"]);
    assert_eq!(
        connected.missing.columns,
        [("Logical_Router".into(), "teleport".into())]
    );
    assert!(connected.schema.tables.contains_key("Logical_Router"));
}

#[tokio::test]
async fn conditions_select_rows() {
    let server = Server::start(Schema::Northbound);
    server.ctl(["ls-add", "mine", "--", "ls-add", "other"]);
    let mut config = northbound(&server.remote());
    config.tables.insert(
        "Logical_Switch".into(),
        TableSelection::columns(["name"]).matching(Condition::eq("name", "mine")),
    );
    let mut f = Follower::live(config).await;
    assert_eq!(f.names("Logical_Switch"), ["mine"]);
    // A row that begins to match appears, one that ceases to disappears.
    server.ctl(["set", "logical_switch", "mine", "name=was-mine"]);
    f.until(|f| f.replica.count("Logical_Switch") == 0).await;
    server.ctl(["set", "logical_switch", "other", "name=mine"]);
    f.until(|f| f.names("Logical_Switch") == ["mine"]).await;
}

#[tokio::test]
async fn after_a_restart_of_the_server_only_the_difference_is_told() {
    let mut server = Server::start(Schema::Northbound);
    let mut f = Follower::live(northbound(&server.remote())).await;
    let many = (0..50).map(|i| switch(&format!("sw{i}"))).collect();
    f.commit(1, many).await.unwrap();
    let deltas = f.deltas;

    server.kill();
    f.until_event(|e| matches!(e, ReplicaEvent::Disconnected(_)))
        .await;
    assert_eq!(
        f.handle.transact(vec![switch("x")]).await,
        Err(TransactError::NotConnected)
    );
    assert!(!f.handle.status().is_live());
    assert_eq!(
        f.replica.count("Logical_Switch"),
        50,
        "the last known state stays"
    );

    server.restart();
    server.ctl(["ls-del", "sw7", "--", "ls-add", "new"]);
    f.until(|f| f.synced && f.names("Logical_Switch").contains(&"new".to_owned()))
        .await;
    assert_eq!(f.deltas, deltas + 2);
    assert_eq!(f.connections, 2);
    assert_eq!(f.handle.status().connections, 2);
}

#[tokio::test]
async fn a_frozen_server_is_noticed_and_its_transaction_is_unknown() {
    let server = Server::start(Schema::Northbound);
    let mut config = northbound(&server.remote());
    config.inactivity = Duration::from_millis(500);
    let mut f = Follower::live(config).await;
    // Idle for long: probes keep it alive.
    tokio::time::sleep(Duration::from_millis(1700)).await;
    assert!(f.handle.status().is_live());

    server.freeze();
    let start = Instant::now();
    let result = f.commit(1, vec![switch("sw")]).await;
    assert!(result.as_ref().unwrap_err().is_unknown(), "{result:?}");
    assert!(start.elapsed() < Duration::from_secs(3));
    f.until_event(|e| matches!(e, ReplicaEvent::Disconnected(_)))
        .await;
    server.thaw();
    // It was in the server's socket, and was committed after all: the replica says so.
    f.until(|f| f.synced && f.replica.row("Logical_Switch", id("sw")).is_some())
        .await;
}

#[tokio::test]
async fn goes_on_to_a_remote_that_answers() {
    let frozen = Server::start(Schema::Northbound);
    frozen.freeze();
    let server = Server::start_with(
        Schema::Northbound,
        ServerOptions {
            tcp: true,
            ..ServerOptions::default()
        },
    );
    let remotes = format!(
        "unix:/nonexistent/socket,tcp:127.0.0.1:1,{},{}",
        frozen.remote(),
        server.tcp_remote()
    );
    let start = Instant::now();
    let f = Follower::live(northbound(&remotes)).await;
    assert_eq!(
        f.connected.unwrap().remote,
        server.tcp_remote().parse::<Remote>().unwrap()
    );
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn waits_for_a_server_that_is_not_there_yet_and_says_so() {
    let mut server = Server::start(Schema::Northbound);
    server.kill();
    std::fs::remove_file(server.socket()).unwrap();
    let mut f = Follower::start(northbound(&server.remote()));
    let status = f.problem().await;
    assert!(status.state < State::Live);
    assert!(
        status
            .problem
            .as_deref()
            .unwrap()
            .contains(&server.remote()),
        "{status}"
    );
    server.restart();
    f.until(|f| f.synced).await;
    assert_eq!(f.handle.status().problem, None);
}

#[tokio::test]
async fn a_wrong_database_is_a_problem_not_an_end() {
    let server = Server::start(Schema::Southbound);
    let f = Follower::start(northbound(&server.remote()));
    let problem = f.problem().await.problem.unwrap();
    assert!(problem.contains("no database OVN_Northbound"), "{problem}");
}

#[tokio::test]
async fn a_consumer_that_sleeps_loses_nothing_and_stalls_nothing() {
    let server = Server::start(Schema::Northbound);
    let mut slow = Follower::live(northbound(&server.remote())).await;
    let writer = Follower::live(northbound(&server.remote())).await;
    writer.handle.transact(vec![switch("sw")]).await.unwrap();
    for i in 0..600 {
        writer
            .handle
            .transact(port("sw", &format!("p{i}")).into())
            .await
            .unwrap();
        if i % 2 == 1 {
            let gone = id(&format!("p{}", i - 1));
            let delete = Operation::mutate(
                "Logical_Switch",
                Condition::row(id("sw")),
                vec![Mutation::delete("ports", gone)],
            );
            writer.handle.transact(vec![delete]).await.unwrap();
        }
    }
    // The sleeper's own transactions go through meanwhile.
    slow.handle.transact(vec![switch("end")]).await.unwrap();
    let mut events = 0;
    while let Some(event) = slow.events.try_recv() {
        slow.take(&event);
        events += 1;
    }
    assert!(events <= 70, "{events} events were kept");
    assert_eq!(slow.connections, 1);
    let fresh = Follower::live(northbound(&server.remote())).await;
    assert_eq!(slow.replica, fresh.replica);
    assert_eq!(slow.replica.count("Logical_Switch_Port"), 300);
}

#[tokio::test]
async fn fetches_a_large_database() {
    let server = Server::start(Schema::Northbound);
    let config = ClientConfig::new(
        Remote::parse_list(&server.remote()).unwrap(),
        "OVN_Northbound",
    );
    let (handle, _events) = Client::connect(config).unwrap();
    handle.watch().wait_for(Status::is_live).await.unwrap();
    handle.transact(vec![switch("sw")]).await.unwrap();
    for chunk in 0..20 {
        let operations = (0..1000)
            .flat_map(|i| port("sw", &format!("port-{chunk}-{i}")))
            .collect();
        handle.transact(operations).await.unwrap();
    }
    let f = Follower::live(northbound(&server.remote())).await;
    assert_eq!(f.updates, 1, "one snapshot");
    assert_eq!(f.replica.count("Logical_Switch_Port"), 20_000);
    let row = f.replica.row("Logical_Switch", id("sw")).unwrap();
    assert_eq!(row.atoms("ports").len(), 20_000);
    handle.close().await;
    assert_eq!(handle.transact(vec![]).await, Err(TransactError::Closed));
}

#[tokio::test]
async fn a_removed_and_added_database_is_noticed() {
    let server = Server::start(Schema::Northbound);
    server.ctl(["ls-add", "sw"]);
    let mut f = Follower::live(northbound(&server.remote())).await;
    let file = server.dir().join("db").display().to_string();
    server
        .appctl(&["ovsdb-server/remove-db", "OVN_Northbound"])
        .unwrap();
    f.until_event(|e| matches!(e, ReplicaEvent::Disconnected(_)))
        .await;
    server.appctl(&["ovsdb-server/add-db", &file]).unwrap();
    f.until(|f| f.synced).await;
    assert_eq!(f.names("Logical_Switch"), ["sw"]);
}

#[tokio::test]
async fn ends_with_its_last_user() {
    let server = Server::start(Schema::Northbound);
    let f = Follower::live(northbound(&server.remote())).await;
    let mut watch = f.handle.watch();
    let Follower { handle, events, .. } = f;
    // Transactions work without a reader of events, too.
    drop(events);
    handle.transact(vec![switch("sw")]).await.unwrap();
    assert!(watch.borrow().is_live());
    drop(handle);
    watch.wait_for(|s| s.state == State::Closed).await.unwrap();
}
