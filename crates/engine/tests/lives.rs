//! Nodes and pods that change their nature: another address, another life under the same name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

mod common;

use common::Lab;
use engine::{Kind, ObjectKey};
use serde_json::json;

/// Matches of the policies that lead to nodes, with their next hops.
fn ways(lab: &Lab) -> Vec<(String, String)> {
    let mut ways: Vec<_> = lab
        .nb
        .rows("Logical_Router_Policy")
        .filter(|(_, row)| row.int("priority") == 30000)
        .map(|(_, row)| {
            let hop = row.strs("nexthops").next().unwrap_or_default();
            (row.str("match").to_owned(), hop.to_owned())
        })
        .collect();
    ways.sort();
    ways
}

fn way(address: &str, hop: &str) -> (String, String) {
    (format!("ip4.dst == {address}"), hop.to_owned())
}

#[test]
fn a_node_that_gets_another_address_keeps_its_place() {
    let mut lab = Lab::new();
    lab.populate();
    lab.pod("default", "a", "n1");
    lab.run();
    let before = (lab.addresses(), lab.ips(), lab.ports());
    assert_eq!(
        ways(&lab),
        [
            way("192.168.1.41", "100.64.0.2"),
            way("192.168.1.42", "100.64.0.3")
        ]
    );
    let groups = lab.nb.rows("Port_Group").count();
    lab.node_address("n1", "192.168.1.99");
    let commits = lab.nb.commits;
    lab.run();
    assert_eq!(
        ways(&lab),
        [
            way("192.168.1.42", "100.64.0.3"),
            way("192.168.1.99", "100.64.0.2")
        ]
    );
    assert_eq!((lab.addresses(), lab.ips(), lab.ports()), before);
    assert_eq!(lab.nb.rows("Port_Group").count(), groups);
    assert_eq!(
        lab.nb.commits,
        commits + 1,
        "there is a moment without a way"
    );

    // Two nodes swap addresses, which the watch shows one after the other.
    lab.node_address("n1", "192.168.1.42");
    lab.run();
    lab.node_address("n2", "192.168.1.99");
    lab.run();
    assert_eq!(
        ways(&lab),
        [
            way("192.168.1.42", "100.64.0.2"),
            way("192.168.1.99", "100.64.0.3")
        ]
    );

    // Nobody gets the address that a node has now.
    lab.node_address("n2", "10.16.0.3");
    lab.run();
    lab.pod("default", "b", "n1");
    lab.run();
    assert_eq!(lab.addresses()["default/b"], "10.16.0.4");
}

#[test]
fn a_node_that_is_made_again_has_one_join_address() {
    let node = ObjectKey::cluster(Kind::Node, "n1");
    for at_once in [false, true] {
        let mut lab = Lab::new();
        lab.populate();
        lab.run();
        let before = (lab.ips(), lab.ports());
        lab.kube.delete(&node);
        if !at_once {
            lab.run();
            assert_eq!(lab.ips(), ["node-n2"]);
        }
        lab.node("n1", "192.168.1.41");
        lab.news_at_once();
        lab.run();
        assert_eq!((lab.ips(), lab.ports()), before, "at once: {at_once}");
        let told = lab.kube.annotation(&node, "ovn.kubernetes.io/ip_address");
        let ip = ObjectKey::cluster(Kind::Ip, "node-n1");
        let held = &lab.kube.get(&ip).unwrap()["spec"]["ipAddress"];
        assert_eq!(told, held.as_str(), "at once: {at_once}");
        assert!(told.is_some());
        // Kubernetes' garbage collector goes by the uid of the owner.
        let uid = &lab.kube.get(&node).unwrap()["metadata"]["uid"];
        let owner = &lab.kube.get(&ip).unwrap()["metadata"]["ownerReferences"][0];
        assert_eq!(owner["uid"], *uid, "at once: {at_once}");
    }
}

