//! What the machine must have, checked before anything is changed: one line per missing thing, with the way to get it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use nix::unistd::Uid;

use crate::cgroup;
use crate::command::{capture_with_input, output, with_sudo};

/// What is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Bring a lab up.
    Run,
    /// Build Kubernetes and put the images together.
    Build,
}

/// Program, Debian 12 package, and whether another OVN prefix brings it.
const PROGRAMS: [(&str, &str, bool); 26] = [
    ("ovs-vswitchd", "openvswitch-switch", true),
    ("ovs-vsctl", "openvswitch-common", true),
    ("ovsdb-server", "openvswitch-common", true),
    ("ovn-northd", "ovn-central", true),
    ("ovn-controller", "ovn-host", true),
    ("ovn-nbctl", "ovn-common", true),
    ("containerd", "containerd", false),
    ("ctr", "containerd", false),
    ("runc", "runc", false),
    ("docker-registry", "docker-registry", false),
    ("/usr/lib/cni/portmap", "containernetworking-plugins", false),
    (
        "/usr/lib/cni/loopback",
        "containernetworking-plugins",
        false,
    ),
    ("ip", "iproute2", false),
    ("ping", "iputils-ping", false),
    ("arping", "iputils-arping", false),
    ("ethtool", "ethtool", false),
    ("nft", "nftables", false),
    ("conntrack", "conntrack", false),
    ("iptables", "iptables", false),
    ("sysctl", "procps", false),
    ("nsenter", "util-linux", false),
    ("setsid", "util-linux", false),
    ("curl", "curl", false),
    ("tcpdump", "tcpdump", false),
    ("iperf3", "iperf3", false),
    ("nc", "netcat-openbsd", false),
];

/// Needed only to build.
const BUILDERS: [(&str, &str, bool); 3] = [
    ("apt-get", "apt", false),
    ("dpkg-deb", "dpkg", false),
    ("gcc", "gcc", false),
];

/// Gibibytes that a cold build of Kubernetes fills: module cache, build cache, programs.
const BUILD_GIB: u64 = 6;

/// Find a program in PATH and in the folders that only root usually has there.
pub fn which(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return executable(Path::new(program)).then(|| program.into());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/go/bin"])
        .map(|folder| Path::new(folder).join(program))
        .find(|file| executable(file))
}

fn executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Fail with one line unless this is root.
pub fn root(lab: &str, verb: &str) -> Result<()> {
    if !Uid::effective().is_root() {
        bail!(
            "`{verb}` needs root: a lab lives in network and mount namespaces; run it again with: {}",
            with_sudo(lab)
        );
    }
    Ok(())
}

/// MiB that a node takes, with its share of pods; and what the control plane and OVN's databases take beside it.
/// Measured: three nodes with cluster DNS take 0.9 GiB.
const NODE_MIB: u64 = 200;
const CONTROL_MIB: u64 = 400;

/// Refuse nodes that would drive the machine out of memory. `there` nodes are up already.
pub fn memory(nodes: u8, there: usize) -> Result<()> {
    let available = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| available_mib(&text));
    match available {
        Some(available) => enough(u64::from(nodes), there as u64, available),
        None => Ok(()),
    }
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let rest = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(rest.split_ascii_whitespace().next()?.parse::<u64>().ok()? >> 10)
}

fn enough(nodes: u64, there: u64, available: u64) -> Result<()> {
    let base = if there == 0 { CONTROL_MIB } else { 0 };
    let needed = base + nodes.saturating_sub(there) * NODE_MIB;
    if nodes <= there || needed <= available {
        return Ok(());
    }
    let fit = there + available.saturating_sub(base) / NODE_MIB;
    let advice = if fit == 0 {
        "end something else first".to_owned()
    } else {
        format!("--nodes {fit} fits")
    };
    bail!(
        "--nodes {nodes} takes about {needed} MiB of memory and {available} MiB are available; {advice}. \
         Nothing was changed"
    )
}

/// Check everything; the error lists all that is missing.
pub fn check(purpose: Purpose, ovn_prefix: Option<&Path>) -> Result<()> {
    let missing = missing(purpose, ovn_prefix);
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "this machine lacks something; nothing was changed:\n  {}",
        missing.join("\n  ")
    )
}

