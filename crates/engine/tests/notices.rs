//! What is said to users, and when: nothing at a healthy start, and what is wrong once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

mod common;

use common::Lab;
use engine::{Kind, ObjectKey};
use jiff::SignedDuration;
use serde_json::json;

fn told(lab: &Lab) -> Vec<(&str, &str)> {
    lab.notices
        .iter()
        .map(|notice| (notice.object.name.as_str(), notice.reason.as_str()))
        .collect()
}

/// Nodes and pods are there before the controller is, as in every new cluster.
fn first_start() -> Lab {
    let mut lab = Lab::new();
    lab.populate();
    lab.pod("default", "busybox", "n1");
    lab.pod("test-ns", "nginx", "n2");
    lab
}

#[test]
fn a_healthy_first_start_is_silent() {
    let mut lab = first_start();
    lab.restart();
    lab.run();
    assert_eq!(told(&lab), []);
    assert_eq!(lab.addresses().len(), 2);
    assert_eq!(lab.ports().len(), 4);
}

#[test]
fn subnets_that_cannot_be_made_are_missed_aloud() {
    let mut lab = first_start();
    for subnet in ["join", "ovn-default"] {
        let key = ObjectKey::cluster(Kind::Subnet, subnet);
        lab.kube.refused.insert(key);
    }
    lab.restart();
    lab.run_for(SignedDuration::from_secs(30));
    let said = told(&lab);
    for object in ["busybox", "n1", "n2"] {
        assert_eq!(
            said.iter()
                .filter(|line| **line == (object, "NoSubnet"))
                .count(),
            1,
            "{object}: {said:?}"
        );
    }
    assert!(
        !said.iter().any(|(object, _)| *object == "nginx"),
        "{said:?}"
    );

    // Whoever was in the way is gone.
    lab.kube.refused.clear();
    lab.run();
    assert_eq!(lab.addresses().len(), 2);
    assert!(lab.engine.report().problems.is_empty());
}

#[test]
fn a_subnet_that_lost_its_namespace_lets_nobody_in() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.pod("test-ns", "a", "n1");
    let wish = json!({ "ovn.kubernetes.io/logical_switch": "test-subnet" });
    lab.pod_with("default", "intruder", "n1", &wish);
    lab.run();
    assert_eq!(told(&lab), [("intruder", "SubnetNotAllowed")]);
    // Whatever goes first.
    lab.kube
        .delete(&ObjectKey::cluster(Kind::Namespace, "test-ns"));
    lab.run();
    lab.kube.delete(&ObjectKey::pod("test-ns", "a"));
    lab.run();
    let subnet = ObjectKey::cluster(Kind::Subnet, "test-subnet");
    assert!(lab.kube.get(&subnet).is_none(), "{:#?}", lab.trace);
    assert!(lab.addresses().is_empty(), "{:?}", lab.addresses());
    assert_eq!(lab.ips(), ["node-n1", "node-n2"]);
}

#[test]
fn a_write_that_is_refused_is_tried_less_and_less() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.kube.refused.insert(ObjectKey::pod("default", "a"));
    lab.pod("default", "a", "n1");
    lab.run_for(SignedDuration::from_mins(10));
    let tries = lab.kube.refusals;
    assert!((10..=25).contains(&tries), "{tries} tries in ten minutes");
    assert_eq!(told(&lab), [("a", "WriteRefused")]);
    assert_eq!(lab.engine.report().writes_waiting, 1);

    // What is gone is not remembered.
    lab.kube.delete(&ObjectKey::pod("default", "a"));
    lab.run();
    let report = lab.engine.report();
    assert_eq!((report.writes_waiting, report.problems), (0, vec![]));
}

#[test]
fn a_status_that_is_refused_is_tried_less_and_less() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    let subnet = ObjectKey::cluster(Kind::Subnet, "ovn-default");
    lab.kube.refused.insert(subnet.clone());
    lab.pod("default", "a", "n1");
    lab.run_for(SignedDuration::from_mins(10));
    let tries = lab.kube.refusals;
    assert!((10..=25).contains(&tries), "{tries} tries in ten minutes");
    lab.kube.refused.clear();
    lab.run();
    assert_eq!(lab.kube.get(&subnet).unwrap()["status"]["v4usingIPs"], 1);
    assert_eq!(lab.engine.report().writes_waiting, 0);
}

#[test]
fn a_failure_that_settles_itself_is_forgotten() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    let pod = ObjectKey::pod("default", "a");
    lab.kube.refused.insert(pod.clone());
    lab.pod("default", "a", "n1");
    lab.run_for(SignedDuration::from_secs(20));
    // Somebody else writes it.
    let node = ObjectKey::cluster(Kind::Node, "n1");
    lab.kube.refused.clear();
    lab.kube.refused.insert(node.clone());
    lab.run();
    assert_eq!(lab.engine.report().writes_waiting, 0);
    // A node loses an annotation, the write of it is refused, and its author takes it back himself.
    let before = lab.kube.get(&node).unwrap().clone();
    lab.kube.edit(&node, |node| {
        node["metadata"]["annotations"]["ovn.kubernetes.io/ip_address"] = "1.2.3.4".into();
    });
    lab.run_for(SignedDuration::from_secs(5));
    assert_eq!(lab.engine.report().writes_waiting, 1);
    lab.kube.edit(&node, |node| *node = before);
    lab.run_for(SignedDuration::from_mins(2));
    assert_eq!(lab.engine.report().writes_waiting, 0);
}

