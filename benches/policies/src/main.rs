//! Measures what NetworkPolicies cost: a new connection, with none and with many of them, between pods of one node and of
//! two; a change of one of many, from the API's event to the kernel; and packets, while they change.
//!
//! Two nodes and their pods are network namespaces. What the agent has is driven as a library: the planner hears of
//! policies and pods, and the table follows. `scripts/bench.sh` starts this in namespaces that end with it. What is
//! compared is measured in one run and in turns. Time is printed, never asserted.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal; no CNI protocol here"
)]

mod agent;
mod changes;
mod connections;
mod lab;
mod objects;
mod report;
mod traffic;

use std::process::ExitCode;
use std::time::Duration;

use lab::Lab;
use report::Report;

/// Whatever stops the whole run, in words.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How often, and for how long.
pub struct Effort {
    /// Rounds of all numbers of policies.
    pub rounds: usize,
    /// For how long connections are made, each time.
    pub span: Duration,
    /// Changes of each kind whose time is taken.
    pub timed: usize,
    /// Changes while packets are counted.
    pub changes: usize,
}

const FULL: Effort = Effort { rounds: 11, span: Duration::from_secs(1), timed: 101, changes: 1_000 };
const QUICK: Effort = Effort { rounds: 3, span: Duration::from_millis(300), timed: 21, changes: 200 };

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (mut effort, mut tsv) = (FULL, None);
    while let Some(option) = arguments.next() {
        match option.as_str() {
            "--quick" => effort = QUICK,
            "--tsv" => tsv = Some(arguments.next().ok_or("--tsv needs a file")?),
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    let mut lab = Lab::new()?;
    let mut report = Report::default();
    connections::measure(&mut lab, &effort, &mut report)?;
    changes::measure(&mut lab, &effort, &mut report)?;
    println!("{}", report.text());
    if let Some(file) = tsv {
        std::fs::write(file, report.tsv())?;
    }
    Ok(())
}
