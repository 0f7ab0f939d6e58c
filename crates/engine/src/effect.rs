//! What the engine asks its adapters to do.

use api::view::PodKey;
use jiff::Timestamp;
use ovsdb::wire::Operation;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::event::{Kind, Object, ObjectKey};

/// Names one effect of one engine; its result comes back under the same id.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct EffectId(pub u64);

impl std::fmt::Display for EffectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Part of an object that a patch goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// The object itself.
    Main,
    /// Its status subresource.
    Status,
}

/// One write to the API server. At most one is under way for each object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KubeWrite {
    /// Create; an object of that name must not exist.
    Create(Object),
    /// JSON merge patch (RFC 7386) with field manager `kube-ovn-controller`. `uid` and `resourceVersion` stand in
    /// `body.metadata` as preconditions where the writer must have seen the newest version.
    Patch {
        /// The object.
        key: ObjectKey,
        /// Which part of it.
        part: Part,
        /// The patch.
        body: serde_json::Value,
    },
    /// Delete, if uid and resourceVersion are still these.
    Delete {
        /// The object.
        key: ObjectKey,
        /// Precondition.
        uid: SmolStr,
        /// Precondition; `None` where a newer version may go as well.
        resource_version: Option<SmolStr>,
    },
}

impl KubeWrite {
    /// The object that is written.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Create(object) => object.key(),
            Self::Patch { key, .. } | Self::Delete { key, .. } => key.clone(),
        }
    }

    /// `create`, `patch`, `patch_status` or `delete`: the metric label.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Patch {
                part: Part::Main, ..
            } => "patch",
            Self::Patch {
                part: Part::Status, ..
            } => "patch_status",
            Self::Delete { .. } => "delete",
        }
    }
}

/// Why a northbound transaction is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CommitKind {
    /// Takes a new leader epoch.
    Epoch,
    /// Brings rows to their desired state.
    Flush,
    /// Tags or removes chassis (southbound).
    Chassis,
}

impl CommitKind {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::Flush => "flush",
            Self::Chassis => "chassis",
        }
    }
}

/// An event for the user (`kubectl describe`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Notice {
    /// The object it is about.
    pub object: ObjectKey,
    /// Its uid, if known.
    pub uid: SmolStr,
    /// `Warning` rather than `Normal`.
    pub warning: bool,
    /// Upstream's reason words where there is one.
    pub reason: SmolStr,
    /// One sentence: what is wrong, with what, what to do.
    pub message: String,
}

/// Something of the Go implementation that is in use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InUse {
    /// A resource (`vlans.kubeovn.io`), or a field of one (`private of subnets.kubeovn.io`).
    pub what: SmolStr,
    /// Objects.
    pub count: usize,
    /// One of them.
    pub example: SmolStr,
}

impl std::fmt::Display for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            what,
            count,
            example,
        } = self;
        if *count == 1 {
            write!(f, "{what} ({example})")
        } else {
            write!(f, "{what} ({count} objects, such as {example})")
        }
    }
}

/// One thing to do. Effects of one step are independent of each other: what must happen later is asked for later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Write to the API server; answer with [`crate::Event::KubeDone`].
    Kube {
        /// Id of the answer.
        id: EffectId,
        /// What to write.
        write: KubeWrite,
    },
    /// Commit to the northbound database; answer with [`crate::Event::Committed`] *after* the deltas.
    Nb {
        /// Id of the answer.
        id: EffectId,
        /// Why.
        kind: CommitKind,
        /// The transaction; the first operation of a flush is the fence.
        ops: Vec<Operation>,
    },
    /// Commit to the southbound database; answer with [`crate::Event::Committed`].
    Sb {
        /// Id of the answer.
        id: EffectId,
        /// The transaction.
        ops: Vec<Operation>,
    },
    /// List the objects of this kind anew, by a request that is sent from now on and answered with what is stored at that
    /// moment (no `resourceVersion` in it), and watch on from there. [`crate::KubeEvent::Asked`] goes before the list.
    List {
        /// Id of the list.
        id: EffectId,
        /// What to list.
        kind: Kind,
    },
    /// Look which kinds of the Go implementation are in use that this version does not have; answer with
    /// [`crate::Event::Inventory`].
    Inventory {
        /// Id of the answer.
        id: EffectId,
    },
    /// Tell the user. No answer.
    Notice(Notice),
    /// Call again with [`crate::Event::Tick`] at this time; replaces the earlier wish.
    Wake(Timestamp),
    /// Something worth a log line. No answer.
    Log(LogLine),
}

/// A typed log line: the adapter prints it with its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogLine {
    /// Every barrier has fallen.
    Ready {
        /// Restored leases.
        leases: usize,
    },
    /// The epoch was taken; this engine writes from now on.
    Leading {
        /// The epoch.
        epoch: u64,
    },
    /// Something is held back until the watches have listed what was there when the epoch was taken.
    CatchingUp {
        /// What is listed anew.
        kinds: Vec<SmolStr>,
    },
    /// This engine writes no more.
    Stopped {
        /// Why.
        why: String,
    },
    /// A pod got everything that it needs.
    PodReady {
        /// The pod.
        pod: PodKey,
        /// Its addresses.
        addresses: SmolStr,
        /// Its subnet.
        subnet: SmolStr,
    },
    /// A port and its address are gone.
    PortGone {
        /// The port.
        port: SmolStr,
    },
    /// A write failed; it is tried again at `retry_in_ms`.
    WriteFailed {
        /// What.
        write: String,
        /// How.
        error: String,
        /// Milliseconds until the next try.
        retry_in_ms: u64,
    },
    /// A unit's rows were refused by the database.
    Parked {
        /// The unit.
        unit: String,
        /// The server's words.
        error: String,
    },
    /// A flush would delete too much and waits for consent.
    Held {
        /// What would be deleted.
        what: String,
    },
    /// The network of the Go implementation is not taken over without consent.
    TakeoverRefused {
        /// What is in use and not there yet.
        in_use: String,
    },
    /// Something that an operator should look at.
    Warning {
        /// What.
        text: String,
    },
}
