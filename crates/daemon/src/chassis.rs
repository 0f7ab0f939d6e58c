//! The chassis' name: Open vSwitch's `system-id`.

use std::fs;
use std::path::Path;

use smol_str::SmolStr;
use tracing::{info, warn};

/// Where `ovs-ctl` keeps it.
pub const FILE: &str = "/etc/openvswitch/system-id.conf";

/// The id from the file, or a new random one, which is put there if the directory exists. Called only while the
/// database has none, so an id that OVN knows is never replaced.
pub fn known_or_new(file: &Path) -> SmolStr {
    if let Ok(text) = fs::read_to_string(file)
        && !text.trim().is_empty()
    {
        return text.trim().into();
    }
    let id = match fs::read_to_string("/proc/sys/kernel/random/uuid") {
        Ok(id) => id.trim().to_owned(),
        // No /proc/sys would be a strange host; the machine's id names it as well.
        Err(_) => fs::read_to_string("/etc/machine-id").unwrap_or_else(|_| "kube-ovn-node".into()),
    };
    info!("Open vSwitch has no system-id; it gets {id}");
    if let Err(error) = fs::write(file, format!("{id}\n")) {
        warn!(
            "{}: {error}; the id is kept in the database alone",
            file.display()
        );
    }
    id.trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("system-id.conf");
        let first = known_or_new(&file);
        assert_eq!(first.len(), 36);
        assert_eq!(known_or_new(&file), first);
        assert_ne!(known_or_new(&dir.path().join("no/such")), first);
    }
}