/// One line per missing thing.
pub fn missing(purpose: Purpose, ovn_prefix: Option<&Path>) -> Vec<String> {
    let mut lines = Vec::new();
    if !Uid::effective().is_root() {
        // The other checks need root themselves and would only mislead.
        return vec![
            "root: a lab lives in network and mount namespaces; run the command again with sudo"
                .into(),
        ];
    }
    lines.extend(packages(purpose, ovn_prefix));
    lines.extend(kernel());
    if purpose == Purpose::Build {
        lines.extend(build());
    }
    lines
}

fn packages(purpose: Purpose, ovn_prefix: Option<&Path>) -> Vec<String> {
    let mut wanted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let builders: &[_] = if purpose == Purpose::Build {
        &BUILDERS
    } else {
        &[]
    };
    for (program, package, prefixed) in PROGRAMS.iter().chain(builders) {
        let found = match ovn_prefix {
            Some(prefix) if *prefixed => executable(&prefix.join("bin").join(program)),
            _ => which(program).is_some(),
        };
        if !found {
            wanted.entry(package).or_default().push(program);
        }
    }
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut lines: Vec<String> = wanted
        .iter()
        .map(|(package, programs)| format!("package {package} (for {})", programs.join(", ")))
        .collect();
    let names: Vec<_> = wanted.keys().copied().collect();
    lines.push(format!(
        "  get them with: apt-get install -y --no-install-recommends {}",
        names.join(" ")
    ));
    lines.push("  (tools/install-packages does so without starting any service)".into());
    lines
}

