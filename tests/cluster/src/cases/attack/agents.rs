//! The agents are killed, each as soon as it lives.

use std::time::{Duration, Instant};

use super::super::pods::{all_reach_all, one_on_each_node};
use crate::agents::{self, KILL};
use crate::cluster::Node;
use crate::ensure;
use crate::probe;
use crate::process::{Result, seconds};
use crate::space::Space;

/// Kubelet waits the longer the more often a container has ended: ten seconds after the second time, twenty then. Three
/// deaths fit into the short one.
fn span(space: &Space<'_>) -> Duration {
    Duration::from_secs(space.length.of(20, 90))
}

/// By SIGKILL, on all nodes at once; each of them dies while it starts as well as when it is at work.
pub fn agents_killed_again_and_again_cost_no_packet(space: &Space<'_>) -> Result {
    let names = one_on_each_node(space)?;
    let since = agents::time_on(space.control_plane()?)?;
    let span = span(space);
    let outcome = probe::during(space, &names, || kill_on_all(&space.nodes, span));
    // New ones start at once; for these, kubelet would wait.
    let start = Instant::now();
    let back = agents::replaced(space);
    let (deaths, losses) = outcome?;
    back?;
    space.note(format!("{deaths:?} killed on the nodes in {}", seconds(span)));
    space.note(format!("all of them ready {} after the last", seconds(start.elapsed())));
    ensure!(deaths.iter().all(|deaths| *deaths > 1), "no agent came back to be killed again");
    losses.none()?;
    let said = agents::said(space.control_plane()?, &since, "saved state loaded")?;
    space.note(format!("the agents: {said}"));
    all_reach_all(space, &names).map(|_| ())
}

/// How many died on each.
pub fn kill_on_all(nodes: &[Node], span: Duration) -> Result<Vec<usize>> {
    std::thread::scope(|scope| {
        let kills: Vec<_> = nodes.iter().map(|node| scope.spawn(move || kill_for(node, span))).collect();
        let ended = kills.into_iter().map(|kill| kill.join().map_err(|_| "a thread panicked")?);
        ended.collect()
    })
}

/// Looks at the names of all processes five times a second; how many were killed.
fn kill_for(node: &Node, span: Duration) -> Result<usize> {
    let script = format!(
        "{KILL}
         end=$(($(date +%s) + {}))
         while [ $(date +%s) -lt $end ]; do kill_agent; sleep 0.2; done
         echo $killed",
        span.as_secs()
    );
    let said = node.shell(&script)?;
    said.trim().parse().map_err(|_| format!("not a number: {said:?}").into())
}
