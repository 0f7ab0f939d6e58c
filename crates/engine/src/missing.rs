//! What is not there any more though nobody said that it went.
//!
//! A watch tells of each object that is deleted: that is somebody's will. A list only lacks objects. After an
//! interruption it lacks what was deleted meanwhile, which is little. An API server that comes back empty, or from an
//! old backup, lacks most of what was known; what runs on the nodes still runs. So a list that lacks too much is not
//! believed: the objects are kept as they were last seen, whatever would follow from their loss, until the API server
//! shows them again, says that they are deleted, or somebody agrees.
//!
//! "Too much" is counted over an hour, so that a loss in slices is one loss.
//!
//! A process that starts has known nothing. To it, rows that nobody wants say what was there: see `doubts`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::view::{PodKey, PodView};
use fabric::Unit;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use smol_str::{SmolStr, format_smolstr};

use crate::Engine;
use crate::brakes::HeldDeletes;
use crate::effect::LogLine;
use crate::event::{Kind, ObjectKey};
use crate::lease::signed;

/// Losses within this time count together.
const WINDOW: Duration = Duration::from_hours(1);
/// First size at which deletions that are remembered are looked through for those that are over.
const TOLD: usize = 256;

/// What lists lacked, and what watches told.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// Objects that a list lacked and that count as if they were there.
    kept: BTreeSet<ObjectKey>,
    /// Losses that were believed: when, and how many.
    believed: BTreeMap<Kind, Vec<(Timestamp, usize)>>,
    /// Objects whose deletion was told and whose rows may still be there; in the form of a row's provenance.
    told: Arc<BTreeSet<SmolStr>>,
    /// The size of `told` at which it is looked through.
    limit: usize,
    /// Whether rows that this process never wanted must stay; see `doubts`.
    doubt: bool,
    /// Nodes whose deletion was told and whose chassis may still be there.
    nodes: BTreeSet<SmolStr>,
}

impl Missing {
    pub(crate) fn kept(&self) -> impl Iterator<Item = &ObjectKey> {
        self.kept.iter()
    }

    fn kept_of(&self, kind: Kind) -> usize {
        self.kept.iter().filter(|key| key.kind == kind).count()
    }

    fn believed(&self, kind: Kind) -> usize {
        let losses = self.believed.get(&kind).into_iter().flatten();
        losses.map(|(_, count)| count).sum()
    }

    /// Objects whose deletion was told, as rows name them.
    pub(crate) fn told(&self) -> Arc<BTreeSet<SmolStr>> {
        Arc::clone(&self.told)
    }

    pub(crate) fn is_told(&self, node: &str) -> bool {
        self.nodes.contains(node)
    }

    /// Forgets the deletion of nodes that have no chassis any more.
    pub(crate) fn forget_nodes(&mut self, has_chassis: impl Fn(&str) -> bool) {
        self.nodes.retain(|node| has_chassis(node));
    }
}

/// An object as rows name it (see `fabric`'s fragments); none for kinds that have no rows.
fn provenance(key: &ObjectKey) -> Option<SmolStr> {
    let ObjectKey {
        kind,
        namespace,
        name,
    } = key;
    match kind {
        Kind::Pod => Some(format_smolstr!("Pod/{namespace}/{name}")),
        Kind::Node | Kind::Subnet | Kind::Vpc => Some(format_smolstr!("{}/{name}", kind.name())),
        Kind::Namespace | Kind::Ip => None,
    }
}

fn pod_key(key: &ObjectKey) -> PodKey {
    PodKey::new(key.namespace.clone(), key.name.clone())
}

/// The node that a unit of another object goes with, as rows name it.
fn node_of(unit: &Unit) -> Option<SmolStr> {
    match unit {
        Unit::Gateway { node, .. } => Some(format_smolstr!("Node/{node}")),
        _ => None,
    }
}

/// The object that a row names.
fn object(provenance: &str) -> Option<ObjectKey> {
    let (kind, name) = provenance.split_once('/')?;
    let kind = Kind::ALL.into_iter().find(|k| k.name() == kind)?;
    if kind == Kind::Pod {
        let (namespace, name) = name.split_once('/')?;
        return Some(ObjectKey::pod(namespace, name));
    }
    Some(ObjectKey::cluster(kind, name))
}

