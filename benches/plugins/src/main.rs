//! Measures what a pod waits for: whole processes, from `exec` to the last byte of the answer, of ferrule, of the
//! plugins that it can replace, and of the smallest program that makes the same kernel objects (`benches/floor.c`).
//!
//! `scripts/bench.sh` builds all of them and starts this in network and mount namespaces that end with it, which is
//! why nothing is cleaned up at the end. What is compared is measured in one run and in turns. Time is printed, never asserted.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal; no CNI protocol here"
)]

mod burst;
mod contender;
mod gc;
mod host_ports;
mod invocation;
mod ipam;
mod lab;
mod loopback;
mod memory;
mod peers;
mod policies;
mod report;
mod single;

use contender::{Contender, Group};
use lab::Lab;
use report::{Report, Target};
use std::path::PathBuf;
use std::process::ExitCode;

/// Whatever stops the whole run, in words.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How often, and with how much.
pub struct Effort {
    /// Rounds of one ADD and one DEL of each contender.
    pub single: usize,
    /// Rounds of the peers that are slow by seconds.
    pub slow: usize,
    /// Rounds of 80 at once.
    pub bursts: usize,
    /// Rounds of garbage collection.
    pub collections: usize,
    /// Rounds of the address management call, at each fill.
    pub calls: usize,
    /// How many pods of ten hostPorts there are when the next one is measured.
    pub serving: usize,
    /// How many addresses are held when the address management call is measured.
    pub held: &'static [usize],
}

const FULL: Effort = Effort {
    single: 101,
    slow: 5,
    bursts: 7,
    collections: 5,
    calls: 51,
    serving: 100,
    held: &[0, 250, 4_000, 60_000],
};
const QUICK: Effort =
    Effort { single: 7, slow: 1, bursts: 1, collections: 1, calls: 7, serving: 5, held: &[0, 250] };

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
    let (Some(work), Some(peers), Some(peers_version)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("not started by hand: run scripts/bench.sh".into());
    };
    let (mut effort, mut tsv) = (FULL, None);
    while let Some(option) = arguments.next() {
        match option.as_str() {
            "--quick" => effort = QUICK,
            "--tsv" => tsv = Some(arguments.next().ok_or("--tsv needs a file")?),
            _ => return Err(format!("unknown option {option}").into()),
        }
    }

    let lab = Lab::new(PathBuf::from(work), PathBuf::from(peers))?;
    lab.set_up_node()?;

    let mut report = Report::new(&lab, &peers_version);
    let mut groups = [Group::plain(&lab), Group::served(&lab)];
    for group in &mut groups {
        for contenders in [&mut group.contenders, &mut group.slow] {
            // One try before anything is timed: the first bridge plugin makes the bridge, the first ferrule its routes.
            contenders.retain(|contender: &Contender| match contender.works(&lab) {
                Ok(()) => true,
                Err(reason) => {
                    report.left_out(&format!("{}{}", contender.name, group.job), &reason.to_string());
                    false
                }
            });
        }
    }

    // One that fails is said to have failed, at the end as well, and the others are measured all the same.
    let mut failed = Vec::new();
    let mut attempt = |what: &str, part: &mut dyn FnMut() -> Result<(), Failure>| {
        if let Err(failure) = lab.change_disks().and_then(|()| part()) {
            failed.push(format!("{what}: {failure}"));
        }
    };
    for group in &groups {
        attempt("one after another", &mut || single::measure(&lab, group, &effort, &mut report));
        attempt("at once", &mut || burst::measure(&lab, group, &effort, &mut report));
    }
    let [plain, _] = &groups;
    attempt("hostPorts", &mut || host_ports::measure(&lab, &effort, &mut report));
    if plain.contenders.iter().any(|contender| contender.name == contender::FERRULE) {
        attempt("garbage collection", &mut || gc::measure(&lab, &effort, &mut report));
        attempt("policies", &mut || policies::measure(&lab, &effort, &mut report));
        attempt("static peers", &mut || peers::measure(&lab, &effort, &mut report));
    }
    attempt("address management", &mut || ipam::measure(&lab, &effort, &mut report));
    attempt("loopback", &mut || loopback::measure(&lab, &effort, &mut report));
    attempt("memory", &mut || memory::measure(&lab, &plain.contenders, &mut report));

    println!("{}", report.text(&Target::of_this_project()));
    if let Some(file) = tsv {
        std::fs::write(file, report.tsv())?;
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}
