//! Nodes restart, change their addresses, leave and come back. What pods of the other nodes send each other meanwhile
//! arrives.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::pods::{all_reach_all, one_on_each, two_on_each_node};
use crate::agents;
use crate::cluster::{Family, Node, deploy};
use crate::ensure;
use crate::pod::{HTTP, Pod};
use crate::probe;
use crate::process::{Result, eventually, run, seconds};
use crate::space::Space;

/// A node's restart, in a container: kubelet, containerd and all pods start again. On two cores it takes its time.
const RESTART: Duration = Duration::from_secs(240);

/// All pods reach all again without anybody's help.
pub fn a_worker_that_restarts_is_as_before(space: &Space<'_>) -> Result {
    let pods = two_on_each_node(space)?;
    all_reach_all(space, &pods)?;
    let start = Instant::now();
    let node = space.worker(0)?;
    let since = agents::time_on(node)?;
    let (_, losses) = probe::during(space, &on_others(space, node), || {
        run("docker", &["restart", &node.name])?;
        pods_of_are_back(space, node, &since)?;
        eventually("all reach all", RESTART, || all_reach_all(space, &pods))?;
        space.note(format!("all reach all again {} after `docker restart`", seconds(start.elapsed())));
        Ok(())
    })?;
    losses.none()
}