impl Engine {
    /// Whether the loss of so many objects of a kind is more than an interruption explains: more than the brakes' share
    /// of them, and not just one or two (of pods, four).
    pub(crate) fn too_many(&self, kind: Kind, lost: usize, of: usize) -> bool {
        let few = match kind {
            Kind::Pod => 4,
            Kind::Namespace => 2,
            Kind::Node | Kind::Subnet | Kind::Vpc => 1,
            // Each is written again from what the allocator holds.
            Kind::Ip => return false,
        };
        let percent = usize::from(self.config.brakes.percent);
        !self.config.allow_mass_delete && lost > few && lost * 100 > of * percent
    }

    /// A new list is complete and does not show these objects, which were known.
    pub(crate) fn end_of_list(&mut self, kind: Kind, gone: BTreeSet<ObjectKey>) {
        // What was about to go, or has nothing to lose, is no loss.
        let (lost, over): (BTreeSet<_>, BTreeSet<_>) =
            gone.into_iter().partition(|key| self.is_in_use(key));
        for key in &over {
            self.gone(key);
        }
        let since = self.now.saturating_sub(signed(WINDOW));
        let since = since.unwrap_or(Timestamp::MIN);
        let believed = self.missing.believed.entry(kind).or_default();
        believed.retain(|(at, _)| *at > since);
        if !lost.is_empty() {
            let believed = self.missing.believed(kind);
            let all = lost.len() + believed + self.missing.kept_of(kind);
            if self.too_many(kind, all, self.in_use(kind) + believed) {
                self.missing.kept.extend(lost);
            } else {
                let losses = self.missing.believed.entry(kind).or_default();
                losses.push((self.now, lost.len()));
                for key in &lost {
                    self.gone(key);
                }
            }
        }
        self.note_missing();
    }

    /// Whether an object counts as there. (A watch that lists has forgotten what it showed before.)
    fn exists(&self, key: &ObjectKey) -> bool {
        let name = key.name.as_str();
        match key.kind {
            Kind::Pod => self.world.pod(&pod_key(key)).is_some(),
            Kind::Node => self.world.node(name).is_some(),
            Kind::Namespace => self.world.namespace(name).is_some(),
            Kind::Subnet => self.subnets.contains_key(name),
            Kind::Vpc => self.vpcs.contains_key(name),
            Kind::Ip => self.ledger.get(name).is_some(),
        }
    }

    /// Whether the network holds something for an object that counts as there, and it is not about to go.
    fn is_in_use(&self, key: &ObjectKey) -> bool {
        let name = key.name.as_str();
        let stays = |meta: &ObjectMeta| meta.deletion_timestamp.is_none();
        match key.kind {
            Kind::Pod => self
                .world
                .pod(&pod_key(key))
                .is_some_and(|pod| self.uses_port(pod)),
            Kind::Node => self.world.node(name).is_some_and(|node| !node.deleting),
            Kind::Namespace => self.world.namespace(name).is_some_and(|n| !n.deleting),
            Kind::Subnet => self.subnets.get(name).is_some_and(|s| stays(&s.metadata)),
            Kind::Vpc => self.vpcs.get(name).is_some_and(|v| stays(&v.metadata)),
            Kind::Ip => true,
        }
    }

    fn uses_port(&self, pod: &PodView) -> bool {
        pod.deletion.is_none() && self.world.wants_port(&pod.key)
    }

    /// How many objects of a kind are in use.
    fn in_use(&self, kind: Kind) -> usize {
        match kind {
            Kind::Pod => self.world.pods().filter(|pod| self.uses_port(pod)).count(),
            Kind::Node => self.world.nodes().filter(|node| !node.deleting).count(),
            Kind::Namespace => self.world.namespaces().filter(|n| !n.deleting).count(),
            Kind::Subnet => self.subnets.len(),
            Kind::Vpc => self.vpcs.len(),
            Kind::Ip => self.ledger.len(),
        }
    }

    /// An object is shown, or its deletion is told: it is not missing.
    pub(crate) fn heard_of(&mut self, key: &ObjectKey, exists: bool) {
        if self.missing.kept.remove(key) {
            self.note_missing();
        }
        // Before the barrier falls nothing follows from it.
        let Some(name) = provenance(key).filter(|_| self.open) else {
            return;
        };
        if exists {
            if self.missing.told.contains(&name) {
                Arc::make_mut(&mut self.missing.told).remove(&name);
            }
        } else {
            Arc::make_mut(&mut self.missing.told).insert(name);
        }
        if key.kind == Kind::Node {
            if exists {
                self.missing.nodes.remove(&key.name);
            } else {
                self.missing.nodes.insert(key.name.clone());
            }
        }
    }

