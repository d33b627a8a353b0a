//! The engine: all that is known of pods on this node, and all that is done to them. The plugin, the command line and
//! the agent are three doors to it.
//!
//! | file             | what it is                                                                           |
//! |------------------|--------------------------------------------------------------------------------------|
//! | [`claim`]        | where an attachment's addresses come from: the store, or a [`delegate`]               |
//! | [`describe`]     | a conf and addresses become the description of an attachment                          |
//! | [`pod_rules`]    | what records say that the nftables table must hold                                    |
//! | [`liveness`]     | whether a recorded attachment can still be using its addresses                        |
//! | [`reclaim`]      | the dead: finds them, takes down what is left, releases what they hold                |
//! | [`imported`]     | takes down what another plugin made                                                   |
//! | [`node`]         | the node's own part of a network                                                      |
//! | [`static_peers`] | routes to the peers that a conf lists                                                 |
//! | [`error_codes`]  | which error has which code                                                            |
//! | [`timing`]       | how long each step took, and the line in the log                                      |
//!
//! The store's lock is never held across netlink or another program.

pub mod claim;
pub mod delegate;
pub mod describe;
pub mod error_codes;
pub mod imported;
pub mod liveness;
pub mod node;
pub mod pod_rules;
pub mod reclaim;
pub mod static_peers;
pub mod timing;

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use crate::cni::error::{CniError, Code};

/// How long an ADD may take before it is taken back. Kubelet gives a sandbox minutes, so that a runtime that is
/// answered by then can try again (cri-o#2984).
///
/// An ADD takes milliseconds; what can make it wait is the RTNL lock, which every change of every link on the node
/// goes through. On two cores with hundreds of namespaces coming and going, single changes were seen to wait for
/// six seconds and whole ADDs for more than ten. Taking one back needs the lock as well, so giving up early makes
/// such a queue longer, not shorter.
pub const ADD_DEADLINE: Duration = Duration::from_secs(30);

/// How long another IPAM plugin may take for one command.
pub const DELEGATE_DEADLINE: Duration = Duration::from_secs(10);

/// How long to wait for the store's lock, which nobody holds for more than a millisecond.
pub const LOCK_DEADLINE: Duration = Duration::from_secs(5);

/// How long to wait for another command on the same attachment.
pub const HOLD_DEADLINE: Duration = Duration::from_secs(15);

/// How far a command came; what must be known after a panic, and what the log tells.
#[derive(Debug, Default)]
pub struct Progress {
    claimed: Cell<bool>,
    /// What is told of it in the log.
    pub steps: timing::Steps,
}

impl Progress {
    /// This ADD has made something of its own.
    pub fn mark_claimed(&self) {
        self.claimed.set(true);
    }

    /// Whether this ADD has made something of its own. False as long as the attachment found may be
    /// somebody else's.
    pub fn has_claimed(&self) -> bool {
        self.claimed.get()
    }
}

/// Runs a command to its end. One thread is enough: it waits for the kernel, and the kernel answers in order.
///
/// # Errors
/// The command's own; code 5 where no event loop can be had.
pub fn block_on<T>(command: impl Future<Output = Result<T, CniError>>) -> Result<T, CniError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        CniError::new(Code::Io, "cannot start: no event loop can be had").with_details(error.to_string())
    })?;
    runtime.block_on(command)
}
