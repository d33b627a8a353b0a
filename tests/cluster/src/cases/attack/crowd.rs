//! Many pods at once, again and again.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::pods::one_on_each_node;
use super::super::workloads::{each_serves, none_is_doubled_and_none_lost};
use crate::agents;
use crate::cluster::Node;
use crate::ensure;
use crate::pod::{Pod, deployment};
use crate::probe;
use crate::process::{Result, eventually, seconds};
use crate::space::Space;

/// How long all of them may take to be gone.
const GONE: Duration = Duration::from_secs(240);

/// Created at once and deleted at once; every second time as soon as the first of them runs, when most are half made.
pub fn crowds_of_pods_that_come_and_go_leave_nothing(space: &Space<'_>) -> Result {
    let names = one_on_each_node(space)?;
    let asker = names.first().ok_or("no pod")?;
    let (rounds, pods) = space.length.of((2, 30), (10, 60));
    eventually("no pod of an earlier case is on its way out", GONE, || none_is_leaving(space))?;
    let links = links_on_all(space)?;
    let counted = commands(space)?;
    let start = Instant::now();
    let (whole, losses) = probe::during(space, &names, || {
        let mut whole = 0;
        for round in 0..rounds {
            let name = format!("crowd-{round}");
            space.create([deployment(&name, pods, Pod::small(&name))])?;
            if round % 2 == 0 {
                space.rolled_out(&format!("deployment/{name}"), Duration::from_secs(300))?;
                each_serves(space, asker, &name, pods)?;
                whole += pods as u64;
            } else {
                eventually("one runs", Duration::from_secs(120), || one_runs(space, &name))?;
            }
            space.kubectl(&["delete", &format!("deployment/{name}")])?;
            eventually("all are gone", GONE, || none_is_leaving(space))?;
            none_is_doubled_and_none_lost(space)?;
            // Kubelet may call a pod gone a little before the runtime has told the plugin.
            eventually("links on the nodes are as many as before", GONE, || {
                let now = links_on_all(space)?;
                ensure!(now == links, "round {round}: there were {links:?}, there are {now:?}");
                Ok(())
            })?;
        }
        Ok(whole)
    })?;
    space.note(format!("{rounds} times {pods} pods in {}", seconds(start.elapsed())));
    // The agents read the plugin's log every other second.
    let [added, failed, deleted] = eventually("the agents have counted", Duration::from_secs(30), || {
        let now = commands(space)?;
        let more = [0, 1, 2].map(|which| now[which].saturating_sub(counted[which]));
        ensure!(more[0] >= whole, "{more:?} of ADD, failed ADD, DEL");
        Ok(more)
    })?;
    space.note(format!("the agents counted {added} ADD, {failed} of them failed, {deleted} DEL"));
    losses.none()
}

/// How many there are on each node.
fn links_on_all(space: &Space<'_>) -> Result<Vec<usize>> {
    let count = |node: &Node| {
        let said = node.shell("ip -o link show | wc -l")?;
        said.trim().parse().map_err(|_| format!("not a number: {said:?}").into())
    };
    space.nodes.iter().map(count).collect()
}

/// ADD, those of them that failed, and DEL, as the agents count them.
fn commands(space: &Space<'_>) -> Result<[u64; 3]> {
    let mut sums = [0; 3];
    for node in &space.nodes {
        let of = |command: &str, outcome: &str| {
            let labels = format!("{{command=\"{command}\",outcome=\"{outcome}\"");
            agents::counted(node, &format!("ferrule_commands_total{labels}"))
        };
        let failed = of("ADD", "error")?;
        for (sum, more) in
            sums.iter_mut().zip([of("ADD", "success")? + failed, failed, of("DEL", "success")?])
        {
            *sum += more;
        }
    }
    Ok(sums)
}

/// No pod is on its way out, and none of a crowd is there at all.
fn none_is_leaving(space: &Space<'_>) -> Result {
    let answer = space.get(&["pods", "--all-namespaces"])?;
    let is_of_a_crowd =
        |pod: &Value| pod["metadata"]["labels"]["app"].as_str().is_some_and(|app| app.starts_with("crowd-"));
    let leaves = |pod: &&Value| !pod["metadata"]["deletionTimestamp"].is_null() || is_of_a_crowd(pod);
    match answer["items"].as_array().into_iter().flatten().find(leaves) {
        Some(pod) => Err(format!("{} is there", pod["metadata"]["name"]).into()),
        None => Ok(()),
    }
}

fn one_runs(space: &Space<'_>, name: &str) -> Result {
    let answer = space.get(&["pods", "--selector", &format!("app={name}")])?;
    let runs =
        answer["items"].as_array().into_iter().flatten().any(|pod| pod["status"]["phase"] == "Running");
    ensure!(runs, "none does");
    Ok(())
}
