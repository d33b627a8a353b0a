//! Measures what agents cost an API server: a real kube-apiserver with a real etcd, Nodes of the size that they have in
//! clusters, whose kubelets report, and real agents.
//!
//! ```text
//! control: etcd, kube-apiserver, the writer -- br0 172.20.255.254/16 --+-- agent 1: eth0 of its Node's address
//!                                                                      +-- agent 2 ...
//! ```
//!
//! Each agent is a process in a namespace of its own, with its routes. Bytes are those of its link; CPU is what the kernel
//! counts for each process. Seconds are printed where somebody waits for them, and compared nowhere: the machine may be
//! busy. `scripts/bench.sh --api` starts this in namespaces that end with it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal; no CNI protocol here"
)]
#![expect(clippy::disallowed_methods, reason = "what is measured lasts for a time")]

mod agents;
mod control_plane;
mod fairness;
mod forms;
mod nodes;
mod process;
mod report;
mod silence;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use agents::Agents;
use control_plane::ControlPlane;
use nodes::Heartbeats;
use report::Report;

/// Whatever stops the whole run, in words.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Kubelet writes a Node's status so often if nothing has changed.
const HEARTBEAT: u32 = 300;

/// What is measured.
struct Options {
    /// A directory that the caller removes.
    work: PathBuf,
    /// Programs: name and path.
    agents: Vec<(String, PathBuf)>,
    nodes: u32,
    count: u32,
    window: Duration,
    tsv: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, Failure> {
    let mut arguments = std::env::args().skip(1);
    let work = arguments.next().ok_or("the first argument is a directory")?.into();
    let mut options = Options {
        work,
        agents: Vec::new(),
        nodes: 5_000,
        count: 6,
        window: Duration::from_secs(30),
        tsv: None,
    };
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{option} needs a value"));
        match option.as_str() {
            "--agent" => options.agents.push((value()?, value()?.into())),
            "--nodes" => options.nodes = value()?.parse()?,
            "--agents" => options.count = value()?.parse()?,
            "--seconds" => options.window = Duration::from_secs(value()?.parse()?),
            "--quick" => (options.nodes, options.count, options.window) = (500, 2, Duration::from_secs(5)),
            "--tsv" => options.tsv = Some(value()?.into()),
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    Ok(options)
}

fn run() -> Result<(), Failure> {
    let Options { work, agents, nodes, count, window, tsv } = options()?;
    let server = ControlPlane::start(&work)?;
    fairness::apply(&server)?;
    let mut report = Report::default();
    let size = nodes::create(&server, nodes)?;
    report.line(format!("{nodes} Nodes of {size} bytes each (JSON); {:.1} writes a second", rate(nodes)));
    forms::measure(&server, nodes, &mut report)?;
    let heartbeats = Heartbeats::start(&server, nodes, rate(nodes));
    let idle = server.spent_within(window)?;
    report.idle(idle, window, heartbeats.count());
    for (name, program) in &agents {
        let mut running = Agents::start(&server, program, &work, count)?;
        report.first(name, &running.first(&server, nodes, idle, window)?);
        std::thread::sleep(Duration::from_secs(5));
        report.steady(name, &running.steady(&server, idle, window)?, window);
        if agents.last().is_some_and(|last| last.0 == *name) {
            report.line(format!("writes in all: {}, refused: {}", heartbeats.count(), heartbeats.refused()));
            let requests = fairness::dispatched(&server)?;
            report.line(format!("requests that the FlowSchema ferrule let in: {requests}"));
            silence::measure(&server, &running, &mut report)?;
        }
    }
    drop(heartbeats);
    println!("{}", report.text());
    if let Some(file) = tsv {
        std::fs::write(file, report.tsv())?;
    }
    Ok(())
}

/// Writes a second, of all kubelets.
fn rate(nodes: u32) -> f64 {
    f64::from(nodes) / f64::from(HEARTBEAT)
}
