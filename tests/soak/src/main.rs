//! Soak: a node that is used, and abused, for as long as one likes.
//!
//! | broken on purpose                                     | by                                     |
//! |-------------------------------------------------------|----------------------------------------|
//! | 32 callers at once: ADD, DEL, CHECK, STATUS           | [`caller`]                             |
//! | one call in a hundred is killed, at a random moment   | [`call::Blow::Kill`]                   |
//! | the runtime forgets what it was doing                 | `Caller::abandon`                      |
//! | a pod's namespace goes away, under an ADD or a CHECK  | [`call::Blow::Bereave`]                |
//! | a GC every second, one in four with a list that lacks what is being attached, one in twenty killed | [`beside::collect`] |
//! | the table flushed, routes deleted, forwarding off     | [`beside::vandalise`]                  |
//!
//! Every ten seconds all pause, and [`check`] compares kernel, store and what the runtime knows. [`size`] is another
//! program: what a call costs on a node that is full.
//!
//! `scripts/soak.sh` builds all of it and starts this in namespaces of its own, which end with it: nothing here cleans up.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal; no CNI protocol here"
)]

mod beside;
mod call;
mod caller;
mod check;
mod finish;
mod kernel;
mod node;
mod random;
mod runtime;
mod size;
mod soak;
mod store;
mod system;
mod tally;

use call::Plugin;
use node::Node;
use size::Size;
use soak::Soak;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// Whatever stops the run, in words.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What `scripts/soak.sh` asks for.
struct Order {
    work: PathBuf,
    ferrule: PathBuf,
    duration: Duration,
    callers: u64,
    seed: u64,
    /// Instead of a soak.
    size: Option<Size>,
}

/// 4,000 pods on one node, which is forty times what kubelet allows; a full table of routes; as many nodes as a Kubernetes
/// cluster may have.
const FULL: Size = Size { pods: 4_000, routes: 20_000, peers: 5_000, rounds: 31 };
/// To see that everything runs.
const QUICK: Size = Size { pods: 100, routes: 500, peers: 100, rounds: 5 };

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("soak: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let order = Order::read()?;
    node::hide_namespaces()?;
    let plugin = Plugin::new(order.ferrule, order.work.join("peak"));
    if let Some(size) = order.size {
        return size::measure(&size, &plugin, &order.work, |text| println!("{text}"));
    }
    println!("seed {}, {} callers, {} s", order.seed, order.callers, order.duration.as_secs());
    let soak = Soak::new(Node::set_up(&order.work)?, plugin, order.seed);
    soak.run_for(order.duration, order.callers, |line| println!("{line}"))
}

impl Order {
    fn read() -> Result<Self, Failure> {
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.subsec_nanos();
        let mut words = std::env::args().skip(1);
        let (Some(work), Some(ferrule)) = (words.next(), words.next()) else {
            return Err("not started by hand: run scripts/soak.sh".into());
        };
        let mut order = Self {
            work: work.into(),
            ferrule: ferrule.into(),
            duration: Duration::from_secs(600),
            callers: 32,
            seed: clock.into(),
            size: None,
        };
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            match name.as_str() {
                "--minutes" => order.duration = Duration::try_from_secs_f64(value.parse::<f64>()? * 60.0)?,
                "--callers" => order.callers = value.parse()?,
                "--seed" => order.seed = value.parse()?,
                "--size" if value == "full" => order.size = Some(FULL),
                "--size" if value == "quick" => order.size = Some(QUICK),
                _ => return Err(format!("no such option: {name}").into()),
            }
        }
        Ok(order)
    }
}
