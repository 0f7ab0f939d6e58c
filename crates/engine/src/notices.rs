//! What users are told: once for each new problem, again only after it had gone away.

use std::collections::{BTreeMap, BTreeSet};

use fabric::Unit;
use smol_str::SmolStr;

use crate::effect::Notice;

/// Where a problem comes from; replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A unit's compilation.
    Unit(Unit),
    /// The allocation for a port.
    Port(SmolStr),
    /// A refused write or transaction.
    Writes(String),
    /// The brakes.
    Brakes,
}

#[derive(Debug, Default)]
pub(crate) struct Notices {
    /// What holds now; written by `set`.
    current: BTreeMap<Source, BTreeSet<Notice>>,
    /// Not yet told; filled by `set`, emptied by `take`.
    untold: BTreeSet<Notice>,
}

impl Notices {
    /// Replaces what `source` says.
    pub(crate) fn set(&mut self, source: Source, notices: BTreeSet<Notice>) {
        let before = self.current.remove(&source).unwrap_or_default();
        for gone in before.difference(&notices) {
            self.untold.remove(gone);
        }
        self.untold.extend(notices.difference(&before).cloned());
        if !notices.is_empty() {
            self.current.insert(source, notices);
        }
    }

    /// Refusals are forgotten: another process writes now.
    pub(crate) fn forget_writes(&mut self) {
        let refused = |source: &Source| matches!(source, Source::Writes(_));
        let sources: Vec<Source> = self
            .current
            .keys()
            .filter(|s| refused(s))
            .cloned()
            .collect();
        for source in sources {
            self.set(source, BTreeSet::new());
        }
    }

    /// What is to be told now.
    pub(crate) fn take(&mut self) -> BTreeSet<Notice> {
        std::mem::take(&mut self.untold)
    }

    /// All that holds.
    pub(crate) fn current(&self) -> impl Iterator<Item = &Notice> {
        self.current.values().flatten()
    }
}