/// Features of the kernel, tried in namespaces that vanish with the attempt.
fn kernel() -> Vec<String> {
    let mut lines = Vec::new();
    let unshare = |args: &[&str]| {
        output(Command::new("unshare").arg("--net").arg("--").args(args))
            .is_ok_and(|o| o.status.success())
    };
    if !unshare(&["true"]) {
        lines.push(
            "kernel: no new network namespace (CONFIG_NET_NS, CAP_SYS_ADMIN); \
             in a container, run it privileged"
                .into(),
        );
        return lines;
    }
    if !output(Command::new("unshare").args(["--mount", "--uts", "--", "true"]))
        .is_ok_and(|o| o.status.success())
    {
        lines.push(
            "kernel: no new mount namespace (CAP_SYS_ADMIN); in a container, run it privileged"
                .into(),
        );
    }
    if which("ip").is_some() {
        for (what, option, args) in [
            (
                "veth pairs",
                "CONFIG_VETH",
                &[
                    "ip", "link", "add", "try0", "type", "veth", "peer", "name", "try1",
                ][..],
            ),
            (
                "bridges",
                "CONFIG_BRIDGE",
                &["ip", "link", "add", "try0", "type", "bridge"][..],
            ),
            (
                "tap devices",
                "CONFIG_TUN, /dev/net/tun",
                &["ip", "tuntap", "add", "try0", "mode", "tap"][..],
            ),
        ] {
            if !unshare(args) {
                lines.push(format!("kernel: no {what} ({option})"));
            }
        }
    }
    if which("nft").is_some() {
        let rules = "table ip t { chain c { type nat hook postrouting priority 100; oifname \"x\" ct state new masquerade; }; }";
        if capture_with_input(
            Command::new("unshare").args(["--net", "--", "nft", "-f", "-"]),
            rules,
        )
        .is_err()
        {
            lines.push("kernel: no nftables with NAT and connection tracking (CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_MASQ)".into());
        }
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems
        .split_ascii_whitespace()
        .any(|word| word == "overlay")
        && !output(Command::new("modprobe").args(["--dry-run", "overlay"]))
            .is_ok_and(|o| o.status.success())
    {
        lines.push("kernel: no overlay file system (CONFIG_OVERLAY_FS)".into());
    }
    let controllers = cgroup::missing();
    if !controllers.is_empty() {
        lines.push(format!(
            "kernel: cgroup controllers are not there: {} (mount them, or boot without cgroup_disable=)",
            controllers.join(", ")
        ));
    }
    lines
}

fn build() -> Vec<String> {
    let mut lines = Vec::new();
    match go_version() {
        None => lines.push(format!("Go: not found; {GET_GO}")),
        Some((major, minor)) if (major, minor) < GO => {
            lines.push(format!("Go: {major}.{minor} is too old; {GET_GO}"));
        }
        Some(_) => {}
    }
    if let Some(free) = free_gib(&crate::cache::root())
        && free < BUILD_GIB
    {
        lines.push(format!(
            "space: {free} GiB are free for {}; a cold build of Kubernetes needs {BUILD_GIB} (set XDG_CACHE_HOME to move it)",
            crate::cache::root().display()
        ));
    }
    lines
}

/// The oldest Go that fetches the one that `lab/kubernetes/go.mod` pins (https://go.dev/doc/toolchain).
const GO: (u32, u32) = (1, 21);
/// The same words stand in tools/preflight and in the README.
const GET_GO: &str = "get Go 1.21 or later from https://go.dev/dl/ (it fetches 1.26 by itself)";

fn go_version() -> Option<(u32, u32)> {
    let text = output(Command::new(which("go")?).args(["env", "GOVERSION"])).ok()?;
    let text = String::from_utf8_lossy(&text.stdout)
        .trim()
        .trim_start_matches("go")
        .to_owned();
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn free_gib(path: &Path) -> Option<u64> {
    let exists = path.ancestors().find(|p| p.exists())?;
    let free = nix::sys::statvfs::statvfs(exists).ok()?;
    Some((free.blocks_available() * free.fragment_size()) >> 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tools/install-packages` installs from this list; what the preflight asks for must be on it.
    #[test]
    fn every_package_is_on_the_list_that_make_installs() {
        let list =
            fs::read_to_string(crate::components::checkout().join("tools/debian-packages.txt"))
                .unwrap();
        let listed: Vec<_> = list
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim())
            .collect();
        for (_, package, _) in PROGRAMS.iter().chain(&BUILDERS) {
            assert!(
                listed.contains(package),
                "{package} is not in tools/debian-packages.txt"
            );
        }
    }

    #[test]
    fn the_same_go_is_asked_for_everywhere() {
        let checkout = crate::components::checkout();
        for file in ["README.md", "tools/preflight"] {
            let text = fs::read_to_string(checkout.join(file)).unwrap();
            assert!(text.contains("Go 1.21 or later"), "{file}");
            assert!(text.contains("it fetches 1.26 by itself"), "{file}");
        }
        let module = fs::read_to_string(checkout.join("lab/kubernetes/go.mod")).unwrap();
        assert!(module.contains("\ngo 1.26"), "{module}");
    }

    /// What `make` asks before it builds, on a machine that has nothing of ours yet.
    #[test]
    fn the_script_before_the_build_names_what_is_too_old() {
        let folder = tempfile::tempdir().unwrap();
        let fake = |program: &str, says: &str| {
            let file = folder.path().join(program);
            fs::write(&file, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let said = || {
            let script = crate::components::checkout().join("tools/preflight");
            let output = Command::new(script)
                .env_remove("CARGO")
                .env_remove("XDG_CACHE_HOME")
                .env("HOME", folder.path())
                .env(
                    "PATH",
                    format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", folder.path().display()),
                )
                .output()
                .unwrap();
            String::from_utf8(output.stderr).unwrap()
        };
        fake("cargo", "cargo 1.80.1 (x)");
        fake("go", "go1.19.8");
        let old = said();
        assert!(old.contains("Rust: 1.80.1 is too old"), "{old}");
        assert!(old.contains("Go: 1.19.8 is too old"), "{old}");
        fake("cargo", "cargo 1.100.0 (x)");
        fake("go", "go1.21.0");
        let new = said();
        assert!(
            !new.contains("too old") && !new.contains("not found"),
            "{new}"
        );
    }

    #[test]
    fn nodes_that_do_not_fit_into_memory_are_refused_with_a_number_that_does() {
        assert!(enough(3, 0, 1000).is_ok());
        let error = enough(3, 0, 999).unwrap_err().to_string();
        assert!(error.contains("--nodes 2 fits"), "{error}");
        assert!(
            enough(3, 0, 500)
                .unwrap_err()
                .to_string()
                .contains("end something else")
        );
        // A lab that is up has its memory already.
        assert!(enough(3, 3, 0).is_ok());
        assert!(enough(4, 3, 200).is_ok());
        assert!(
            enough(6, 3, 400)
                .unwrap_err()
                .to_string()
                .contains("--nodes 5 fits")
        );
        assert_eq!(
            available_mib("MemTotal: 4 kB\nMemAvailable:    2097152 kB\n"),
            Some(2048)
        );
    }

    #[test]
    fn a_missing_prefix_names_packages_and_the_command() {
        let lines = packages(Purpose::Run, Some(Path::new("/nonexistent")));
        assert!(
            lines
                .iter()
                .any(|l| l.contains("package ovn-central (for ovn-northd)")),
            "{lines:?}"
        );
        assert!(
            lines.iter().any(|l| l.contains("apt-get install")),
            "{lines:?}"
        );
    }
}
