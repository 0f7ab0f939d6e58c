//! The gate before a network that the Go implementation has written: whoever lets this version take it over knows what it
//! does not do yet.
//!
//! ```text
//!   lease ──> only the Go implementation has written here? ── no ──────────────────────────> the epoch is taken
//!                    │ yes                                                                        ^
//!                    └─> inventory of the API server, fields of Subnets and Vpcs ── nothing ──────┤
//!                              ^          │ something                                             │
//!                              └─ 30 s ── closed: log, event, /readyz, metric    --accept-unsupported
//! ```
//!
//! While the gate is closed no epoch is taken, so nothing at all is written. It is asked once: a database with an epoch
//! has been taken over already, and a row of ours says the same where somebody has removed the epoch.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use ovn::Owner;
use smol_str::{SmolStr, format_smolstr};

use crate::Engine;
use crate::effect::{Effect, EffectId, InUse, LogLine, Notice};
use crate::event::{Kind, ObjectKey};
use crate::lease::signed;

/// From one look at what is in use to the next.
const AGAIN: Duration = Duration::from_secs(30);
/// The same after an inventory that could not be taken.
const RETRY: Duration = Duration::from_secs(5);

/// Where a candidate stands.
#[derive(Debug, Default)]
enum State {
    /// Nothing was asked yet.
    #[default]
    Unasked,
    /// The inventory is on its way.
    Asked(EffectId),
    /// Nothing is in the way.
    Open,
    /// Looked at again then.
    Closed(Timestamp),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: State,
    /// Why it is closed; kept while it is looked at again. Written by `inventory`.
    in_use: Vec<InUse>,
    /// Why nobody could say what is in use, if so. Written by `inventory`.
    trouble: Option<String>,
}

impl Gate {
    /// What is in use and not there yet, while that keeps the gate closed.
    pub(crate) fn in_use(&self) -> &[InUse] {
        &self.in_use
    }

    /// What a candidate waits for.
    pub(crate) fn waits_for(&self) -> impl Iterator<Item = String> {
        let trouble = self.trouble.iter();
        let trouble = trouble
            .map(|error| format!("a list of what is in use in the network to take over: {error}"));
        let in_use = self.in_use.iter().map(|what| {
            format!("consent (--accept-unsupported) to do without what this version does not have: {what}")
        });
        trouble.chain(in_use)
    }

    pub(crate) const fn next_due(&self) -> Option<Timestamp> {
        match self.state {
            State::Closed(again) => Some(again),
            _ => None,
        }
    }
}

impl Engine {
    /// Whether this candidate may take the epoch. Asks for what must be known for that.
    pub(crate) fn may_take_over(&mut self) -> bool {
        match self.gate.state {
            State::Open => return true,
            State::Asked(_) => return false,
            State::Closed(again) if again > self.now => return false,
            State::Closed(_) | State::Unasked => {}
        }
        if self.config.accept_unsupported || !self.is_anothers_network() {
            self.gate = Gate {
                state: State::Open,
                ..Gate::default()
            };
            return true;
        }
        let id = self.next_id();
        self.gate.state = State::Asked(id);
        self.out.push(Effect::Inventory { id });
        false
    }

    /// Whether the Go implementation has written the database, and never this one.
    fn is_anothers_network(&self) -> bool {
        if self.nb.global.has_epoch() {
            return false;
        }
        let owners = || self.nb.diff.rows().into_iter().map(|(_, _, owner)| owner);
        owners().any(|owner| owner == Owner::Vendor) && owners().all(|owner| owner != Owner::Ours)
    }

    /// What the API server has of kinds that this version does not have, or why nobody knows.
    pub(crate) fn inventory(&mut self, id: EffectId, kinds: Result<Vec<InUse>, String>) {
        if !matches!(self.gate.state, State::Asked(asked) if asked == id) {
            return;
        }
        let pause = match kinds {
            Ok(kinds) => {
                self.gate.trouble = None;
                let in_use: Vec<InUse> = kinds.into_iter().chain(self.fields_in_use()).collect();
                if in_use.is_empty() {
                    self.gate = Gate {
                        state: State::Open,
                        ..Gate::default()
                    };
                    return;
                }
                if in_use != self.gate.in_use {
                    self.gate.in_use = in_use;
                    self.refuse();
                }
                AGAIN
            }
            Err(error) => {
                if self.gate.trouble.as_ref() != Some(&error) {
                    self.log(LogLine::Warning {
                        text: format!(
                            "nobody can say what is in use in the network to take over, nothing is written: {error}"
                        ),
                    });
                }
                self.gate.trouble = Some(error);
                RETRY
            }
        };
        let again = self.now.saturating_add(signed(pause));
        self.gate.state = State::Closed(again.unwrap_or(Timestamp::MAX));
    }

    /// Fields of Subnets and Vpcs that are set and that this version does nothing for.
    fn fields_in_use(&self) -> Vec<InUse> {
        let mut fields: BTreeMap<(Kind, &str), (usize, &SmolStr)> = BTreeMap::new();
        let mut note = |kind, field, name| fields.entry((kind, field)).or_insert((0, name)).0 += 1;
        for (name, subnet) in &self.subnets {
            for field in api::v1::unsupported(&subnet.spec) {
                note(Kind::Subnet, field, name);
            }
            // In a new cluster kube-proxy does what it asks for. Here there are load balancers of the Go implementation
            // in the way, and nobody tells them of new endpoints any more.
            if subnet.spec.enable_lb == Some(true) {
                note(Kind::Subnet, "enableLb", name);
            }
        }
        for (name, vpc) in &self.vpcs {
            for field in api::v1::unsupported(&vpc.spec) {
                note(Kind::Vpc, field, name);
            }
        }
        let in_use = fields.into_iter();
        in_use
            .map(|((kind, field), (count, name))| InUse {
                what: format_smolstr!("{} of {}.kubeovn.io", field, kind.plural()),
                count,
                example: name.clone(),
            })
            .collect()
    }

    /// Says why nothing is written.
    fn refuse(&mut self) {
        let words: Vec<String> = self.gate.in_use.iter().map(ToString::to_string).collect();
        let words = words.join(", ");
        self.log(LogLine::TakeoverRefused {
            in_use: words.clone(),
        });
        let object = ObjectKey::cluster(Kind::Vpc, self.config.fabric.cluster_router.clone());
        let seen = self.watches.seen(&object);
        let notice = Notice {
            uid: seen.map(|seen| seen.uid.clone()).unwrap_or_default(),
            object,
            warning: true,
            reason: SmolStr::new_static("UnsupportedInUse"),
            message: format!(
                "the Go implementation wrote this network, and this version does nothing yet for: {words}. It writes nothing until these are gone or it is started with --accept-unsupported"
            ),
        };
        self.out.push(Effect::Notice(notice));
    }
}
