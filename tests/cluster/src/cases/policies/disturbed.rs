//! Agents die and are replaced, a table is flushed, a node restarts, all of it under traffic: nothing is opened, and what is
//! allowed is refused to nobody.

use std::time::{Duration, Instant};

use serde_json::json;

use super::manifest::Policy;
use super::stream::{self, Lane};
use super::ways::Ways;
use super::{Beside, STARTS, scene};
use crate::agents;
use crate::cases::agent::{AGENT, without_agents};
use crate::cases::attack::agents::kill_on_all;
use crate::cases::attack::node::broken_and_repaired;
use crate::cases::nodes::pods_of_are_back;
use crate::cases::pods::near_the_end_of;
use crate::ensure;
use crate::pod::{HTTP, Pod};
use crate::process::{Result, eventually, pause, run, seconds};
use crate::space::Space;

/// Shell: what the table has, word for word; neither the order of elements nor counters are of interest.
const TABLE: &str = "nft -s list table inet ferrule-policy | tr -s '{}, \\t' '\\n' | sort";

/// By SIGKILL, on all nodes and again, then by a rollout, with a pod that starts meanwhile.
pub fn agents_killed_and_rolled_out_open_and_shut_nothing(space: &Space<'_>) -> Result {
    scene::make(space, &[])?;
    let (_, wrongs) = stream::during(space, &scene::lanes(space)?, || {
        let span = Duration::from_secs(space.length.of(12, 60));
        let killed = std::thread::scope(|scope| {
            let killing = scope.spawn(|| kill_on_all(&space.nodes, span));
            let made = space.create([
                Policy::of("late", json!({ "app": "late" })).isolating("Ingress").manifest(),
                Pod::server("late", &space.agnhost).on(space.worker(0)?).manifest(),
            ]);
            let killed = killing.join().map_err(|_| "a thread panicked")?;
            made.and(killed)
        });
        agents::replaced(space)?;
        space.note(format!("{:?} killed on the nodes", killed?));
        let start = Instant::now();
        space.kubectl(&["--namespace", "kube-system", "rollout", "restart", AGENT])?;
        space.system_rolled_out(AGENT)?;
        space.note(format!("rolled out in {}", seconds(start.elapsed())));
        Ok(())
    })?;
    wrongs.none()?;
    space.all_ready(STARTS)?;
    Ways::among(&[space])?
        .shut("far", "late", HTTP)
        .shut("near", "late", HTTP)
        .open("late", "other", HTTP)
        .hold()?;
    scene::is_as_made(space)
}

/// Without an agent a new pod in a namespace with policies is as isolated as any of that namespace, until somebody comes who
/// knows it; one in another namespace starts as ever. If the table goes meanwhile, the next pod brings it back.
pub fn without_agents_new_pods_are_not_open(space: &Space<'_>) -> Result {
    scene::make(space, &[])?;
    let beside = Beside::make(space, &[])?;
    let node = space.worker(0)?;
    let server = |name: &str| Pod::server(name, &space.agnhost).on(node);
    let (_, wrongs) = stream::during(space, &scene::lanes(space)?, || {
        without_agents(space, || {
            let late = server("late").labelled("app", "secret").manifest();
            space.create([late, server("plain").manifest()])?;
            beside.0.create([server("free").manifest()])?;
            space.all_ready(STARTS)?;
            beside.0.all_ready(STARTS)?;
            let plain = space.addresses("plain")?;
            Ways::among(&[space, &beside.0])?
                .open("far", "free", HTTP)
                .open("free", "other", HTTP)
                .shut("far", "late", HTTP)
                .shut("free", "late", HTTP)
                .from(node, "its node", "plain", &plain, HTTP, true)
                .hold()
        })
    })?;
    wrongs.none()?;
    Ways::among(&[space, &beside.0])?
        .open("free", "plain", HTTP)
        .open("plain", "other", HTTP)
        .shut("far", "late", HTTP)
        .shut("free", "late", HTTP)
        .hold()?;
    without_agents(space, || {
        node.run(&["nft", "delete", "table", "inet", "ferrule-policy"])?;
        beside.0.create([server("next").manifest()])?;
        beside.0.all_ready(STARTS)?;
        scene::is_as_made(space)
    })
}

/// By somebody who flushes or deletes it. Meanwhile everything passes; what came through must not stay.
pub fn a_policy_table_that_was_flushed_is_back(space: &Space<'_>) -> Result {
    scene::make(space, &[])?;
    let node = space.worker(0)?;
    for breaking in ["nft flush table inet ferrule-policy", "nft delete table inet ferrule-policy"] {
        let (_, wrongs) = stream::during(space, &scene::lanes(space)?, || {
            let repaired = broken_and_repaired(node, "", TABLE, breaking)?;
            space.note(format!("{breaking}: back in {repaired}"));
            eventually("pings that came through are cut", Duration::from_secs(10), || {
                let count = || {
                    space.exec("near", &["sh", "-c", "cat /tmp/stream-ping-* | grep -c 'bytes from'; true"])
                };
                let before = count()?;
                pause(Duration::from_secs(1));
                let after = count()?;
                ensure!(before == after, "{before} answers, a second later {after}");
                Ok(())
            })
        })?;
        ensure!(wrongs.refused == 0, "{wrongs}");
        scene::is_as_made(space)?;
        let (_, wrongs) = stream::during(space, &scene::lanes(space)?, || Ok(()))?;
        wrongs.none().map_err(|failure| format!("after {breaking}: {failure}"))?;
    }
    Ok(())
}

/// Its pods are as isolated when they start again as they were; a pod that keeps its address is never reached by whom it is
/// forbidden to.
pub fn a_worker_that_restarts_has_its_policies_again(space: &Space<'_>) -> Result {
    let node = space.worker(0)?;
    ensure!(node.name != space.worker(1)?.name && !node.is_control_plane, "needs two workers");
    let wanted = node.pod_ranges.iter().map(|range| near_the_end_of(range, 9)).collect::<Result<Vec<_>>>()?;
    scene::make(space, &wanted)?;
    let since = agents::time_on(node)?;
    let lane = Lane {
        space,
        client: "far".to_owned(),
        open: space.addresses("other")?,
        shut: space.addresses("secret")?,
    };
    let (_, wrongs) = stream::during(space, &[lane], || {
        run("docker", &["restart", &node.name])?;
        pods_of_are_back(space, node, &since)?;
        ensure!(space.addresses("secret")? == wanted, "it has other addresses: nothing was tested");
        let secret = space.addresses("secret")?;
        Ways::among(&[space])?.from(node, "its node", "secret", &secret, HTTP, true).hold()
    })?;
    wrongs.none()?;
    scene::is_as_made(space)
}
