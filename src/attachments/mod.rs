//! The engine: all that is known of pods on this node, and all that is done to them. The plugin, the command line and
//! the agent are three doors to it.
//!
//! | file             | what it is                                                                           |
//! |------------------|--------------------------------------------------------------------------------------|
//! | [`claim`]        | where an attachment's addresses come from: the store, or a [`delegate`]               |
//! | [`allocation`]   | what an attachment was given, and what the conf says of it                             |
//! | `node_addresses` | which addresses no pod may have, because the node or its router has them               |
//! | [`describe`]     | a conf and addresses become the description of an attachment                          |
//! | [`set_up`]       | makes the kernel what the attachment and its node need                                |
//! | [`check`]        | compares record and kernel                                                            |
//! | [`teardown`]     | the one order in which all that an attachment has goes: DEL, undo, GC, the dead       |
//! | [`gc`]           | finds what the runtime does not name as valid, and tears it down                      |
//! | [`reclaim`]      | finds the dead, and tears them down                                                   |
//! | [`liveness`]     | whether a recorded attachment can still be using its addresses                        |
//! | [`pod_rules`]    | what records say that the nftables table must hold                                    |
//! | [`pod_policy`]   | the same of the table of NetworkPolicies                                              |
//! | [`take_up`]      | gives running pods a record again whose record is lost                                |
//! | `imported`       | takes down what another plugin made                                                   |
//! | [`node`]         | the node's own part of a network, and what is asked of the node                       |
//! | [`networks`]     | which networks this node has, from its conflists and stores                           |
//! | [`node_view`]    | the node for whoever looks at many attachments at once                                |
//! | [`judged`]       | every attachment of a store, each with whether it lives                               |
//! | [`readiness`]    | whether the next ADD can succeed                                                      |
//! | [`uninstall`]    | removes all that ferrule made on this node                                            |
//! | [`static_peers`] | routes to the peers that a conf lists                                                 |
//! | [`error_codes`]  | which error has which code                                                            |
//! | [`timing`]       | the steps of a command: how long each took, what is waited for, the line in the log   |
//!
//! The store's lock is never held across netlink or another program. No two of these files import each other, nor in a
//! circle.

pub mod allocation;
pub mod attached_pods;
pub mod check;
pub mod claim;
pub mod conf_file;
pub mod delegate;
pub mod describe;
pub mod error_codes;
pub mod gc;
mod imported;
pub mod judged;
pub mod liveness;
pub mod networks;
pub mod node;
mod node_addresses;
pub mod node_view;
pub mod pod_policy;
pub mod pod_repair;
pub mod pod_rules;
pub mod readiness;
pub mod reclaim;
pub mod set_up;
pub mod static_peers;
pub mod take_up;
pub mod teardown;
pub mod timing;
pub mod uninstall;

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

/// How long taking an ADD back may take, after that.
pub const UNDO_DEADLINE: Duration = Duration::from_secs(15);

/// How long another IPAM plugin may take for one command.
pub const DELEGATE_DEADLINE: Duration = Duration::from_secs(10);

/// How long to wait for the store's lock, which nobody holds for more than a millisecond.
pub const LOCK_DEADLINE: Duration = Duration::from_secs(5);

/// How long to wait for another command on the same attachment.
pub const HOLD_DEADLINE: Duration = Duration::from_secs(15);

/// Runs a command to its end. One thread is enough: it waits for the kernel, and the kernel answers in order.
///
/// # Errors
/// The command's own; code 5 where no event loop can be had.
pub fn block_on<T>(command: impl Future<Output = Result<T, CniError>>) -> Result<T, CniError> {
    run_in(tokio::runtime::Builder::new_current_thread().enable_all(), command)
}

/// [`block_on`] for a command that executes no other plugin: netlink answers at once, so all that may be waited for is
/// time. It opens no descriptors; seven and a signal handler cost an ADD some 40 µs.
///
/// # Errors
/// As [`block_on`].
pub fn block_on_kernel<T>(command: impl Future<Output = Result<T, CniError>>) -> Result<T, CniError> {
    run_in(tokio::runtime::Builder::new_current_thread().enable_time(), command)
}

fn run_in<T>(
    event_loop: &mut tokio::runtime::Builder,
    command: impl Future<Output = Result<T, CniError>>,
) -> Result<T, CniError> {
    let runtime = event_loop.build().map_err(|error| {
        CniError::new(Code::Io, "cannot start: no event loop can be had").with_details(error.to_string())
    })?;
    runtime.block_on(command)
}
