//! The commands of the protocol, each a verb over what `desired` describes and `ipam` remembers.
//!
//! | command | order                                                                                      |
//! |---------|--------------------------------------------------------------------------------------------|
//! | ADD     | conf -> address and record (the intent log) -> kernel -> one write to stdout. A failure at any |
//! |         | step, a closed stdout included, takes back what was made; the address last                 |
//! | DEL     | record -> kernel -> address. Needs the container id and the interface name only           |
//! | CHECK   | record, prevResult and kernel must agree; every difference is named                        |
//! | GC      | DEL for what is known and not valid, then for marked leftovers that nobody knows           |
//! | STATUS  | can the next ADD succeed? Writes nothing                                                   |
//! | VERSION | the versions that we speak                                                                 |
//!
//! The store's lock is never held across netlink or another program (DESIGN, section 5).

pub mod addresses;
pub mod attachment;
pub mod check;
pub mod failure;
pub mod firewall;
mod forward;
pub mod liveness;
pub mod node_state;
pub mod peers;
pub mod reclaim;

mod add;
mod answer;
mod del;
mod gc;
mod imported;
mod journal;
mod status;

use std::cell::Cell;
use std::future::Future;
use std::io::Write;
use std::time::Duration;

use crate::cni::env::Command;
use crate::cni::error::{CniError, Code};
use crate::cni::request::{Request, version_answer};

/// How long an ADD may take before it is taken back. Kubelet gives a sandbox minutes, so that a runtime that is
/// answered by then can try again (cri-o#2984).
///
/// An ADD takes milliseconds; what can make it wait is the RTNL lock, which every change of every link on the node
/// goes through. On two cores with hundreds of namespaces coming and going, single changes were seen to wait for
/// six seconds and whole ADDs for more than ten. Taking one back needs the lock as well, so giving up early makes
/// such a queue longer, not shorter.
const ADD_DEADLINE: Duration = Duration::from_secs(30);

/// How long another IPAM plugin may take for one command.
const DELEGATE_DEADLINE: Duration = Duration::from_secs(10);

/// How long to wait for the store's lock, which nobody holds for more than a millisecond.
pub const LOCK_DEADLINE: Duration = Duration::from_secs(5);

/// How long to wait for another command on the same attachment.
const HOLD_DEADLINE: Duration = Duration::from_secs(15);

/// How far a command came; what must be known after a panic, and what the log tells.
#[derive(Debug, Default)]
pub struct Progress {
    claimed: Cell<bool>,
    /// What is told of it in the log.
    steps: journal::Steps,
}

impl Progress {
    fn mark_claimed(&self) {
        self.claimed.set(true);
    }

    /// Whether this ADD has made something of its own. False as long as the attachment found may be
    /// somebody else's.
    pub fn has_claimed(&self) -> bool {
        self.claimed.get()
    }
}

/// Runs the command that `request` names. On success, one document or nothing has been written to `stdout`.
///
/// # Errors
/// The answer to give instead. Nothing that this call made remains.
pub fn run(request: &Request, progress: &Progress, stdout: &mut dyn Write) -> Result<(), CniError> {
    let outcome = execute(request, progress, stdout);
    journal::tell(request, &progress.steps, &outcome);
    outcome
}

fn execute(request: &Request, progress: &Progress, stdout: &mut dyn Write) -> Result<(), CniError> {
    match request.environment.command {
        Command::Version => answer::write(stdout, &version_answer(request.conf.version)),
        Command::Add => block_on(add::add(request, progress, stdout)),
        Command::Del => block_on(del::del(request, progress)),
        Command::Check => block_on(check::check(request)),
        Command::Gc => block_on(gc::gc(request)),
        Command::Status => block_on(status::status(request)),
    }
}

/// Removes what an ADD made that came to an end it did not see itself: a panic.
///
/// # Errors
/// As DEL.
pub fn take_back(request: &Request) -> Result<(), CniError> {
    block_on(del::del(request, &Progress::default()))
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
