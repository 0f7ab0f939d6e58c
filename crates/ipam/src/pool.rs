use std::net::IpAddr;

use net::{Family, IpRange, RangeSet};

/// The addresses that may be given out without being named, less those in use.
///
/// A [`Space`](crate::space::Space) has one pool. Named pools (IPPool resources) will be further ones with members of
/// their own.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    /// Not used since the controller started; given out lowest first.
    free: RangeSet,
    /// Given back; turns into `free` as a whole when that has nothing to offer.
    released: RangeSet,
}

impl Pool {
    pub(crate) const fn new(family: Family) -> Self {
        Self {
            free: RangeSet::new(family),
            released: RangeSet::new(family),
        }
    }

    /// Adds addresses that nobody uses.
    pub(crate) fn open(&mut self, range: IpRange) {
        self.free.insert(range);
    }

    /// Takes addresses out for good.
    pub(crate) fn close(&mut self, range: IpRange) {
        self.free.remove(range);
        self.released.remove(range);
    }

    /// The address that the next request gets.
    pub(crate) fn next(&self, skip: Option<&RangeSet>) -> Option<IpAddr> {
        let next = |set: &RangeSet| match skip {
            Some(skip) => set.first_outside(skip),
            None => set.first(),
        };
        next(&self.free).or_else(|| next(&self.released))
    }

    /// Takes the address that [`Pool::next`] named.
    pub(crate) fn take_next(&mut self, address: IpAddr) {
        if !self.free.contains(address) {
            for range in self.released.iter() {
                self.free.insert(range);
            }
            self.released = RangeSet::new(self.free.family());
        }
        self.take(address);
    }

    /// Takes an address that somebody named; not all of them are in the pool.
    pub(crate) fn take(&mut self, address: IpAddr) {
        if !self.free.remove(address) {
            self.released.remove(address);
        }
    }

    /// Takes an open address back.
    pub(crate) fn give_back(&mut self, address: IpAddr) {
        self.released.insert(address);
    }

    pub(crate) fn count(&self) -> u128 {
        self.free.count().saturating_add(self.released.count())
    }

    pub(crate) fn available(&self) -> RangeSet {
        self.free.union(&self.released)
    }
}
