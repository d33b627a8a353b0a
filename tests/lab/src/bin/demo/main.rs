//! `demo`: three nodes, six pods, and everybody reaches everybody; `scripts/demo.sh` builds and runs it.

mod facts;
mod forgery;
mod network;
mod operator;
mod pods;
mod reach;
mod screen;
mod services;
mod stage;

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use lab::{Lab, NodePlan, block_on};
use network::Network;
use screen::{Mood, Screen};

const USAGE: &str = "\
usage: demo [--keep] FERRULE      FERRULE is the plugin's program; ferrulectl is beside it
       demo [--keep] --plugin ptp
";

type Failure = Box<dyn std::error::Error>;

/// What the command line asks for.
struct Order {
    network: Network,
    is_kept: bool,
}

fn main() -> ExitCode {
    let Some(order) = read_order(std::env::args().skip(1)) else { return complain(USAGE) };
    match block_on(run_or_be_interrupted(&order)) {
        Ok(Ok(faults)) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(Ok(faults)) => {
            complain(&format!("not as promised ({}):\n  {}\n", faults.len(), faults.join("\n  ")))
        }
        Ok(Err(failure)) => complain(&format!("{failure}\n")),
        Err(error) => complain(&format!("{error}\n")),
    }
}

fn read_order(mut words: impl Iterator<Item = String>) -> Option<Order> {
    let (mut network, mut is_kept) = (None, false);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--keep" => is_kept = true,
            "--plugin" if words.next()? == "ptp" => network = Some(Network::Ptp),
            program if !program.starts_with('-') => network = Some(Network::Ferrule(program.into())),
            _ => return None,
        }
    }
    Some(Order { network: network?, is_kept })
}

fn complain(what: &str) -> ExitCode {
    // Nobody is left to tell when standard error is closed.
    let _ = write!(std::io::stderr(), "\ndemo: {what}");
    ExitCode::FAILURE
}

/// Ctrl-C drops the demo where it is, and the lab with it: everything is removed before we end.
async fn run_or_be_interrupted(order: &Order) -> Result<Vec<String>, Failure> {
    tokio::select! {
        result = run(order) => result,
        _ = tokio::signal::ctrl_c() => Err("interrupted; everything is removed".into()),
    }
}

/// The whole demo, from nothing to nothing. Says what did not go as promised.
async fn run(order: &Order) -> Result<Vec<String>, Failure> {
    let (screen, network) = (Screen::new(), &order.network);
    screen.heading(&format!(
        "Three nodes, each with a containerd of its own; pod network: {}",
        network.title()
    ))?;
    let lab = stage::build_lab(&screen, network, &NodePlan::first(3)).await?;
    let shown = show(&screen, network, &lab).await;
    screen.line("")?;
    if order.is_kept {
        let hints = stage::spell_hints(&lab)?;
        let keeper = lab.keep()?;
        screen.line(&format!("{hints}To remove everything:\n  kill {keeper}\n"))?;
    } else {
        let start = Instant::now();
        drop(lab);
        screen.step(start, "everything is removed")?;
    }
    if shown.as_ref().is_ok_and(Vec::is_empty) {
        screen.line(&screen.paint(Mood::Good, "Everything is as promised."))?;
    }
    shown
}

async fn show(screen: &Screen, network: &Network, lab: &Lab) -> Result<Vec<String>, Failure> {
    let mut runtimes = Vec::new();
    for node in lab.nodes() {
        runtimes.push(node.cri().await?);
    }
    let pods = stage::run_pods(screen, lab, &runtimes).await?;
    let mut faults = reach::show_everybody(screen, lab, &runtimes, &pods).await?;
    faults.extend(reach::show_localhost(screen, &runtimes, &pods).await?);
    if let ([node, ..], Some(pod)) = (lab.nodes(), pods.first()) {
        facts::show_kernel(screen, node, pod)?;
    }
    let forged = forgery::show(screen, lab, &pods)?;
    if network.has_services() {
        faults.extend(forged);
        faults.extend(services::show_host_port(screen, lab, &runtimes, &pods).await?);
        faults.extend(services::show_masquerade(screen, lab, &runtimes, &pods).await?);
        faults.extend(operator::show(screen, lab, &runtimes, &pods).await?);
    } else {
        let text = "What ptp alone does not promise, so it is no fault: to refuse forged packets (above), hostPorts, \
                    masquerade that spares other nodes' pods, verbs for people";
        screen.line(&format!("\n  {}", screen.paint(Mood::Faint, text)))?;
    }
    if let ([.., node], [.., cri], [.., pod]) = (lab.nodes(), runtimes.as_slice(), pods.as_slice()) {
        faults.extend(facts::show_death(screen, network, cri, node, pod).await?);
    }
    Ok(faults)
}
