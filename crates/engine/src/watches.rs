//! What the watches have shown: the barrier of the first lists, and the newest version of each object.

use std::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;

use crate::effect::EffectId;
use crate::event::{Kind, Object, ObjectKey};

/// The newest version that was seen of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) uid: SmolStr,
    pub(crate) version: SmolStr,
    /// An answer said that the object is gone; the watch has not said so yet.
    buried: bool,
}

/// One watch.
#[derive(Debug, Default)]
struct Watch {
    /// Whether a list was complete once. Never unset: a watch that starts over does not make us forget.
    listed: bool,
    /// Objects known before the list that is under way; what is left at its end is gone.
    before: Option<BTreeSet<ObjectKey>>,
    /// How what was shown stands to the moment at which this engine took office.
    view: View,
    /// The lowest version that a write of this term was answered with.
    written: Option<u128>,
}

/// Whether a watch has shown everything that was there when the epoch was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum View {
    /// Nobody knows.
    #[default]
    Behind,
    /// A list was asked for since.
    Asked(EffectId),
    /// That list is the one that is under way, or comes next.
    Listing,
    /// It has.
    CaughtUp,
}

/// All watches.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    watches: BTreeMap<Kind, Watch>,
    /// Newest versions, from watches and from answers to our own writes.
    seen: BTreeMap<ObjectKey, Seen>,
}

impl Watches {
    /// A list begins. Versions are forgotten: the list may come from a restored etcd that counts lower. (It is not older
    /// than an answer that came before, since it is asked for only now.)
    pub(crate) fn begin(&mut self, kind: Kind) {
        let range = ObjectKey::cluster(kind, "")..;
        let keys: BTreeSet<_> = self
            .seen
            .range(range)
            .map(|(key, _)| key)
            .take_while(|key| key.kind == kind)
            .cloned()
            .collect();
        for key in &keys {
            self.seen.remove(key);
        }
        // A list that was cut off has not shown what it would have shown: what was known before it counts as well.
        let before = self
            .watches
            .entry(kind)
            .or_default()
            .before
            .get_or_insert_default();
        before.extend(keys);
    }

    /// An object is shown; `false` if something newer is known already.
    pub(crate) fn apply(&mut self, object: &Object) -> bool {
        let key = object.key();
        let version = object.resource_version();
        if let Some(seen) = self.seen.get(&key)
            && (is_older(version, &seen.version) || seen.buried && version == seen.version)
        {
            return false;
        }
        if let Some(before) = self
            .watches
            .get_mut(&key.kind)
            .and_then(|w| w.before.as_mut())
        {
            before.remove(&key);
        }
        self.seen.insert(
            key,
            Seen {
                uid: object.uid().into(),
                version: version.into(),
                buried: false,
            },
        );
        true
    }

    /// An object is gone; `false` if something newer of that name is known.
    pub(crate) fn delete(&mut self, key: &ObjectKey, version: &str) -> bool {
        if self
            .seen
            .get(key)
            .is_some_and(|seen| is_older(version, &seen.version))
        {
            return false;
        }
        self.seen.remove(key);
        if let Some(before) = self
            .watches
            .get_mut(&key.kind)
            .and_then(|w| w.before.as_mut())
        {
            before.remove(key);
        }
        true
    }

    /// The list is complete: returns what was not repeated, and whether this was the first list.
    pub(crate) fn end(&mut self, kind: Kind) -> BTreeSet<ObjectKey> {
        let watch = self.watches.entry(kind).or_default();
        watch.listed = true;
        if watch.view == View::Listing {
            watch.view = View::CaughtUp;
        }
        watch.before.take().unwrap_or_default()
    }

    /// An epoch was taken.
    pub(crate) fn begin_term(&mut self) {
        for watch in self.watches.values_mut() {
            watch.view = View::Behind;
            watch.written = None;
        }
    }

    /// A list of this kind is asked for.
    pub(crate) fn ask(&mut self, kind: Kind, id: EffectId) {
        self.watches.entry(kind).or_default().view = View::Asked(id);
    }

    /// The list that begins next was asked for.
    pub(crate) fn asked(&mut self, kind: Kind, id: EffectId) {
        if let Some(watch) = self.watches.get_mut(&kind)
            && watch.view == View::Asked(id)
        {
            watch.view = View::Listing;
        }
    }

    /// A write of this term made an object have this version.
    pub(crate) fn wrote(&mut self, kind: Kind, version: &str) {
        if let Some(watch) = self.watches.get_mut(&kind)
            && watch.written.is_none()
        {
            watch.written = version.parse().ok();
        }
    }

    /// The watch shows this version. It shows versions of a kind in their order, so all that is older was shown. (A list
    /// goes by names.)
    pub(crate) fn shown(&mut self, kind: Kind, version: &str) {
        if let Some(watch) = self.watches.get_mut(&kind)
            && watch.before.is_none()
            && let (Some(written), Ok(shown)) = (watch.written, version.parse::<u128>())
            && written <= shown
        {
            watch.view = View::CaughtUp;
        }
    }

    /// Kinds whose view may be behind, and nobody has asked for a list.
    pub(crate) fn behind(&self) -> impl Iterator<Item = Kind> + '_ {
        let view = |kind| self.watches.get(&kind).map(|watch| watch.view);
        Kind::ALL
            .into_iter()
            .filter(move |kind| view(*kind) == Some(View::Behind))
    }

    /// Whether everything that was there when the epoch was taken was shown.
    pub(crate) fn have_caught_up(&self) -> bool {
        let mut views = self.watches.values().map(|watch| watch.view);
        views.all(|view| view == View::CaughtUp)
    }

    /// Whether a list of this kind is under way.
    pub(crate) fn is_listing(&self, kind: Kind) -> bool {
        self.watches
            .get(&kind)
            .is_some_and(|watch| watch.before.is_some())
    }

    /// Kinds that were never listed.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Kind> + '_ {
        Kind::ALL
            .into_iter()
            .filter(|kind| !self.watches.get(kind).is_some_and(|w| w.listed))
    }

    /// The newest version of an object that exists.
    pub(crate) fn seen(&self, key: &ObjectKey) -> Option<&Seen> {
        self.seen.get(key).filter(|seen| !seen.buried)
    }

    /// An answer says that the object is gone. What the watch still has to tell about its last days is not believed.
    pub(crate) fn bury(&mut self, key: &ObjectKey, version: Option<&str>) {
        if let Some(seen) = self.seen.get_mut(key) {
            seen.buried = true;
            if let Some(version) = version {
                seen.version = version.into();
            }
        }
    }

    /// All objects of a kind.
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = &ObjectKey> {
        self.seen
            .range(ObjectKey::cluster(kind, "")..)
            .map(|(key, _)| key)
            .take_while(move |key| key.kind == kind)
    }
}

/// Whether version `a` is older than `b`. Kubernetes defines the order of resourceVersions of one kind since 1.35, and
/// etcd has always counted them; versions that are no numbers are taken in the order of their arrival.
fn is_older(a: &str, b: &str) -> bool {
    match (a.parse::<u128>(), b.parse::<u128>()) {
        (Ok(a), Ok(b)) => a < b,
        _ => false,
    }
}