    /// Forgets deletions whose rows are gone. What follows from a deletion is known in the same step.
    pub(crate) fn forget_told(&mut self, always: bool) {
        let size = self.missing.told.len();
        if size == 0 || !always && size < self.missing.limit.max(TOLD) {
            return;
        }
        let mut named: BTreeSet<SmolStr> = self.nb.diff.surplus_objects().into_keys().collect();
        named.extend(self.nb.diff.surplus_units().iter().filter_map(node_of));
        let told = Arc::make_mut(&mut self.missing.told);
        told.retain(|name| named.contains(name));
        self.missing.limit = told.len() * 2;
    }

    /// Units of other objects that are not wanted because a deletion was told.
    pub(crate) fn told_units(&mut self) -> BTreeSet<Unit> {
        if self.missing.told.is_empty() {
            return BTreeSet::new();
        }
        let mut units = self.nb.diff.surplus_units();
        units.retain(|unit| node_of(unit).is_some_and(|node| self.missing.told.contains(&node)));
        units
    }

    /// Tells the brakes what lists lack.
    fn note_missing(&mut self) {
        let held = |kind: Kind| {
            let first = self.missing.kept.iter().find(|key| key.kind == kind)?;
            let rows = self.missing.kept_of(kind);
            Some(HeldDeletes {
                table: SmolStr::new_static(kind.plural()),
                rows,
                owned: self.in_use(kind),
                example: Some(if first.namespace.is_empty() {
                    first.name.to_string()
                } else {
                    format!("{}/{}", first.namespace, first.name)
                }),
            })
        };
        let lists: Vec<HeldDeletes> = Kind::ALL.into_iter().filter_map(held).collect();
        if lists != self.brakes.lists {
            self.brakes.lists = lists;
            self.brakes_changed();
        }
    }

    /// What lists lack is gone: somebody agreed.
    pub(crate) fn believe_lists(&mut self) {
        for key in std::mem::take(&mut self.missing.kept) {
            self.heard_of(&key, false);
            self.gone(&key);
        }
        self.brakes.lists.clear();
    }

    /// This process leads from now on. What it keeps and the database does not hold, the leader before it let go.
    pub(crate) fn settle_missing(&mut self) {
        if self.missing.kept.is_empty() {
            return;
        }
        let objects = self.nb.diff.objects();
        let stays = |key: &ObjectKey| provenance(key).is_some_and(|name| objects.contains(&name));
        let any = self.missing.kept.iter().any(stays);
        let (kept, gone): (BTreeSet<_>, BTreeSet<_>) = std::mem::take(&mut self.missing.kept)
            .into_iter()
            .partition(|key| stays(key) || any && key.kind == Kind::Namespace);
        self.missing.kept = kept;
        for key in &gone {
            self.gone(key);
        }
        self.note_missing();
        if !gone.is_empty() {
            self.log(LogLine::Warning {
                text: format!(
                    "{} objects that a list lacked are gone: nothing of theirs is in the database",
                    gone.len()
                ),
            });
        }
    }

    /// Whether rows that nobody wants and that no unit of this process ever wanted must stay for now: too many of the
    /// objects that they name are neither there nor was their deletion told.
    ///
    /// Such rows of objects that are there stay as well: a port without its Subnet is not wanted either. And it lasts
    /// until there are none: that a few of the objects are there again, Subnets that are made anew among them, says
    /// nothing about the others.
    pub(crate) fn doubts(&mut self) -> bool {
        let mut strangers = self.nb.diff.surplus_objects();
        strangers.retain(|name, is_known| !*is_known && !self.missing.told.contains(name));
        let mut lost: BTreeMap<Kind, usize> = BTreeMap::new();
        for key in strangers.keys().filter_map(|name| object(name)) {
            if !self.exists(&key) {
                *lost.entry(key.kind).or_default() += 1;
            }
        }
        let too_many = lost
            .into_iter()
            .any(|(kind, lost)| self.too_many(kind, lost, self.in_use(kind) + lost));
        self.missing.doubt = !strangers.is_empty() && (self.missing.doubt || too_many);
        self.missing.doubt
    }
}
