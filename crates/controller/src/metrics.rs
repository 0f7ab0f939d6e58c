//! /metrics: figures of the moment, in the Prometheus text format.

use std::fmt::Write as _;

use engine::{Report, Role};

use crate::admin::Snapshot;

/// Upstream names the families so.
const V4: &str = "IPv4";

/// The page. The `subnet_*` names are the Go implementation's: dashboards and alerts use them.
///
/// It is made from a snapshot of the engine at the moment of the scrape: exact, and nothing has to be kept up.
pub fn page(snapshot: Option<&Snapshot>) -> String {
    let mut page = Page::default();
    page.process();
    let Some(snapshot) = snapshot else {
        return page.0;
    };
    let report = &snapshot.report;
    page.family(
        "kube_ovn_controller_role",
        "gauge",
        "1 for the role that this process has",
    );
    for role in ["standby", "candidate", "leader", "fenced"] {
        page.sample(
            "kube_ovn_controller_role",
            &[("role", role)],
            u8::from(report.role.label() == role),
        );
    }
    if let Role::Leader { epoch, .. } = report.role {
        page.family(
            "kube_ovn_controller_epoch",
            "gauge",
            "Epoch under which this process writes",
        );
        page.sample("kube_ovn_controller_epoch", &[], epoch);
    }
    page.family(
        "kube_ovn_controller_ports",
        "gauge",
        "Ports of pods and nodes, by state",
    );
    for (state, count) in &report.ports {
        page.sample(
            "kube_ovn_controller_ports",
            &[("state", state.label())],
            count,
        );
    }
    page.family(
        "kube_ovn_controller_leases",
        "gauge",
        "Addresses in the ledger",
    );
    page.sample("kube_ovn_controller_leases", &[], report.leases);
    page.family(
        "kube_ovn_controller_pending_units",
        "gauge",
        "Units whose rows are not in the database yet",
    );
    page.sample(
        "kube_ovn_controller_pending_units",
        &[],
        report.pending_units,
    );
    page.family(
        "kube_ovn_controller_parked_units",
        "gauge",
        "Units whose rows the database refuses",
    );
    page.sample("kube_ovn_controller_parked_units", &[], report.parked.len());
    page.family(
        "kube_ovn_controller_brakes_held",
        "gauge",
        "1 while a flush would delete too much and waits for consent",
    );
    page.sample(
        "kube_ovn_controller_brakes_held",
        &[],
        u8::from(!report.held.is_empty()),
    );
    page.family(
        "kube_ovn_controller_brakes_held_rows",
        "gauge",
        "Rows and memberships that wait for consent to be deleted, by table or column",
    );
    for held in &report.held {
        page.sample(
            "kube_ovn_controller_brakes_held_rows",
            &[("table", &held.table)],
            held.rows,
        );
    }
    page.family(
        "kube_ovn_controller_unsupported_in_use",
        "gauge",
        "Objects of the Go implementation's network that this version does nothing for, while they keep it from taking over",
    );
    for in_use in &report.unsupported {
        page.sample(
            "kube_ovn_controller_unsupported_in_use",
            &[("what", &in_use.what)],
            in_use.count,
        );
    }
    page.family(
        "kube_ovn_controller_blocked_rows",
        "gauge",
        "Rows and memberships that cannot be written: somebody else's row, a missing table or column, ...",
    );
    page.sample(
        "kube_ovn_controller_blocked_rows",
        &[],
        report.blocked.len(),
    );
    page.family(
        "kube_ovn_controller_problems",
        "gauge",
        "Problems of objects that stand at the moment",
    );
    page.sample("kube_ovn_controller_problems", &[], report.problems.len());
    page.family(
        "kube_ovn_controller_audits_total",
        "counter",
        "Rounds in which everything was computed anew and compared",
    );
    page.sample("kube_ovn_controller_audits_total", &[], report.audits);
    page.family(
        "kube_ovn_controller_audit_drift_total",
        "counter",
        "What an audit found to be otherwise than it was known: defects, mended",
    );
    page.sample("kube_ovn_controller_audit_drift_total", &[], report.drift);
    page.family(
        "kube_ovn_controller_unclaimed_rows",
        "gauge",
        "Rows of the Go implementation that nothing of this version claims; they are left alone",
    );
    page.sample("kube_ovn_controller_unclaimed_rows", &[], report.unclaimed);
    page.family(
        "kube_ovn_controller_chassis",
        "gauge",
        "Chassis in the southbound database",
    );
    page.sample("kube_ovn_controller_chassis", &[], report.chassis);
    page.family(
        "kube_ovn_controller_kube_writes_total",
        "counter",
        "Writes to the API server, by kind, verb and end",
    );
    for ((kind, verb, ended), count) in &report.writes {
        let labels = [
            ("kind", kind.name()),
            ("verb", verb),
            ("result", ended.label()),
        ];
        page.sample("kube_ovn_controller_kube_writes_total", &labels, count);
    }
    page.family(
        "kube_ovn_controller_kube_writes_in_flight",
        "gauge",
        "Writes to the API server under way",
    );
    page.sample(
        "kube_ovn_controller_kube_writes_in_flight",
        &[],
        report.writes_in_flight,
    );
    page.family(
        "kube_ovn_controller_kube_writes_waiting",
        "gauge",
        "Objects whose last write failed and is tried again later",
    );
    page.sample(
        "kube_ovn_controller_kube_writes_waiting",
        &[],
        report.writes_waiting,
    );
    page.family(
        "kube_ovn_controller_transactions_total",
        "counter",
        "Database transactions, by kind and end",
    );
    for ((kind, ended), count) in &report.commits {
        page.sample(
            "kube_ovn_controller_transactions_total",
            &[("kind", kind.label()), ("result", ended)],
            count,
        );
    }
    page.family(
        "kube_ovn_controller_operations_total",
        "counter",
        "Northbound operations sent",
    );
    page.sample(
        "kube_ovn_controller_operations_total",
        &[],
        report.operations,
    );

    page.family(
        "subnet_available_ip_count",
        "gauge",
        "Addresses that a pod could get",
    );
    page.subnets(report, "subnet_available_ip_count", |subnet| {
        subnet.available
    });
    page.family("subnet_used_ip_count", "gauge", "Addresses in use");
    page.subnets(report, "subnet_used_ip_count", |subnet| subnet.using);
    page.family(
        "kube_ovn_controller_loop_turns_total",
        "counter",
        "Turns of the main loop",
    );
    page.sample("kube_ovn_controller_loop_turns_total", &[], snapshot.turns);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let text: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{}\"", escape(value)))
            .collect();
        let labels = if text.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", text.join(","))
        };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn subnets(
        &mut self,
        report: &Report,
        name: &str,
        figure: impl Fn(&engine::SubnetReport) -> u128,
    ) {
        for subnet in &report.subnets {
            let protocol = if subnet.family == net::Family::V4 {
                V4
            } else {
                "IPv6"
            };
            let labels = [
                ("subnet_name", subnet.name.as_str()),
                ("protocol", protocol),
                ("subnet_cidr", &subnet.cidr),
            ];
            self.sample(name, &labels, figure(subnet));
        }
    }

    /// The two figures that every Prometheus client has. Absent where /proc is.
    fn process(&mut self) {
        if let Some(bytes) = resident_bytes() {
            self.family(
                "process_resident_memory_bytes",
                "gauge",
                "Resident memory size in bytes",
            );
            self.sample("process_resident_memory_bytes", &[], bytes);
        }
        if let Some(seconds) = cpu_seconds() {
            self.family(
                "process_cpu_seconds_total",
                "counter",
                "User and system CPU time in seconds",
            );
            self.sample("process_cpu_seconds_total", &[], seconds);
        }
    }
}

/// Escapes a label value (Prometheus text format).
fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

fn cpu_seconds() -> Option<f64> {
    // Fields 14 and 15 of proc_pid_stat(5), counted behind the name, which may hold anything; in ticks of 1/100 s.
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }

    #[test]
    fn an_idle_engine_has_a_page_that_prometheus_can_read() {
        let mut engine =
            engine::Engine::new(engine::Config::default(), jiff::Timestamp::UNIX_EPOCH);
        let snapshot = Snapshot {
            report: engine.report(),
            turns: 1,
            databases: Vec::new(),
        };
        let page = page(Some(&snapshot));
        assert!(
            page.contains("kube_ovn_controller_role{role=\"standby\"} 1\n"),
            "{page}"
        );
        assert!(page.contains("process_resident_memory_bytes "), "{page}");
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
        }
    }
}