/// Another container takes its address meanwhile, so that it must take another.
pub fn a_control_plane_with_another_address_is_as_before(space: &Space<'_>) -> Result {
    let pods = two_on_each_node(space)?;
    all_reach_all(space, &pods)?;
    let node = space.control_plane()?;
    let start = Instant::now();
    let since = agents::time_on(node)?;
    let (now, losses) = probe::during(space, &on_others(space, node), || {
        run("docker", &["stop", &node.name])?;
        let squatter = crate::fetch::Outsider::start(space);
        run("docker", &["start", &node.name])?;
        let squatter = squatter?;
        let took_it = node.addresses.iter().any(|address| squatter.addresses.contains(address));
        ensure!(took_it, "nobody took its address: nothing was tested");
        let now = followed(space, node, &since, |now| now.addresses != node.addresses)?;
        pods_of_are_back(space, node, &since)?;
        eventually("all reach all", RESTART, || all_reach_all(space, &pods))?;
        space.note(format!("all reach all again {} after `docker stop`", seconds(start.elapsed())));
        Ok(now)
    })?;
    space.note(format!("was {:?}, is {:?}", node.addresses, now.addresses));
    losses.none()?;
    stale_routes(space, &node.addresses.iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// Drained, removed, reset and joined, as kubeadm's documentation has it. Its range has been given to another node meanwhile, one
/// that never got as far as having an address.
pub fn a_worker_that_joins_again_leaves_no_stale_route(space: &Space<'_>) -> Result {
    let node = space.worker(1)?;
    ensure!(!node.is_control_plane, "a cluster without workers");
    let others: Vec<&Node> = space.nodes.iter().filter(|other| other.name != node.name).collect();
    let names = one_on_each(space, &others)?;
    let start = Instant::now();
    let (now, losses) = probe::during(space, &names, || {
        leave(space, node)?;
        let joined = take_ranges(space).and_then(|()| join(space, node));
        space.kubectl(&["delete", "nodes", "--selector", TAKER])?;
        let now = joined?;
        space.note(format!("Ready again {} after it was drained", seconds(start.elapsed())));
        Ok(now)
    })?;
    ensure!(now.pod_ranges != node.pod_ranges, "it has its old range again: nothing was tested");
    space.note(format!("{:?} became {:?}", node.pod_ranges, now.pod_ranges));
    losses.none()?;
    stale_routes(space, &node.pod_ranges)?;
    let pods = two_on_each_node(space)?;
    all_reach_all(space, &pods).map(|_| ())
}

/// Pods wait for the node before it joins, so the first of them starts the moment it is Ready. Each first packet that it
/// sends is answered: one that is lost is sent again after a second, which is longer than it waits.
pub fn first_packets_on_a_node_that_joins_are_answered(space: &Space<'_>) -> Result {
    let node = space.worker(1)?;
    ensure!(!node.is_control_plane, "a cluster without workers");
    let others: Vec<&Node> = space.nodes.iter().filter(|other| other.name != node.name).collect();
    let servers = one_on_each(space, &others)?;
    let mut asked = Vec::new();
    for server in &servers {
        asked.extend(space.addresses(server)?.into_iter().map(|it| SocketAddr::new(it, HTTP).to_string()));
    }
    leave(space, node)?;
    // `kubeadm reset` says that it leaves the conf to people. The store may stay, and with it what the agent remembers.
    node.run(&["find", "/etc/cni/net.d", "-type", "f", "-delete"])?;
    let script = "for server in \"$@\"; do /agnhost connect --timeout=900ms $server && echo answered; done";
    let names = ["first", "second", "third"];
    let waiting = |name| {
        let mut words = vec!["-c", script, "sh"];
        words.extend(asked.iter().map(String::as_str));
        let pod =
            Pod::running(name, &space.agnhost, &words).with("/spec/containers/0/command", json!(["/bin/sh"]));
        let pod = pod.with("/spec/restartPolicy", json!("Never"));
        pod.with("/spec/nodeSelector", json!({ "kubernetes.io/hostname": node.name })).manifest()
    };
    let created = space.create(names.map(waiting));
    // Whatever else fails, the cluster has its node again.
    let joined = join(space, node);
    created?;
    joined?;
    for name in names {
        let pod = format!("pod/{name}");
        // An agnhost that is not answered ends with a status, the shell with that of the last.
        let ended = |phase: &str| {
            let phase = format!("--for=jsonpath={{.status.phase}}={phase}");
            space.kubectl(&["wait", &phase, &pod, "--timeout=60s"])
        };
        ended("Succeeded").map_err(|failure| {
            format!("{failure}\n{}", space.kubectl(&["logs", name]).unwrap_or_default())
        })?;
        let log = space.kubectl(&["logs", name])?;
        let answered = log.matches("answered").count();
        ensure!(
            answered == asked.len(),
            "{name}: {answered} of {} first packets were answered:\n{log}",
            asked.len()
        );
    }
    space.note(format!("{} first packets of {} pods were answered", asked.len() * names.len(), names.len()));
    Ok(())
}

/// With `deploy/components/startup-taint` the agent removes the taint that kubelet registered a node with.
pub fn the_startup_taint_is_removed_by_the_agent(space: &Space<'_>) -> Result {
    let node = space.worker(0)?;
    let rights = deploy("components/startup-taint/rbac.yaml");
    space.kubectl(&["apply", "--filename", &rights])?;
    let worked = space
        .kubectl(&["taint", "node", &node.name, "ferrule.dev/agent-not-ready=:NoSchedule"])
        .and_then(|_| {
            eventually("the taint is gone", Duration::from_secs(90), || {
                let now = space.get(&["node", &node.name])?;
                ensure!(
                    !now["spec"]["taints"].to_string().contains("agent-not-ready"),
                    "{}",
                    now["spec"]["taints"]
                );
                Ok(())
            })
        });
    if worked.is_err() {
        let _ = space.kubectl(&["taint", "node", &node.name, "ferrule.dev/agent-not-ready-"]);
    }
    space.kubectl(&["delete", "--filename", &rights])?;
    worked
}

/// Takes a node out of the cluster, as kubeadm's documentation has it.
fn leave(space: &Space<'_>, node: &Node) -> Result {
    let drain = ["drain", &node.name, "--ignore-daemonsets", "--delete-emptydir-data", "--force"];
    space.kubectl(&[&drain[..], &["--timeout=120s"]].concat())?;
    space.kubectl(&["delete", "node", &node.name])?;
    node.run(&["kubeadm", "reset", "--force"]).map(|_| ())
}

/// The label of Nodes that are there for their ranges only.
const TAKER: &str = "ferrule.dev/never-started=true";

/// Makes three Nodes. Whether the controller manager gives freed ranges first or goes round, the next Node has another
/// range then than the one that left.
fn take_ranges(space: &Space<'_>) -> Result {
    let (key, value) = TAKER.split_once('=').unwrap_or_default();
    let labels = json!({ key: value });
    space.create([1, 2, 3].map(|number| {
        let name = format!("never-started-{number}");
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } })
    }))?;
    let given = "--for=jsonpath={.spec.podCIDR}";
    space.kubectl(&["wait", given, "nodes", "--selector", TAKER, "--timeout=60s"]).map(|_| ())
}

