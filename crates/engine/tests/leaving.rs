//! Subnets that are to go: who keeps them says so in their status, and what is theirs stays theirs.
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

fn subnet(name: &str) -> ObjectKey {
    ObjectKey::cluster(Kind::Subnet, name)
}

fn conditions(lab: &Lab, name: &str, kind: &str) -> Vec<String> {
    let object = lab.kube.get(&subnet(name)).unwrap();
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .filter(|c| c["type"] == kind)
        .map(|c| {
            format!(
                "{} {} {}",
                c["status"].as_str().unwrap(),
                c["reason"].as_str().unwrap_or_default(),
                c["message"].as_str().unwrap_or_default()
            )
        })
        .collect()
}

#[test]
fn a_subnet_that_is_kept_says_by_whom() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    for n in 0..7 {
        lab.pod("test-ns", &format!("p{n}"), "n1");
    }
    lab.run();
    lab.kube.delete(&subnet("test-subnet"));
    lab.run_for(SignedDuration::from_secs(5));
    let said = |lab: &Lab| conditions(lab, "test-subnet", "Terminating");
    assert_eq!(
        said(&lab),
        [
            "True AddressesInUse addresses are in use by pod test-ns/p0, pod test-ns/p1, pod test-ns/p2, pod test-ns/p3, pod test-ns/p4 and 2 more; the Subnet goes when these pods are deleted"
        ]
    );
    let before = lab.notices.len();
    for n in 1..7 {
        lab.kube.delete(&ObjectKey::pod("test-ns", format!("p{n}")));
        lab.run_for(SignedDuration::from_secs(5));
    }
    assert_eq!(
        said(&lab),
        [
            "True AddressesInUse addresses are in use by pod test-ns/p0; the Subnet goes when these pods are deleted"
        ]
    );
    assert_eq!(lab.notices.len(), before, "an event says it once");
    // Its namespace still names it: it goes, and is made anew from the annotations.
    let uid = lab.kube.get(&subnet("test-subnet")).unwrap()["metadata"]["uid"].clone();
    lab.kube.delete(&ObjectKey::pod("test-ns", "p0"));
    lab.run();
    let again = lab.kube.get(&subnet("test-subnet")).unwrap();
    assert_ne!(again["metadata"]["uid"], uid);
    assert_eq!(said(&lab), [""; 0]);
}

#[test]
fn a_default_subnet_that_is_deleted_comes_back_before_those_who_wait_for_its_addresses() {
    let mut lab = Lab::new();
    lab.populate();
    lab.run();
    lab.pod("default", "a", "n1");
    let greedy = json!({ "spec": { "cidrBlock": "10.16.5.0/24" } });
    lab.kube.put(subnet("greedy"), greedy);
    lab.run();
    let cidr = lab.kube.get(&subnet("ovn-default")).unwrap()["spec"]["cidrBlock"].clone();
    let uid = lab.kube.get(&subnet("ovn-default")).unwrap()["metadata"]["uid"].clone();
    let refused = conditions(&lab, "greedy", "Ready");
    assert!(
        refused[0].contains(r#"of Subnet "ovn-default""#),
        "{refused:?}"
    );

    lab.kube.delete(&subnet("ovn-default"));
    lab.run_for(SignedDuration::from_secs(5));
    assert_eq!(conditions(&lab, "greedy", "Ready"), refused);
    lab.kube.delete(&ObjectKey::pod("default", "a"));
    lab.run();
    let again = lab.kube.get(&subnet("ovn-default")).unwrap();
    assert_ne!(again["metadata"]["uid"], uid);
    assert_eq!(again["spec"]["cidrBlock"], cidr);
    assert!(conditions(&lab, "ovn-default", "Ready")[0].starts_with("True"));
    assert_eq!(conditions(&lab, "greedy", "Ready"), refused);
    lab.pod("default", "b", "n1");
    lab.run();
    assert_eq!(lab.addresses().len(), 1);
}
