//! Five hundred pods, for the benchmark: how fast they get their network, and what that costs.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::command::capture;
use crate::components::CONTROLLER_PORT;
use crate::lab::Place;
use crate::scenario::{Scenario, Stage};

pub const SCENARIO: Scenario = Scenario {
    name: "five-hundred-pods",
    about: "five hundred pods created at once all run with different addresses (a benchmark; not part of --all)",
    unfit: |lab| (lab.nodes.len() < 3).then_some("needs three nodes"),
    run,
};

const COUNT: usize = 500;
const NAMESPACE: &str = "five-hundred";

fn run(stage: &Stage<'_>) -> Result<()> {
    stage.calm()?;
    let before = cost(stage)?;
    let mut watch = stage
        .lab
        .kubectl()?
        .args(["get", "pods", "-n", NAMESPACE, "-l", "app=many", "--watch", "--no-headers", "-o"])
        .arg(
            "custom-columns=N:.metadata.name,\
             A:.metadata.annotations.ovn\\.kubernetes\\.io/ip_address,\
             R:.status.conditions[?(@.type==\"Ready\")].status",
        )
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let lines = watch.stdout.take().context("kubectl has no output")?;
    // Each line is noted when it comes: Kubernetes' own times are whole seconds.
    let reader = std::thread::spawn(move || {
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        for line in BufReader::new(lines).lines().map_while(Result::ok) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [name, address, ready] = words[..] else { continue };
            let now = Instant::now();
            let pod = seen.entry(name.to_owned()).or_insert(Seen { made: now, address: None, ready: None });
            if address != "<none>" {
                pod.address.get_or_insert(now - pod.made);
            }
            if ready == "True" {
                pod.ready.get_or_insert(now - pod.made);
            }
        }
        seen
    });
    let told = super::ninety_pods::many_then(stage, NAMESPACE, COUNT, Duration::from_mins(10), || {
        let after = cost(stage)?;
        #[expect(clippy::cast_precision_loss, reason = "counters of one run")]
        let each = |key: &str| (after.get(key).unwrap_or(&0.0) - before.get(key).unwrap_or(&0.0), COUNT as f64);
        for (key, what) in [("nb", "northbound transactions"), ("api", "writes to the API server")] {
            let (count, pods) = each(key);
            stage.note(format!("{count:.0} {what}, {:.2} for each pod", count / pods));
        }
        stage.note(format!("{:.1} s of processor time in the controllers", each("cpu").0));
        Ok(())
    });
    end(&mut watch);
    let seen = reader.join().ok().context("the reader of kubectl panicked")?;
    for (what, times) in [
        ("address", seen.values().filter_map(|pod| pod.address).collect::<Vec<_>>()),
        ("Ready", seen.values().filter_map(|pod| pod.ready).collect()),
    ] {
        stage.note(format!("creation to {what}: p50 {}, p99 {} ({} pods)", at(&times, 50), at(&times, 99), times.len()));
    }
    told
}

/// A pod as the watch saw it.
struct Seen {
    made: Instant,
    address: Option<Duration>,
    ready: Option<Duration>,
}

fn end(watch: &mut Child) {
    let _ = watch.kill();
    let _ = watch.wait();
}

/// A percentile, in seconds.
fn at(times: &[Duration], percent: usize) -> String {
    let mut sorted = times.to_vec();
    sorted.sort();
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).map_or_else(|| "-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
}

/// What the controllers have spent so far, both together: the standby's share is part of the price.
fn cost(stage: &Stage<'_>) -> Result<BTreeMap<&'static str, f64>> {
    let mut sum = BTreeMap::new();
    for record in stage.lab.records().iter().filter(|r| r.component == "kube-ovn-controller") {
        let node = record.node.as_deref().context("a controller without a node")?;
        let url = format!("http://127.0.0.1:{CONTROLLER_PORT}/metrics");
        let text = capture(stage.lab.command(Place::Node(node), "curl")?.args(["-sf", "-m", "5", &url]))?;
        for line in text.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let key = match name.split('{').next() {
                Some("process_cpu_seconds_total") => "cpu",
                Some("kube_ovn_controller_transactions_total") if !name.contains("chassis") => "nb",
                Some("kube_ovn_controller_kube_writes_total") => "api",
                _ => continue,
            };
            *sum.entry(key).or_default() += value.parse().unwrap_or(0.0);
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_secs).collect();
        assert_eq!(at(&times, 50), "50.00 s");
        assert_eq!(at(&times, 99), "99.00 s");
        assert_eq!(at(&times[..1], 99), "100.00 s");
        assert_eq!(at(&[], 50), "-");
    }
}
