//! ipBlocks with exceptions as intervals: disjoint, not adjacent, in order. The kernel's interval sets get nothing
//! else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use serde::Serialize;

use crate::policy::object::IpBlock;
use crate::policy::selector::Invalid;

/// Addresses of both families.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Blocks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Blocks {
    /// Reads the ipBlock that stands at `field`, as the API server does: host bits and leading zeros do not matter, and
    /// each exception is a part of the block and not the whole.
    pub fn compile(written: &IpBlock, field: &str) -> Result<Self, Invalid> {
        let cidr = Cidr::read(&written.cidr, || format!("{field}.cidr"))?;
        let mut except = Vec::new();
        for (n, text) in written.except.iter().enumerate() {
            let path = || format!("{field}.except[{n}]");
            let exception = Cidr::read(text, path)?;
            if !cidr.strictly_contains(&exception) {
                return Err(Invalid::new(
                    path(),
                    format!("{text:?} is not a strict subset of {:?}", written.cidr),
                ));
            }
            except.push((exception.first, exception.last));
        }
        let left = subtract((cidr.first, cidr.last), merge(except));
        Ok(if cidr.is_v4 {
            Self { v4: left.into_iter().map(|(a, b)| (low32(a), low32(b))).collect(), v6: Vec::new() }
        } else {
            Self { v4: Vec::new(), v6: left }
        })
    }

    /// What is in one of them.
    pub fn union<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for blocks in all {
            v4.extend(blocks.v4.iter().map(|(a, b)| (u128::from(*a), u128::from(*b))));
            v6.extend_from_slice(&blocks.v6);
        }
        let v4 = merge(v4).into_iter().map(|(a, b)| (low32(a), low32(b))).collect();
        Self { v4, v6: merge(v6) }
    }

    /// Whether there is no address in them.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether an address is in them.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(it) => holds(&self.v4, it.to_bits()),
            IpAddr::V6(it) => holds(&self.v6, it.to_bits()),
        }
    }

    /// The IPv4 part, in order.
    pub fn v4(&self) -> Vec<RangeInclusive<IpAddr>> {
        let address = |bits| IpAddr::V4(Ipv4Addr::from_bits(bits));
        self.v4.iter().map(|(first, last)| address(*first)..=address(*last)).collect()
    }

    /// The IPv6 part, in order.
    pub fn v6(&self) -> Vec<RangeInclusive<IpAddr>> {
        let address = |bits| IpAddr::V6(Ipv6Addr::from_bits(bits));
        self.v6.iter().map(|(first, last)| address(*first)..=address(*last)).collect()
    }
}

fn holds<T: Ord + Copy>(intervals: &[(T, T)], address: T) -> bool {
    let after = intervals.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).and_then(|at| intervals.get(at)).is_some_and(|(_, last)| address <= *last)
}

/// In order, and what overlaps or touches is one.
fn merge(mut intervals: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    intervals.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(intervals.len());
    for (first, last) in intervals {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// What is left of an interval without those, which are in order, disjoint and inside it.
fn subtract((first, last): (u128, u128), without: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    let mut left = Vec::with_capacity(without.len() + 1);
    let mut next = Some(first);
    for (from, to) in without {
        if let Some(begin) = next.filter(|begin| *begin < from) {
            left.push((begin, from - 1));
        }
        next = to.checked_add(1);
    }
    left.extend(next.filter(|begin| *begin <= last).map(|begin| (begin, last)));
    left
}

/// Of bits that were an IPv4 address.
fn low32(bits: u128) -> u32 {
    u32::try_from(bits & u128::from(u32::MAX)).unwrap_or(u32::MAX)
}

struct Cidr {
    is_v4: bool,
    first: u128,
    last: u128,
}

impl Cidr {
    fn read(text: &str, field: impl Fn() -> String) -> Result<Self, Invalid> {
        Self::parse(text).ok_or_else(|| {
            Invalid::new(field(), format!("{text:?} is not a CIDR such as 10.0.0.0/8 or fd00::/64"))
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        if length.is_empty() || length.len() > 3 || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let length: u32 = length.parse().ok()?;
        let (is_v4, bits, length) = match (sloppy_v4(address), address.parse::<Ipv6Addr>()) {
            (Some(v4), _) if length <= 32 => (true, v4.to_bits(), length),
            // To Go, and so to the API server, ::ffff:10.0.0.0/104 is 10.0.0.0/8.
            (None, Ok(v6)) if (96..=128).contains(&length) && v6.to_ipv4_mapped().is_some() => {
                (true, v6.to_ipv4_mapped()?.to_bits(), length - 96)
            }
            (None, Ok(v6)) if length <= 128 => {
                let host = u128::MAX.checked_shr(length).unwrap_or(0);
                return Some(Self { is_v4: false, first: v6.to_bits() & !host, last: v6.to_bits() | host });
            }
            _ => return None,
        };
        let host = u32::MAX.checked_shr(length).unwrap_or(0);
        Some(Self { is_v4, first: u128::from(bits & !host), last: u128::from(bits | host) })
    }

    fn strictly_contains(&self, other: &Self) -> bool {
        let inside = self.first <= other.first && other.last <= self.last;
        self.is_v4 == other.is_v4 && inside && (self.first, self.last) != (other.first, other.last)
    }
}

/// An IPv4 address whose numbers may have leading zeros, and are decimal then: as the API server accepts them.
fn sloppy_v4(text: &str) -> Option<Ipv4Addr> {
    let mut bytes = [0_u8; 4];
    let mut parts = text.split('.');
    for byte in &mut bytes {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *byte = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then(|| Ipv4Addr::from(bytes))
}

#[cfg(test)]
mod tests;
