//! What a user of Kubernetes takes for granted of the network, asked of a real cluster with kubectl and real traffic.
//!
//! Runs against the kind cluster that `scripts/kind.sh up` made, mostly by way of `scripts/kind.sh test`. Each file of
//! `cases/` is about one thing that a user does, and reads like it. Nothing here knows how ferrule works inside: what
//! is asked is what any good network would answer, so the same cases can be asked of another plugin as well
//! (`--any-plugin`), all but those marked as ferrule's own.
//!
//! ```text
//! cluster [--any-plugin] [--again] [--long] [--jobs N] [--list] [WORD...]
//!                                                          cases whose name contains one of the words; default: all
//! cluster --note-nodes                                     notes what the nodes have before a network is installed
//! ```
//!
//! One line for each case on stdout, as it ends; the last line is `N passed, N failed, N skipped`. Exit status 1 if
//! one failed.

#![allow(clippy::print_stdout, reason = "what this program is for: its report goes there")]

mod agents;
mod cases;
mod cluster;
mod fetch;
mod pod;
mod probe;
mod process;
mod runner;
mod space;

use std::process::ExitCode;

use crate::process::Result;
use crate::space::Length;

/// How cases are run.
struct Options {
    /// The network is not ferrule.
    any_plugin: bool,
    /// A case that failed is run once more, and both is told.
    again: bool,
    /// For how long the attacks go on.
    length: Length,
    /// How many cases at the same time.
    jobs: usize,
}

const USAGE: &str = "usage: cluster [--any-plugin] [--again] [--long] [--jobs N] [--list] [WORD...]
       cluster --note-nodes
A case runs if its name contains one of the words. --any-plugin: this cluster's network is not ferrule; its own cases
are skipped. --again: one that failed is run once more, and that it failed is told at the end. --long: the attacks go on for
minutes. --jobs: how many cases at the same time, where they do not disturb each other (3).";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            println!("cluster: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
fn run() -> Result<bool> {
    let mut words = Vec::new();
    let mut options = Options { any_plugin: false, again: false, length: Length::Short, jobs: 3 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--any-plugin" => options.any_plugin = true,
            "--again" => options.again = true,
            "--long" => options.length = Length::Long,
            "--jobs" => {
                let number = arguments.next().unwrap_or_default();
                options.jobs = number.parse().map_err(|_| format!("--jobs {number}: not a number"))?;
            }
            "--list" => {
                cases::all().iter().for_each(|case| println!("{}", case.name));
                return Ok(true);
            }
            "--note-nodes" => return cluster::Cluster::discover()?.note_nodes().map(|()| true),
            option if option.starts_with('-') => return Err(USAGE.into()),
            word => words.push(word.to_owned()),
        }
    }
    let mut chosen = cases::all();
    chosen.retain(|case| words.is_empty() || words.iter().any(|word| case.name.contains(word.as_str())));
    if chosen.is_empty() {
        return Err("no case has a name like that: --list names them".into());
    }
    runner::run(&cluster::Cluster::discover()?, chosen, options)
}