/// Until it is Ready.
fn join(space: &Space<'_>, node: &Node) -> Result<Node> {
    let since = agents::time_on(node)?;
    node.run(&["kubeadm", "join", "--config", "/kind/kubeadm.conf", "--skip-phases=preflight"])?;
    let now = followed(space, node, &since, |now| !now.pod_ranges.is_empty() && !now.addresses.is_empty())?;
    let name = format!("node/{}", node.name);
    space.kubectl(&["wait", "--for=condition=Ready", &name, "--timeout=180s"])?;
    Ok(now)
}

/// The pods of [`two_on_each_node`] that are not on this node, one of each.
fn on_others(space: &Space<'_>, node: &Node) -> Vec<String> {
    let others = space.nodes.iter().filter(|other| other.name != node.name);
    others.map(|other| format!("{}-0", other.name)).collect()
}

/// Waits until the API server shows a node as `is_new` has it, and then until the other nodes' routes lead there; the
/// node as it is then. Notes how long the routes took, and what an agent said.
fn followed(space: &Space<'_>, node: &Node, since: &str, is_new: impl Fn(&Node) -> bool) -> Result<Node> {
    let others: Vec<&Node> = space.nodes.iter().filter(|other| other.name != node.name).collect();
    let first = others.first().ok_or("there is no other node")?;
    let now = eventually(&format!("{} is there anew", node.name), RESTART, || {
        let now = space.nodes_now()?.into_iter().find(|other| other.name == node.name);
        now.filter(|now| is_new(now)).ok_or_else(|| "it is as before, or not there".into())
    })?;
    let shown = Instant::now();
    for other in &others {
        for range in &now.pod_ranges {
            let (family, version) = if range.contains(':') { (Family::V6, "-6") } else { (Family::V4, "-4") };
            let gateway = now.address(family)?.to_string();
            let words = ["ip", version, "route", "show", range, "via", &gateway];
            eventually(&format!("{} has a route to {range}", other.name), Duration::from_secs(60), || {
                ensure!(!other.run(&words)?.trim().is_empty(), "it has none via {gateway}");
                Ok(())
            })?;
        }
    }
    let took = shown.elapsed().as_millis();
    let said = agents::said(first, since, "peer routes updated")?;
    space.note(format!(
        "the others' routes lead there {took} ms after kubectl showed it ({}: {said})",
        first.name
    ));
    Ok(now)
}

/// Waits until the containers on the node have been started since, and are ready: what the API server says before is
/// from before.
pub fn pods_of_are_back(space: &Space<'_>, node: &Node, since: &str) -> Result {
    eventually(&format!("the pods of {} are back", node.name), RESTART, || {
        let field = format!("spec.nodeName={}", node.name);
        let answer = space.get(&["pods", "--field-selector", &field])?;
        let pods = answer["items"].as_array().cloned().unwrap_or_default();
        ensure!(!pods.is_empty(), "none is there");
        for pod in pods {
            let status = &pod["status"]["containerStatuses"][0];
            let started = status["state"]["running"]["startedAt"].as_str().unwrap_or_default();
            ensure!(
                started >= since && status["ready"] == true,
                "{}: {}",
                pod["metadata"]["name"],
                Value::to_string(status)
            );
        }
        Ok(())
    })
}

/// No node has a route to, or by way of, any of these.
fn stale_routes(space: &Space<'_>, words: &[String]) -> Result {
    for node in &space.nodes {
        eventually(&format!("{} has no stale route", node.name), Duration::from_secs(30), || {
            let routes = node.shell("ip route show table all; ip -6 route show table all")?;
            let mut stale = routes.lines().filter(|route| {
                let mut parts = route.split_whitespace();
                parts.any(|part| words.iter().any(|word| part == word))
            });
            match stale.next() {
                Some(route) => Err(format!("there is still: {route}").into()),
                None => Ok(()),
            }
        })?;
    }
    Ok(())
}
