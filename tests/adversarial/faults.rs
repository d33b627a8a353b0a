//! System-call faults: for every system call of a command, make it fail, kill the process there, or corrupt the kernel's
//! reply.
//!
//! | fault                                                  | where                                               |
//! |--------------------------------------------------------|-----------------------------------------------------|
//! | the call fails                                         | each call, with an error that it can have           |
//! | the process is killed                                  | before each call that changes something             |
//! | the kernel's reply is an error, an old one, or torn    | each reply over netlink                             |
//!
//! What must hold all the same:
//!
//! - stdout is one JSON document, or nothing;
//! - an ADD that reports failure has left nothing, and one that reports success has made everything;
//! - the next ADD of the same container makes everything, and a DEL straight after a killed ADD removes everything;
//! - a DEL, or a GC, removes everything, or reports an error, and then the next one removes everything. A pod beside it
//!   keeps all it has;
//! - CHECK and STATUS change nothing.
//!
//! Everything, and nothing, are what `ip`, `nft`, `tc` and the like show after an ADD, and a DEL, without a fault.
//!
//! Each test prints how many faults it injected. `FERRULE_FAULTS=all` injects every fault at every call;
//! `FERRULE_FAULT=<part of a point's name>` only those. Each defect found that way has a test in `regressions`.

mod add;
mod check_and_status;
mod del;
mod host;
mod points;
mod regressions;
mod strace;

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use host::Host;
use points::Point;

/// How many hosts are broken at the same time: more than there are cores, since most of a DEL is waiting.
const HOSTS: usize = 3;

/// Breaks each of `points`, on several hosts at a time. `consequences` breaks one and complains of what is wrong then;
/// `Ok(false)` if the command never came to that point.
#[expect(clippy::print_stderr, reason = "how much was broken is what the test has to tell")]
fn break_each(
    what: &str,
    hosts: &[Host],
    points: &[Point],
    consequences: impl Fn(&Host, &Point) -> Result<bool, String> + Sync,
) {
    let (next, broken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let complaints = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for host in hosts {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = panic::catch_unwind(AssertUnwindSafe(|| consequences(host, point)));
                    match outcome.unwrap_or_else(|panic| Err(words_of(&*panic))) {
                        Ok(was_reached) => {
                            broken.fetch_add(usize::from(was_reached), Ordering::Relaxed);
                        }
                        Err(complaint) => {
                            complaints.lock().unwrap().push(format!("* {point}\n    {complaint}"));
                        }
                    }
                }
            });
        }
    });
    let complaints = complaints.into_inner().unwrap();
    let broken = broken.into_inner() + complaints.len();
    eprintln!("{what}: broken at {broken} of {} points", points.len());
    assert!(complaints.is_empty(), "{} of {broken} points:\n{}", complaints.len(), complaints.join("\n"));
    // A run that goes another way, because it is another second, does not come to a few of them.
    assert!(broken * 10 > points.len() * 9, "{what}: only {broken} of {} points were reached", points.len());
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
