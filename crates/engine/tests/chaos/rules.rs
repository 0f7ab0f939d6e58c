//! What must hold at every moment, and in the end.

use std::collections::BTreeMap;

use crate::world::World;
use engine::{Kind, ObjectKey};
use serde_json::{Value, json};

impl World {
    /// What holds at every moment.
    pub fn check_always(&mut self) {
        let mut in_use: BTreeMap<&str, &ObjectKey> = BTreeMap::new();
        for (key, pod) in self.kube.of(Kind::Pod) {
            let annotations = &pod["metadata"]["annotations"];
            if annotations["ovn.kubernetes.io/allocated"] != "true" {
                continue;
            }
            let address = annotations["ovn.kubernetes.io/ip_address"]
                .as_str()
                .unwrap();
            let uid = pod["metadata"]["uid"].as_str().unwrap();
            let before = self
                .told
                .entry(uid.to_owned())
                .or_insert_with(|| address.to_owned());
            assert_eq!(
                before,
                address,
                "{key} was told another address\n{}",
                self.log.join("\n")
            );
            if pod["status"]["phase"] != "Succeeded"
                && let Some(other) = in_use.insert(address, key)
            {
                panic!(
                    "{key} and {other} both use {address}\n{}",
                    self.log.join("\n")
                );
            }
        }
        let mut ports: BTreeMap<&str, &str> = BTreeMap::new();
        for (_, row) in self
            .nb
            .rows("Logical_Switch_Port")
            .filter(|(_, row)| row.str("type").is_empty())
        {
            let address = row
                .strs("addresses")
                .next()
                .and_then(|a| a.split(' ').nth(1))
                .unwrap_or_default();
            if !address.is_empty()
                && let Some(other) = ports.insert(address, row.str("name"))
            {
                panic!(
                    "ports {} and {other} both have {address}\n{}",
                    row.str("name"),
                    self.log.join("\n")
                );
            }
        }
    }

    /// Peace has come: everything is as it should be.
    pub fn check_end(&self) {
        let fail = |what: String| -> ! { panic!("{what}\n{}", self.log.join("\n")) };
        let mut wanted: BTreeMap<String, &Value> = BTreeMap::new();
        let mut waiting = Vec::new();
        for (key, pod) in self
            .kube
            .of(Kind::Pod)
            .filter(|(_, pod)| pod["status"]["phase"] != "Succeeded")
        {
            let port = format!("{}.{}", key.name, key.namespace);
            if pod["metadata"]["annotations"]["ovn.kubernetes.io/routed"] == "true" {
                wanted.insert(port, pod);
            } else {
                waiting.push(port);
            }
        }
        // 10.17.0.0/28 has 13 addresses for pods and nine pods: only the one fixed address may be missing.
        for port in &waiting {
            let (name, namespace) = port.rsplit_once('.').unwrap();
            let pod = self.kube.get(&ObjectKey::pod(namespace, name)).unwrap();
            let asks = pod["metadata"]["annotations"]["ovn.kubernetes.io/ip_address"].as_str();
            let holds = |ip: &Value| ip["spec"]["ipAddress"] == "10.17.0.9";
            if asks != Some("10.17.0.9") || !self.kube.of(Kind::Ip).any(|(_, ip)| holds(ip)) {
                fail(format!(
                    "{port} waits: {:?}",
                    self.processes[self.holder].engine.port_state(port)
                ));
            }
        }
        let mut names: Vec<String> = wanted.keys().cloned().collect();
        names.extend(
            self.kube
                .of(Kind::Node)
                .map(|(key, _)| format!("node-{}", key.name)),
        );
        names.sort();
        let ips: Vec<String> = self
            .kube
            .of(Kind::Ip)
            .map(|(key, _)| key.name.to_string())
            .collect();
        let mut sorted = ips.clone();
        sorted.sort();
        if sorted != names {
            fail(format!("IP resources {sorted:?}\n wanted {names:?}"));
        }
        let mut ports: Vec<String> = Vec::new();
        for (_, row) in self
            .nb
            .rows("Logical_Switch_Port")
            .filter(|(_, row)| row.str("type").is_empty())
        {
            ports.push(row.str("name").to_owned());
            let ip = self
                .kube
                .get(&ObjectKey::cluster(Kind::Ip, row.str("name")));
            let Some(ip) = ip else {
                fail(format!("port {} has no record", row.str("name")))
            };
            let text = format!(
                "{} {}",
                ip["spec"]["macAddress"].as_str().unwrap(),
                ip["spec"]["ipAddress"].as_str().unwrap()
            );
            if row.strs("addresses").next() != Some(text.as_str()) {
                fail(format!(
                    "port {} has not the address of its record",
                    row.str("name")
                ));
            }
        }
        ports.sort();
        if ports != names {
            let states: Vec<_> = names
                .iter()
                .filter(|name| !ports.contains(name))
                .map(|name| (name, self.processes[self.holder].engine.port_state(name)))
                .collect();
            fail(format!(
                "ports {ports:?}\n wanted {names:?}\n missing {states:?}"
            ));
        }
        for (subnet, object) in self.kube.of(Kind::Subnet) {
            let held = self
                .kube
                .of(Kind::Ip)
                .filter(|(_, ip)| ip["spec"]["subnet"] == subnet.name.as_str())
                .count();
            if object["status"]["v4usingIPs"] != json!(held) {
                fail(format!(
                    "{subnet} counts {} instead of {held}",
                    object["status"]["v4usingIPs"]
                ));
            }
        }
        for (port, pod) in wanted {
            let ip = self
                .kube
                .get(&ObjectKey::cluster(Kind::Ip, port.as_str()))
                .unwrap();
            if pod["metadata"]["annotations"]["ovn.kubernetes.io/ip_address"]
                != ip["spec"]["ipAddress"]
            {
                fail(format!(
                    "{port} was told another address than its record has"
                ));
            }
        }
    }
}