#[test]
fn a_pod_that_is_made_again_under_its_name_is_told_anew() {
    let pod = ObjectKey::pod("default", "a");
    let mut lab = Lab::new();
    lab.populate();
    lab.pod("default", "a", "n1");
    lab.run();
    lab.kube.delete(&pod);
    lab.pod("default", "a", "n2");
    lab.news_at_once();
    lab.run();
    let ip = ObjectKey::cluster(Kind::Ip, "a.default");
    let ip = &lab.kube.get(&ip).unwrap()["spec"];
    assert_eq!(
        lab.kube.annotation(&pod, "ovn.kubernetes.io/ip_address"),
        ip["ipAddress"].as_str()
    );
    assert_eq!(ip["nodeName"], "n2");
    assert_eq!(
        lab.kube.annotation(&pod, "ovn.kubernetes.io/routed"),
        Some("true")
    );
    let port = lab
        .nb
        .rows("Logical_Switch_Port")
        .find(|(_, row)| row.str("name") == "a.default");
    let uuid = port.unwrap().0;
    let mut groups: Vec<&str> = lab
        .nb
        .rows("Port_Group")
        .filter(|(_, row)| row.uuids("ports").any(|member| member == uuid))
        .map(|(_, row)| row.str("name"))
        .collect();
    groups.sort_unstable();
    assert_eq!(groups, ["node.n2", "ovn.default.n2"]);

    // In another Subnet it cannot keep what it had.
    lab.kube.delete(&pod);
    let wish = json!({ "ovn.kubernetes.io/ip_address": "10.16.0.200" });
    lab.pod_with("default", "a", "n1", &wish);
    lab.news_at_once();
    lab.run();
    assert_eq!(lab.addresses()["default/a"], "10.16.0.200");
    assert_eq!(lab.ports(), ["a.default", "node-n1", "node-n2"]);
}

#[test]
fn names_that_are_too_long_for_labels_do_no_harm() {
    let mut lab = Lab::new();
    lab.populate();
    let node = format!("n.{}", "x".repeat(80));
    lab.node(&node, "192.168.1.77");
    lab.run();
    let ip = ObjectKey::cluster(Kind::Ip, format!("node-{node}"));
    let labels = lab.kube.get(&ip).unwrap()["metadata"]["labels"]
        .as_object()
        .unwrap();
    let long = |text: &str| text.rsplit('/').next().unwrap().len() > 63;
    for (key, value) in labels {
        assert!(
            !long(key) && !long(value.as_str().unwrap()),
            "{key}: {value}"
        );
    }
    assert_eq!(labels["ovn.kubernetes.io/subnet"], "join");
}

#[test]
fn an_address_is_not_free_while_its_port_is_there() {
    use engine::{Event, ReplicaEvent};
    let mut lab = Lab::new();
    lab.populate();
    lab.pod("default", "a", "n1");
    lab.run();
    // The database is away. A pod goes, and somebody takes its record away by force.
    lab.event(Event::Nb(ReplicaEvent::Disconnected("away".into())));
    lab.run();
    let record = ObjectKey::cluster(Kind::Ip, "a.default");
    lab.kube
        .edit(&record, |ip| ip["metadata"]["finalizers"] = json!([]));
    lab.kube.delete(&record);
    lab.kube.delete(&ObjectKey::pod("default", "a"));
    let wish = json!({ "ovn.kubernetes.io/ip_address": "10.16.0.2" });
    lab.pod_with("default", "b", "n2", &wish);
    lab.news_at_once();
    lab.run();
    assert_eq!(
        lab.ips(),
        ["node-n1", "node-n2"],
        "given out while a port has it"
    );
    lab.event(Event::Nb(ReplicaEvent::Connected(None)));
    lab.event(Event::Nb(ReplicaEvent::Synced));
    lab.run();
    assert_eq!(lab.ports(), ["b.default", "node-n1", "node-n2"]);
    assert_eq!(lab.addresses()["default/b"], "10.16.0.2");
}

#[test]
fn a_port_does_not_wait_for_what_is_there_already() {
    use engine::{CommitOutcome, Effect, Event, PortState};
    let mut lab = Lab::new();
    lab.populate();
    lab.pod("default", "a", "n1");
    lab.run();
    // A change of its node that the database cannot take in now: the port waits for it.
    lab.node_address("n1", "192.168.1.99");
    lab.news_at_once();
    for effect in lab.intercept() {
        if let Effect::Nb { id, .. } = effect {
            let outcome = CommitOutcome::Retry("busy".into());
            lab.at_once(vec![Event::Committed { id, outcome }]);
        }
    }
    lab.kube.edit(&ObjectKey::pod("default", "a"), |pod| {
        pod["status"]["phase"] = "Running".into();
    });
    lab.news_at_once();
    assert_eq!(
        lab.engine.port_state("a.default"),
        Some(PortState::Programming)
    );
    // And then it is taken back: nothing is left to write, and nothing to wait for.
    lab.node_address("n1", "192.168.1.41");
    lab.run();
    assert_eq!(lab.engine.port_state("a.default"), Some(PortState::Ready));
}