#[test]
fn rows_that_the_database_refuses_harm_nobody_else() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.nb.refuses = Some("bad.default");
    for pod in ["bad", "good"] {
        lab.pod("default", pod, "n1");
    }
    lab.news_at_once();
    lab.run_for(SignedDuration::from_mins(5));
    assert_eq!(
        lab.addresses().into_keys().collect::<Vec<_>>(),
        ["default/good"]
    );
    assert_eq!(told(&lab), [("bad", "NorthboundRefused")]);
    assert_eq!(lab.engine.report().parked.len(), 1);
    let refused = lab
        .trace
        .iter()
        .filter(|line| line.contains("Refused"))
        .count();
    assert!(
        (5..=20).contains(&refused),
        "{refused} tries in five minutes"
    );
    lab.nb.refuses = None;
    lab.run();
    assert_eq!(lab.addresses().len(), 2);
    assert!(lab.engine.report().problems.is_empty());
}

#[test]
fn a_refusal_that_may_settle_itself_is_a_refusal_after_a_while() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.nb.refuses = Some("bad.default");
    lab.nb.refusal = "duplicate uuid: this UUID would duplicate a UUID already present";
    for pod in ["bad", "good"] {
        lab.pod("default", pod, "n1");
    }
    lab.news_at_once();
    // It settles itself.
    lab.run_for(SignedDuration::from_secs(1));
    assert!((2..=4).contains(&lab.nb.refusals), "{}", lab.nb.refusals);
    assert!(lab.engine.report().parked.is_empty());
    lab.nb.refuses = None;
    lab.run_for(SignedDuration::from_secs(2));
    assert_eq!(lab.addresses().len(), 2);

    // It does not.
    lab.nb.refuses = Some("worse.default");
    lab.nb.refusals = 0;
    for pod in ["worse", "better"] {
        lab.pod("default", pod, "n1");
    }
    lab.news_at_once();
    lab.run_for(SignedDuration::from_secs(5));
    assert_eq!(lab.addresses().len(), 3, "one holds up the other");
    assert_eq!(told(&lab), [("worse", "NorthboundRefused")]);
    assert_eq!(lab.engine.report().parked.len(), 1);
    lab.run_for(SignedDuration::from_mins(5));
    assert!((5..=20).contains(&lab.nb.refusals), "{}", lab.nb.refusals);
    // Later ones do not wait for it either.
    lab.pod("default", "best", "n1");
    let before = lab.now;
    while lab.addresses().len() < 4 {
        assert!(lab.turn(), "it waits for the one that is parked");
    }
    assert!(lab.now < before + SignedDuration::from_secs(1));
    lab.nb.refuses = None;
    lab.run();
    assert_eq!(lab.addresses().len(), 5);
}

#[test]
fn a_database_that_does_not_take_anything_is_asked_less_and_less() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.slow_nb = Some(Vec::new());
    lab.pod("default", "a", "n1");
    let mut tries = 0;
    for _ in 0..600 {
        lab.run_for(SignedDuration::from_millis(100));
        let asked = lab.slow_nb.replace(Vec::new());
        for effect in asked.into_iter().flatten() {
            if let engine::Effect::Nb { id, .. } = effect {
                tries += 1;
                let outcome = engine::CommitOutcome::Retry("not leader".into());
                lab.event(engine::Event::Committed { id, outcome });
            }
        }
    }
    // A minute: 0.2, 0.4, 0.8, 1.6, 3.2 and then 5 seconds apart.
    assert!((14..=17).contains(&tries), "{tries} tries in a minute");
    lab.slow_nb = None;
    lab.run();
    assert_eq!(lab.addresses().len(), 1);
}

#[test]
fn the_api_server_gets_so_many_writes_at_once_and_no_more() {
    let mut lab = Lab::with(engine::Config {
        kube_writes: 3,
        ..common::config()
    });
    lab.populate();
    lab.run();
    for pod in 0..20 {
        lab.pod("default", &format!("p{pod}"), "n1");
    }
    lab.news_at_once();
    let mut most = 0;
    while lab.turn() {
        let writes = lab
            .effects()
            .filter(|e| matches!(e, engine::Effect::Kube { .. }));
        most = most.max(writes.count());
    }
    assert_eq!(most, 3);
    lab.run();
    assert_eq!(lab.addresses().len(), 20);
}

#[test]
fn a_condition_about_a_field_is_taken_back_when_the_field_goes() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    let key = ObjectKey::cluster(Kind::Subnet, "ovn-default");
    let said = |lab: &Lab| {
        let subnet = lab.kube.get(&key).unwrap();
        subnet["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|c| c["type"] == "Unsupported")
            .map(|c| format!("{} {}", c["status"], c["reason"]))
            .collect::<Vec<_>>()
    };
    assert_eq!(said(&lab), [""; 0], "nothing to say of a plain Subnet");
    for (private, expected) in [
        (true, r#""True" "FieldsNotSupported""#),
        (false, r#""False" "AllFieldsSupported""#),
    ] {
        lab.kube
            .edit(&key, |subnet| subnet["spec"]["private"] = json!(private));
        lab.run_for(SignedDuration::from_secs(5));
        assert_eq!(said(&lab), [expected]);
    }
}
