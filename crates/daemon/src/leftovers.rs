//! Ports of pods that went without a DEL: the kubelet was down, the node was rebooted, the sandbox was lost.
//!
//! OVS does not tell: a port whose device vanished keeps its number and shows no error. So the kernel is asked for the
//! device and for the pod's namespace, and the API server's list says whether the pod exists.
//!
//! And the other way round: a running pod whose port OVS has lost (its database was wiped or restored) gets it back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use node::linux::{self, KernelError, NetNs, Socket};
use node::pod::Identity;
use smol_str::SmolStr;
use tracing::debug;

/// How long a device must have been without a port before it gets one: it is none of an ADD or DEL under way then.
pub const SETTLED: Duration = Duration::from_secs(2);
/// How long a pod must have been unknown before a port that looks alive is taken for a leftover, usually. A static pod
/// is unknown while the kubelet makes its mirror anew.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// And if the API server has said that the pod is no more: it was deleted by force, and nobody may be there to end it (its
/// kubelet is dead). Its logical port has been withdrawn, and if there is a pod of that name elsewhere, the two would
/// take that port from each other.
pub const FORCED: Duration = Duration::from_secs(2);

/// What the kernel says about one pod interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    pub name: SmolStr,
    /// The host end exists.
    pub device: bool,
    /// The pod's namespace exists; `None` = its path is not recorded.
    pub netns: Option<bool>,
}

impl Suspect {
    /// By what the kernel says.
    pub fn seems_to_run(&self) -> bool {
        self.device && self.netns != Some(false)
    }
}

/// A host end in the kernel, with the pod that its alias names.
pub type Device = (SmolStr, Identity);

/// What a look at the kernel found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// One for each interface that was asked about.
    pub suspects: Vec<Suspect>,
    /// All host ends of pods, whether OVS has them or not.
    pub devices: Vec<Device>,
}

/// Asks the kernel about each interface. If the kernel cannot be asked, nothing is found.
pub fn look(interfaces: Vec<(SmolStr, Option<String>)>) -> Found {
    let mut socket = match Socket::open() {
        Ok(socket) => socket,
        Err(error) => {
            debug!("{error}");
            return Found::default();
        }
    };
    let suspects = interfaces
        .into_iter()
        .filter_map(|(name, netns)| {
            let device = linux::device_exists(&mut socket, &name).ok()?;
            let netns = match netns.as_deref() {
                None | Some("") => None,
                Some(path) => match NetNs::open(path) {
                    Ok(_) => Some(true),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => Some(false),
                    // Not allowed to look is not the same as gone.
                    Err(_) => None,
                },
            };
            Some(Suspect {
                name,
                device,
                netns,
            })
        })
        .collect();
    Found {
        suspects,
        devices: linux::pod_devices(&mut socket).unwrap_or_default(),
    }
}

/// Is the port a leftover? `known`: the API server has the pod on this node; `outlasted`: it has not had it for as long
/// as patience ([`PATIENCE`], [`FORCED`]) lasts.
pub fn judge(suspect: &Suspect, known: bool, outlasted: bool) -> Option<&'static str> {
    match (suspect.device, suspect.netns, known) {
        // The sandbox is gone, whatever the pod's object says: a restarted pod has another sandbox.
        (false, Some(false) | None, _) => Some("its device and network namespace are gone"),
        (_, Some(false), false) => Some("the pod and its network namespace are gone"),
        (false, Some(true), false) => Some("the pod and its device are gone"),
        (true, _, false) if outlasted => Some("the pod has been gone for a while"),
        _ => None,
    }
}

/// Deletes the devices.
pub fn remove(names: &BTreeSet<SmolStr>) -> Result<(), KernelError> {
    let mut socket = Socket::open().map_err(|source| KernelError::Netlink {
        what: "netlink".into(),
        source,
    })?;
    for name in names {
        linux::remove_device(&mut socket, name)?;
    }
    Ok(())
}

/// Host ends that an ADD or DEL works on at this moment; counted, since a DEL may wait for an ADD.
#[derive(Debug, Clone, Default)]
pub struct Busy(Arc<Mutex<BTreeMap<SmolStr, usize>>>);

impl Busy {
    pub fn enter(&self, name: &SmolStr) -> BusyGuard {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *names.entry(name.clone()).or_default() += 1;
        BusyGuard {
            busy: self.clone(),
            name: name.clone(),
        }
    }

    pub fn names(&self) -> BTreeSet<SmolStr> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.keys().cloned().collect()
    }
}

/// Ends the work on drop.
#[derive(Debug)]
pub struct BusyGuard {
    busy: Busy,
    name: SmolStr,
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        let mut names = self.busy.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = names.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                names.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspect(device: bool, netns: Option<bool>) -> Suspect {
        Suspect {
            name: "x_h".into(),
            device,
            netns,
        }
    }

    #[test]
    fn a_running_pod_is_never_touched() {
        assert_eq!(judge(&suspect(true, Some(true)), true, true), None);
        assert_eq!(judge(&suspect(true, None), true, true), None);
        // Its device vanished, its namespace did not: the kubelet decides.
        assert_eq!(judge(&suspect(false, Some(true)), true, true), None);
    }

    #[test]
    fn what_is_gone_goes() {
        assert!(judge(&suspect(false, Some(false)), true, false).is_some());
        assert!(judge(&suspect(false, None), false, false).is_some());
        assert!(judge(&suspect(true, Some(false)), false, false).is_some());
        assert!(judge(&suspect(false, Some(true)), false, false).is_some());
        // Alive by all signs but the API server's: with patience.
        assert_eq!(judge(&suspect(true, Some(true)), false, false), None);
        assert!(judge(&suspect(true, Some(true)), false, true).is_some());
    }

    #[test]
    fn busy_counts() {
        let busy = Busy::default();
        let name = SmolStr::new("a_h");
        let first = busy.enter(&name);
        let second = busy.enter(&name);
        drop(first);
        assert!(busy.names().contains(&name));
        drop(second);
        assert!(busy.names().is_empty());
    }
}
