//! Five hundred pods, for the benchmark: how fast they get their network, and what that costs.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

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
    let watch = Watch::start(stage)?;
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
    let seen = watch.end()?;
    let mut counts = Vec::new();
    for (what, times) in [
        ("address", seen.values().filter_map(|pod| pod.address).collect::<Vec<_>>()),
        ("Ready", seen.values().filter_map(|pod| pod.ready).collect()),
    ] {
        stage.note(format!("creation to {what}: p50 {}, p99 {}", at(&times, 50), at(&times, 99)));
        counts.push(times.len());
    }
    told?;
    ensure!(counts == [COUNT, COUNT], "the watch saw the address of {} pods and {} Ready", counts[0], counts[1]);
    Ok(())
}

/// A pod as the watch saw it.
struct Seen {
    made: Instant,
    address: Option<Duration>,
    ready: Option<Duration>,
}

/// Notes when each pod gets its address and is ready: Kubernetes' own times are whole seconds.
struct Watch {
    client: Arc<Mutex<Client>>,
    reader: JoinHandle<BTreeMap<String, Seen>>,
}

/// The kubectl that listens now; none is started after the end.
#[derive(Default)]
struct Client {
    over: bool,
    child: Option<Child>,
}

impl Watch {
    fn start(stage: &Stage<'_>) -> Result<Self> {
        let mut command = stage.lab.kubectl()?;
        // As the API server sends it: a kubectl that makes tables of so many pods falls behind, and is cut off.
        command
            .args(["get", "--raw"])
            .arg(format!("/api/v1/namespaces/{NAMESPACE}/pods?watch=true&labelSelector=app%3Dmany&timeoutSeconds=3600"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let client: Arc<Mutex<Client>> = Arc::default();
        let shared = client.clone();
        let reader = std::thread::spawn(move || {
            let mut seen = BTreeMap::new();
            // A watch that ends is begun anew, and first tells what there is by now.
            while let Some(output) = listen(&mut command, &shared) {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    note(&mut seen, &line, Instant::now());
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            seen
        });
        Ok(Self { client, reader })
    }

    fn end(self) -> Result<BTreeMap<String, Seen>> {
        {
            let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
            client.over = true;
            if let Some(child) = &mut client.child {
                let _ = child.kill();
            }
        }
        self.reader.join().ok().context("the reader of the watch panicked")
    }
}

/// Start kubectl, unless the watch is over; the former one has ended.
fn listen(command: &mut Command, client: &Mutex<Client>) -> Option<ChildStdout> {
    let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(mut former) = client.child.take() {
        let _ = former.wait();
    }
    if client.over {
        return None;
    }
    let mut child = command.spawn().ok()?;
    let output = child.stdout.take();
    client.child = Some(child);
    output
}

/// One event of the watch (`{"type": ..., "object": ...}`, a line each).
fn note(seen: &mut BTreeMap<String, Seen>, line: &str, now: Instant) {
    let Ok(event) = serde_json::from_str::<Value>(line) else { return };
    let pod = &event["object"];
    let Some(name) = pod["metadata"]["name"].as_str() else { return };
    let times = seen.entry(name.to_owned()).or_insert(Seen { made: now, address: None, ready: None });
    if pod["metadata"]["annotations"]["ovn.kubernetes.io/ip_address"].is_string() {
        times.address.get_or_insert(now - times.made);
    }
    let conditions = pod["status"]["conditions"].as_array();
    if conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True") {
        times.ready.get_or_insert(now - times.made);
    }
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
    fn a_pod_is_timed_from_when_it_was_first_seen() {
        let (mut seen, start) = (BTreeMap::new(), Instant::now());
        let line = |annotations: &str, ready: &str| {
            format!(
                r#"{{"type":"MODIFIED","object":{{"metadata":{{"name":"a","annotations":{annotations}}},
                "status":{{"conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}}}"#
            )
        };
        let address = r#"{"ovn.kubernetes.io/ip_address":"10.16.0.11"}"#;
        for (second, line) in
            [line("{}", "False"), line(address, "False"), line(address, "True"), line("{}", "True")].iter().enumerate()
        {
            note(&mut seen, line, start + Duration::from_secs(second as u64));
        }
        note(&mut seen, "not JSON", start);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen["a"].address, Some(Duration::from_secs(1)));
        assert_eq!(seen["a"].ready, Some(Duration::from_secs(2)));
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_secs).collect();
        assert_eq!(at(&times, 50), "50.00 s");
        assert_eq!(at(&times, 99), "99.00 s");
        assert_eq!(at(&times[..1], 99), "100.00 s");
        assert_eq!(at(&[], 50), "-");
    }
}
