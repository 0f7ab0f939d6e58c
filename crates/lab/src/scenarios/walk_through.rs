//! The first steps of a new user: a namespace with a subnet of its own, two nginx pods, a busybox pod, all talking.

use anyhow::{Result, ensure};

use crate::scenario::{Pod, Scenario, Stage, any, host};

pub const SCENARIO: Scenario = Scenario {
    name: "walk-through",
    about: "a namespace with its own subnet, two nginx pods and a busybox pod with the addresses that the documents show",
    unfit: any,
    run,
};

/// `test-ns.yaml`, as the documents print it.
pub const TEST_NS: &str = r#"apiVersion: v1
kind: Namespace
metadata:
  annotations:
    ovn.kubernetes.io/cidr: 10.17.0.0/24
    ovn.kubernetes.io/gateway: 10.17.0.1
    ovn.kubernetes.io/logical_switch: test-ns-subnet
    ovn.kubernetes.io/exclude_ips: "10.17.0.1..10.17.0.10"
  name: test-ns
"#;

/// What follows it, without the word `kubectl`.
pub const STEPS: [&[&str]; 3] = [
    &["create", "deployment", "nginx", "-n", "test-ns", "--image=nginx", "--replicas=2", "--port=80"],
    &["expose", "deployment", "nginx", "-n", "test-ns", "--port=80"],
    &["run", "busy", "--image=busybox", "--", "sleep", "360000"],
];

/// What the walk-through made: the two nginx pods and the client.
pub struct Cast {
    /// By address.
    pub nginx: Vec<Pod>,
    /// In the default subnet.
    pub busy: Pod,
}

fn act(stage: &Stage<'_>) -> Result<Cast> {
    stage.apply(TEST_NS)?;
    for step in STEPS {
        stage.kubectl(step)?;
    }
    Ok(Cast {
        nginx: stage.pods("test-ns", "app=nginx", 2)?,
        busy: stage.pod("default", "busy")?,
    })
}

/// Every pod pings every address of every other and fetches a page from every nginx, over the families that both have.
/// Returns the number of pairs.
pub fn all_talk(stage: &Stage<'_>, cast: &Cast) -> Result<usize> {
    let everyone: Vec<&Pod> = cast.nginx.iter().chain([&cast.busy]).collect();
    let mut pairs = 0;
    for from in &everyone {
        for to in everyone.iter().filter(|to| to.uid != from.uid) {
            for address in from.reachable(to) {
                stage.pings(from, address)?;
            }
            pairs += 1;
        }
        for to in &cast.nginx {
            for address in from.reachable(to) {
                let page = stage.fetches(from, &format!("http://{}/", host(address)))?;
                ensure!(page.contains("Welcome to nginx"), "{} got another page: {page}", from.name);
            }
        }
    }
    Ok(pairs)
}

fn run(stage: &Stage<'_>) -> Result<()> {
    let made = "apiVersion: v1\nkind: Pod\nmetadata: {name: busy, namespace: default}\n";
    let cast = act(stage);
    let talked = cast.and_then(|cast| {
        let addresses: Vec<String> = cast
            .nginx
            .iter()
            .filter_map(|p| p.addresses.first())
            .map(ToString::to_string)
            .collect();
        ensure!(
            addresses == ["10.17.0.11", "10.17.0.12"],
            "the nginx pods have {addresses:?} instead of 10.17.0.11 and 10.17.0.12"
        );
        let busy = cast.busy.address()?.to_string();
        ensure!(busy.starts_with("10.16."), "busy has {busy}; the default subnet is 10.16.0.0/16");
        let pairs = all_talk(stage, &cast)?;
        stage.note(format!("{pairs} pairs of pods talk"));
        Ok(())
    });
    stage.delete(made)?;
    talked
}
