use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};

use crate::{Family, HasFamily, IpRange, to_u128};

/// A set of addresses of one family, kept as ranges that neither overlap nor touch.
///
/// Every operation on one address or range costs O(log n) in the number of ranges (plus the ranges that it swallows);
/// the number of addresses does not matter. Addresses and ranges of the other family are never members, and inserting
/// or removing one does nothing, so that a mixed list (a dual-stack subnet's exclusions) can be poured into the sets
/// of both families.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RangeSet {
    family: Family,
    /// First address to last address, as numbers.
    ranges: BTreeMap<u128, u128>,
    /// Members, modulo 2¹²⁸: zero stands for all of IPv6 when there is a range.
    count: u128,
}

impl RangeSet {
    /// The empty set.
    pub const fn new(family: Family) -> Self {
        Self {
            family,
            ranges: BTreeMap::new(),
            count: 0,
        }
    }

    /// The set of those ranges that are of this family.
    pub fn from_ranges(family: Family, ranges: impl IntoIterator<Item = IpRange>) -> Self {
        let mut set = Self::new(family);
        for range in ranges {
            set.insert(range);
        }
        set
    }

    /// The family of all members.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many members there are; all 2¹²⁸ of IPv6 count as `u128::MAX`. O(1).
    pub fn count(&self) -> u128 {
        if self.count == 0 && !self.is_empty() {
            u128::MAX
        } else {
            self.count
        }
    }

    /// How many ranges the members form. O(1).
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// Adds an address or a range; whether any of it was new.
    pub fn insert(&mut self, range: impl Into<IpRange>) -> bool {
        let range = range.into();
        if range.family() != self.family {
            return false;
        }
        let (mut first, mut last) = (to_u128(range.first()), to_u128(range.last()));
        let mut absorbed = 0u128;
        // The range before, if it reaches into the new one or touches it.
        if let Some((&f, &l)) = self.ranges.range(..=first).next_back() {
            if l >= last {
                return false;
            }
            if l >= first || l + 1 == first {
                self.ranges.remove(&f);
                absorbed = absorbed.wrapping_add((l - f).wrapping_add(1));
                first = f;
            }
        }
        // Those that begin inside, and the one that touches the end.
        while let Some((&f, &l)) = self.ranges.range(first..=last.saturating_add(1)).next() {
            self.ranges.remove(&f);
            absorbed = absorbed.wrapping_add((l - f).wrapping_add(1));
            last = last.max(l);
        }
        self.ranges.insert(first, last);
        let size = (last - first).wrapping_add(1);
        self.count = self.count.wrapping_sub(absorbed).wrapping_add(size);
        true
    }

    /// Takes out an address or a range; whether any of it was a member.
    pub fn remove(&mut self, range: impl Into<IpRange>) -> bool {
        let range = range.into();
        if range.family() != self.family {
            return false;
        }
        let (first, last) = (to_u128(range.first()), to_u128(range.last()));
        let mut removed = 0u128;
        let mut any = false;
        if let Some((&f, &l)) = self.ranges.range(..first).next_back()
            && l >= first
        {
            any = true;
            self.ranges.insert(f, first - 1);
            if l > last {
                self.ranges.insert(last + 1, l);
            }
            removed = (l.min(last) - first).wrapping_add(1);
        }
        while let Some((&f, &l)) = self.ranges.range(first..=last).next() {
            any = true;
            self.ranges.remove(&f);
            if l > last {
                self.ranges.insert(last + 1, l);
            }
            removed = removed.wrapping_add((l.min(last) - f).wrapping_add(1));
        }
        self.count = self.count.wrapping_sub(removed);
        any
    }

