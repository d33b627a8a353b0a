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
//! A conf of type `loopback` is for [`loopback`], which has its own answer to each of them.
//!
//! Each has a deadline as a whole: what it awaits ends by it, and what blocks the thread by the [`watchdog`].

mod add;
mod check;
mod del;
mod gc;
mod loopback;
mod result;
mod status;
pub mod watchdog;

use std::io::Write;
use std::pin::Pin;
use std::time::Duration;

use crate::attachments::timing::{self, Progress};
use crate::attachments::{self, ADD_DEADLINE, UNDO_DEADLINE};
use crate::cni::env::Command;
use crate::cni::error::CniError;
use crate::cni::request::{Request, version_answer};
use crate::config::loopback::LoopbackConf;
use crate::config::removal::Removal;

/// Runs the command that `request` names. On success, one document or nothing has been written to `stdout`.
///
/// # Errors
/// The answer to give instead. Nothing that this call made remains.
pub fn run(request: &Request, progress: &Progress, stdout: &mut dyn Write) -> Result<(), CniError> {
    let outcome = execute(request, progress, stdout);
    timing::tell(request, &progress.steps, &outcome);
    outcome
}

/// How long a command may take before it is given up. Of an ADD, what it made is taken back after that.
pub fn deadline(command: Command) -> Duration {
    match command {
        Command::Add => ADD_DEADLINE,
        Command::Del | Command::Gc => Duration::from_secs(60),
        Command::Check => Duration::from_secs(30),
        Command::Status | Command::Version => Duration::from_secs(10),
    }
}

fn execute(request: &Request, progress: &Progress, stdout: &mut dyn Write) -> Result<(), CniError> {
    let (command, steps) = (request.environment.command, &progress.steps);
    steps.begin_deadline(deadline(command));
    if LoopbackConf::is_meant(&request.conf) {
        return attachments::block_on_kernel(loopback::run(request, stdout));
    }
    // Boxed, so that no frame has room for all of them.
    let outcome: Pin<Box<dyn Future<Output = Result<(), CniError>> + '_>> = match command {
        Command::Version => return result::write(stdout, &version_answer(request.conf.version)),
        // What it has claimed must be taken back: it keeps the time itself.
        Command::Add => Box::pin(add::add(request, progress, stdout)),
        Command::Del => Box::pin(steps.until_deadline("DEL", del::del(request, steps))),
        Command::Check => Box::pin(steps.until_deadline("CHECK", check::check(request, steps))),
        Command::Gc => Box::pin(steps.until_deadline("GC", gc::gc(request, steps))),
        Command::Status => Box::pin(steps.until_deadline("STATUS", status::status(request, steps))),
    };
    block_on(request, outcome)
}

/// Removes what an ADD made that came to an end it did not see itself: a panic.
///
/// # Errors
/// As DEL.
pub fn take_back(request: &Request) -> Result<(), CniError> {
    let steps = timing::Steps::default();
    steps.begin_deadline(UNDO_DEADLINE);
    block_on(request, steps.until_deadline("the undo of ADD", del::del(request, &steps)))
}

/// With what another IPAM plugin is executed by only where the conf names one.
fn block_on<T>(request: &Request, command: impl Future<Output = Result<T, CniError>>) -> Result<T, CniError> {
    // A conf that cannot be read leads to no plugin.
    let executes_plugin = Removal::read(&request.conf).is_ok_and(|read| read.delegate.is_some());
    match executes_plugin {
        true => attachments::block_on(command),
        false => attachments::block_on_kernel(command),
    }
}