#[test]
fn what_a_user_wrote_meanwhile_is_not_overwritten() {
    use engine::{Effect, KubeWrite};
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    let key = ObjectKey::cluster(Kind::Subnet, "extra");
    lab.kube.put(
        key.clone(),
        json!({ "metadata": {}, "spec": { "cidrBlock": "10.20.0.0/24" } }),
    );
    let patches = |effect: &Effect| matches!(effect, Effect::Kube { write: KubeWrite::Patch { key: of, .. }, .. } if *of == key);
    while !lab.effects().any(patches) {
        assert!(lab.turn());
    }
    // Our finalizer is on its way, as a list; somebody else's gets there first.
    lab.kube.edit(&key, |subnet| {
        subnet["metadata"]["finalizers"] = json!(["example.com/mine"]);
    });
    lab.run();
    let finalizers = &lab.kube.get(&key).unwrap()["metadata"]["finalizers"];
    assert_eq!(
        *finalizers,
        json!(["example.com/mine", "kubeovn.io/kube-ovn-controller"])
    );

    // And a pod of the same name is not told what was meant for another.
    lab.pod("default", "a", "n1");
    let told = ObjectKey::pod("default", "a");
    let tells = |effect: &Effect| matches!(effect, Effect::Kube { write: KubeWrite::Patch { key: of, .. }, .. } if *of == told);
    while !lab.effects().any(tells) {
        assert!(lab.turn());
    }
    lab.kube.delete(&told);
    lab.kube.put(
        told.clone(),
        json!({ "metadata": { "annotations": { "ovn.kubernetes.io/ip_address": "10.16.0.99" } }, "spec": { "nodeName": "n1" } }),
    );
    lab.run();
    assert_eq!(lab.addresses()["default/a"], "10.16.0.99");
}

#[test]
fn what_a_list_does_not_show_any_more_is_gone() {
    let mut lab = Lab::new();
    lab.populate();
    lab.pod("default", "a", "n1");
    lab.pod("default", "b", "n1");
    lab.run();
    // The watch was interrupted for too long, and lists anew.
    lab.kube.lose(&ObjectKey::pod("default", "a"));
    lab.kube.lose(&ObjectKey::cluster(Kind::Node, "n2"));
    let lists = lab.kube.lists();
    lab.at_once(lists);
    lab.run();
    assert_eq!(lab.ips(), ["b.default", "node-n1"]);
    assert_eq!(lab.ports(), ["b.default", "node-n1"]);
}

#[test]
fn an_answer_does_not_bring_back_what_went_meanwhile() {
    use engine::{Effect, Event};
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.pod("default", "a", "n1");
    lab.news_at_once();
    let mut answers = Vec::new();
    for effect in lab.intercept() {
        if let Effect::Kube { id, write } = effect {
            let outcome = lab.kube.write(&write);
            answers.push(Event::KubeDone { id, outcome });
        }
    }
    // The watch is faster than the answer, and so is somebody with force.
    let record = ObjectKey::cluster(Kind::Ip, "a.default");
    lab.kube
        .edit(&record, |ip| ip["metadata"]["finalizers"] = json!([]));
    lab.kube.delete(&record);
    lab.kube.delete(&ObjectKey::pod("default", "a"));
    lab.news_at_once();
    lab.at_once(answers);
    lab.run();
    assert_eq!(lab.engine.report().leases, 2, "a record that nobody has");
    assert_eq!(lab.ports(), ["node-n1", "node-n2"]);
}

#[test]
fn a_status_is_written_once_a_second_and_is_exact_in_the_end() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.kube.writes.clear();
    let (subnet, start) = (ObjectKey::cluster(Kind::Subnet, "ovn-default"), lab.now);
    for pod in 0..40 {
        lab.pod("default", &format!("p{pod}"), "n1");
        while lab.turn() {}
    }
    let written = |lab: &Lab| {
        let of = |write: &&(&str, ObjectKey)| **write == ("patch_status", subnet.clone());
        lab.kube.writes.iter().filter(of).count()
    };
    assert!(lab.now < start + jiff::SignedDuration::from_secs(1));
    assert!(written(&lab) <= 1, "{} in a second", written(&lab));
    lab.run();
    assert!(written(&lab) <= 2);
    assert_eq!(lab.kube.get(&subnet).unwrap()["status"]["v4usingIPs"], 40);
}