    /// Whether the address is a member.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.range_of(address).is_some()
    }

    /// The range of members around this one.
    pub fn range_of(&self, address: IpAddr) -> Option<IpRange> {
        if address.family() != self.family {
            return None;
        }
        let number = to_u128(address);
        let (&first, &last) = self.ranges.range(..=number).next_back()?;
        (number <= last).then(|| self.range(first, last))
    }

    /// Whether every address of the range is a member.
    pub fn covers(&self, range: IpRange) -> bool {
        self.range_of(range.first())
            .is_some_and(|around| around.contains(range.last()))
    }

    /// Whether any address of the range is a member.
    pub fn overlaps(&self, range: IpRange) -> bool {
        self.first_from(range.first())
            .is_some_and(|address| range.contains(address))
    }

    /// The lowest member.
    pub fn first(&self) -> Option<IpAddr> {
        let (&first, _) = self.ranges.first_key_value()?;
        Some(self.family.address_of(first))
    }

    /// The highest member.
    pub fn last(&self) -> Option<IpAddr> {
        let (_, &last) = self.ranges.last_key_value()?;
        Some(self.family.address_of(last))
    }

    /// The lowest member that is not below the address.
    pub fn first_from(&self, address: IpAddr) -> Option<IpAddr> {
        if self.contains(address) {
            return Some(address);
        }
        if address.family() != self.family {
            return None;
        }
        let (&first, _) = self
            .ranges
            .range((Excluded(to_u128(address)), Unbounded))
            .next()?;
        Some(self.family.address_of(first))
    }

    /// The lowest member that is not in `other`. O(log n) plus the ranges of `other` that lie before it.
    pub fn first_outside(&self, other: &Self) -> Option<IpAddr> {
        let mut candidate = self.first()?;
        while let Some(hole) = other.range_of(candidate) {
            let next = to_u128(hole.last()).checked_add(1)?;
            candidate = self.first_from(self.family.address(next)?)?;
        }
        Some(candidate)
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = IpRange> + ExactSizeIterator {
        self.ranges
            .iter()
            .map(|(&first, &last)| self.range(first, last))
    }

    /// The members one by one, ascending.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.iter().flat_map(IpRange::iter)
    }

    /// The members of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (small, mut all) = if self.ranges.len() < other.ranges.len() {
            (self, other.clone())
        } else {
            (other, self.clone())
        };
        if small.family == all.family {
            for range in small.iter() {
                all.insert(range);
            }
        } else {
            all = self.clone();
        }
        all
    }

    /// The members that are not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        for range in other.iter() {
            rest.remove(range);
        }
        rest
    }

    /// The members that both sets have.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let mut common = Self::new(self.family);
        let (mut left, mut right) = (self.iter().peekable(), other.iter().peekable());
        while let (Some(&l), Some(&r)) = (left.peek(), right.peek()) {
            if let Some(both) = l.intersection(r) {
                common.insert(both);
            }
            if l.last() < r.last() {
                left.next();
            } else {
                right.next();
            }
        }
        common
    }

    /// The ranges of members that lie in the range, cut to it. O(log n) to begin.
    pub fn iter_in(&self, range: IpRange) -> impl Iterator<Item = IpRange> {
        let (first, last) = (to_u128(range.first()), to_u128(range.last()));
        // The one that reaches in from before, if any, is the only one that begins outside.
        let begin = self
            .range_of(range.first())
            .map_or(first, |around| to_u128(around.first()));
        self.ranges
            .range(begin..=last)
            .map(|(&first, &last)| self.range(first, last))
            .filter_map(move |member| member.intersection(range))
    }

    /// The members that lie in the range.
    #[must_use]
    pub fn clip(&self, range: IpRange) -> Self {
        Self::from_ranges(self.family, self.iter_in(range))
    }

    fn range(&self, first: u128, last: u128) -> IpRange {
        IpRange::ordered(self.family.address_of(first), self.family.address_of(last))
    }
}

impl Extend<IpRange> for RangeSet {
    fn extend<T: IntoIterator<Item = IpRange>>(&mut self, ranges: T) {
        for range in ranges {
            self.insert(range);
        }
    }
}

impl Extend<IpAddr> for RangeSet {
    fn extend<T: IntoIterator<Item = IpAddr>>(&mut self, addresses: T) {
        for address in addresses {
            self.insert(address);
        }
    }
}

/// `10.16.0.5,10.16.0.8-10.16.0.20`, as in a Subnet's status (with a dash, unlike `spec.excludeIps`); the empty set is
/// the empty text.
impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}", range.first())?;
            if range.last() != range.first() {
                write!(f, "-{}", range.last())?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RangeSet({}: {self})", self.family)
    }
}
