//! Which address is next. Pure: the state of an address is asked through a function.

use std::net::IpAddr;

use crate::config::range::{RangeSet, Standing};
use crate::store::error::StoreError;

/// What the store knows of an address that a set hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It has no record.
    Free,
    /// It was freed a moment ago.
    CoolingDown(Age),
    /// It has a record, or something else stands in that place.
    Held,
}

/// How long ago an address was freed; what is longer ago is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Age {
    /// Freed within the current bucket of time.
    Recent,
    /// Freed within the bucket before.
    Older,
}

/// What came of looking for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// This one.
    Take(IpAddr),
    /// Every address of the set is held.
    Exhausted,
    /// So many were tried that another way of looking is cheaper.
    GaveUp,
}

/// Chooses the first free address after `last`, going round; or, if none is free, the one that was
/// freed longest ago. Asks for the state of at most `tries` addresses.
pub(super) fn choose_address(
    set: &RangeSet,
    last: Option<IpAddr>,
    tries: usize,
    mut state_of: impl FnMut(IpAddr) -> Result<State, StoreError>,
) -> Result<Choice, StoreError> {
    let mut best: Option<(Age, IpAddr)> = None;
    for (tried, address) in set.addresses_after(last).enumerate() {
        if tried == tries {
            return Ok(Choice::GaveUp);
        }
        match state_of(address)? {
            State::Free => return Ok(Choice::Take(address)),
            State::Held => {}
            State::CoolingDown(age) if best.is_none_or(|(most, _)| age > most) => {
                best = Some((age, address));
            }
            State::CoolingDown(_) => {}
        }
    }
    Ok(best.map_or(Choice::Exhausted, |(_, address)| Choice::Take(address)))
}

/// Says for each set which of the requested addresses it is to give, if any. An address that is requested
/// twice is requested once.
///
/// # Errors
/// Names the first address that cannot be had from these sets.
pub(super) fn assign_requested(
    sets: &[RangeSet],
    requested: &[IpAddr],
) -> Result<Vec<Option<IpAddr>>, StoreError> {
    let mut assigned: Vec<Option<IpAddr>> = vec![None; sets.len()];
    for &address in requested {
        let place = sets.iter().zip(&mut assigned).find(|(set, _)| set.hands_out(address));
        match place {
            None => return Err(refusal(sets, address)),
            Some((set, Some(first))) if *first != address => {
                return Err(StoreError::Surplus { first: *first, second: address, set: set.to_string() });
            }
            Some((_, slot)) => *slot = Some(address),
        }
    }
    Ok(assigned)
}

fn refusal(sets: &[RangeSet], address: IpAddr) -> StoreError {
    for set in sets {
        if let Standing::Reserved(role) = set.standing(address) {
            return StoreError::Reserved { address, role };
        }
    }
    let sets = sets.iter().map(RangeSet::to_string).collect::<Vec<_>>().join("; ");
    StoreError::Outside { address, sets }
}
