//! The commands of the protocol, each a verb over what `attachments` knows.
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
//! The store's lock is never held across netlink or another program.

mod add;
pub mod check;
mod del;
mod gc;
mod result;
mod status;

use std::io::Write;

use crate::attachments::{Progress, block_on, timing};
use crate::cni::env::Command;
use crate::cni::error::CniError;
use crate::cni::request::{Request, version_answer};

/// Runs the command that `request` names. On success, one document or nothing has been written to `stdout`.
///
/// # Errors
/// The answer to give instead. Nothing that this call made remains.
pub fn run(request: &Request, progress: &Progress, stdout: &mut dyn Write) -> Result<(), CniError> {
    let outcome = execute(request, progress, stdout);
    timing::tell(request, &progress.steps, &outcome);
    outcome
}

fn execute(request: &Request, progress: &Progress, stdout: &mut dyn Write) -> Result<(), CniError> {
    match request.environment.command {
        Command::Version => result::write(stdout, &version_answer(request.conf.version)),
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
