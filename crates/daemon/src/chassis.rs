//! The chassis' name: Open vSwitch's `system-id`.

use std::fs;
use std::path::Path;

use smol_str::SmolStr;
use tracing::{info, warn};

/// Where `ovs-ctl` keeps it.
pub const FILE: &str = "/etc/openvswitch/system-id.conf";

/// Where a new one comes from: a random one, or (a host without `/proc/sys` would be strange) the machine's own.
const SOURCES: [&str; 2] = ["/proc/sys/kernel/random/uuid", "/etc/machine-id"];

/// The id from the file, or a new one, which is put there if the directory exists. Called only while the
/// database has none, so an id that OVN knows is never replaced.
pub fn known_or_new(file: &Path) -> Result<SmolStr, String> {
    if let Some(id) = first_line(file) {
        return Ok(id);
    }
    let id = new_id(&SOURCES)?;
    info!("Open vSwitch has no system-id; it gets {id}");
    if let Err(error) = fs::write(file, format!("{id}\n")) {
        warn!(
            "{}: {error}; the id is kept in the database alone",
            file.display()
        );
    }
    Ok(id)
}

/// Never a constant: two nodes of one id would be one chassis.
fn new_id(sources: &[&str]) -> Result<SmolStr, String> {
    let mut ids = sources.iter().map(Path::new).filter_map(first_line);
    ids.next().ok_or_else(|| {
        format!(
            "this node has no system-id, and none can be made up from {}: set one that no other node has, with `ovs-vsctl set \
             Open_vSwitch . external_ids:system-id=...`",
            sources.join(" or ")
        )
    })
}

fn first_line(file: &Path) -> Option<SmolStr> {
    let text = fs::read_to_string(file).ok()?;
    Some(text.trim().into()).filter(|id: &SmolStr| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("system-id.conf");
        let first = known_or_new(&file).unwrap();
        assert_eq!(first.len(), 36);
        assert_eq!(known_or_new(&file).unwrap(), first);
        assert_ne!(known_or_new(&dir.path().join("no/such")).unwrap(), first);
    }

    #[test]
    fn an_id_that_other_nodes_could_have_as_well_is_never_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (none, empty) = (dir.path().join("none"), dir.path().join("empty"));
        fs::write(&empty, "\n").unwrap();
        let sources = [none.to_str().unwrap(), empty.to_str().unwrap()];
        let error = new_id(&sources).unwrap_err();
        assert!(error.contains("external_ids:system-id"), "{error}");
        fs::write(&empty, "abc\n").unwrap();
        assert_eq!(new_id(&sources).unwrap(), "abc");
    }
}
