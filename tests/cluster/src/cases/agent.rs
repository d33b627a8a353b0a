//! The agent may go, come back and be killed; and what others break on a node, it mends.

use std::time::{Duration, Instant};

use crate::cluster::{Family, Node};
use crate::ensure;
use crate::fetch::{Asker, In, Outsider};
use crate::pod::{HTTP, Pod};
use crate::probe::Probe;
use crate::process::{Result, eventually, seconds};
use crate::space::Space;

/// The agents' DaemonSet.
const AGENT: &str = "daemonset/ferrule";

/// Traffic before and after what is done, so that a loss at its edges is seen.
const MARGIN: Duration = Duration::from_secs(2);

/// A server on each node; their names, in the order of the nodes.
fn one_on_each_node(space: &Space<'_>) -> Result<Vec<String>> {
    let names: Vec<String> = space.nodes.iter().map(|node| format!("on-{}", node.name)).collect();
    let pods = names.iter().zip(&space.nodes);
    space.create(pods.map(|(name, node)| Pod::server(name, &space.agnhost).on(node).manifest()))?;
    space.all_ready(Duration::from_secs(120))?;
    Ok(names)
}

/// Pings between pods of all nodes, at twenty a second each, while something is done; none may be lost.
fn without_loss(space: &Space<'_>, act: impl FnOnce() -> Result) -> Result {
    let names = one_on_each_node(space)?;
    let probe = Probe::start(space, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    crate::process::pause(MARGIN);
    let start = Instant::now();
    let done = act();
    let took = start.elapsed();
    crate::process::pause(MARGIN);
    let losses = probe.stop()?;
    done?;
    space.note(format!("{} of {} packets lost, in {}", losses.count(), losses.sent, seconds(took)));
    losses.none()
}

/// An upgrade is a rollout.
pub fn rolled_out_again_it_costs_no_packet(space: &Space<'_>) -> Result {
    without_loss(space, || {
        space.kubectl(&["--namespace", "kube-system", "rollout", "restart", AGENT])?;
        space.system_rolled_out(AGENT)
    })
}

/// Without a word.
pub fn killed_on_every_node_it_costs_no_packet(space: &Space<'_>) -> Result {
    without_loss(space, || {
        for node in &space.nodes {
            let script = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = ferruled ] && kill -9 ${p#/proc/}; done; true";
            node.shell(script)?;
        }
        // The kubelet has to notice first.
        eventually("every agent was restarted", Duration::from_secs(120), || {
            let selector = "app.kubernetes.io/name=ferrule";
            let answer = space.get(&["--namespace", "kube-system", "pods", "--selector", selector])?;
            for pod in answer["items"].as_array().into_iter().flatten() {
                let status = &pod["status"]["containerStatuses"][0];
                let restarted = status["restartCount"].as_u64() > Some(0) && status["ready"] == true;
                ensure!(restarted, "{}: {}", pod["metadata"]["name"], status["state"]);
            }
            Ok(())
        })?;
        space.system_rolled_out(AGENT)
    })
}

/// ADD asks nobody. The agent is taken off the nodes by a selector that no node has.
pub fn without_it_pods_start_all_the_same(space: &Space<'_>) -> Result {
    let patch = |selector: &str| {
        let patch = format!(
            r#"{{"spec": {{"template": {{"spec": {{"nodeSelector": {{"ferrule.dev/nowhere": {selector}}}}}}}}}}}"#
        );
        space.kubectl(&["--namespace", "kube-system", "patch", AGENT, "--patch", &patch]).map(|_| ())
    };
    patch("\"true\"")?;
    let worked = (|| {
        let selector = ["--selector", "app.kubernetes.io/name=ferrule", "--timeout=90s"];
        let wait = ["--namespace", "kube-system", "wait", "--for=delete", "pods"];
        space.kubectl(&[&wait[..], &selector].concat())?;
        let names = one_on_each_node(space)?;
        super::pods::all_reach_all(space, &names).map(|_| ())
    })();
    patch("null")?;
    space.system_rolled_out(AGENT)?;
    worked
}

/// As where routers lie between the nodes, and back again. Pods that run meanwhile keep their connections to each other.
pub fn forced_into_tunnels_all_reach_all(space: &Space<'_>) -> Result {
    let before = one_on_each_node(space)?;
    let routing = |value: &str| {
        space.kubectl(&["--namespace", "kube-system", "set", "env", AGENT, value])?;
        space.system_rolled_out(AGENT)
    };
    routing("ROUTING=vxlan")?;
    let worked = tunnels_carry(space, &before);
    routing("ROUTING-")?;
    worked?;
    super::pods::all_reach_all(space, &before)?;
    ways_lead(space, |way| !way.contains("ferrule-vxlan"))
}

fn tunnels_carry(space: &Space<'_>, before: &[String]) -> Result {
    ways_lead(space, |way| way.contains("dev ferrule-vxlan"))?;
    super::pods::all_reach_all(space, before)?;
    // Those that start now know how much fits into a tunnel.
    let names: Vec<String> = space.nodes.iter().map(|node| format!("later-on-{}", node.name)).collect();
    let pods = names.iter().zip(&space.nodes);
    space.create(pods.map(|(name, node)| Pod::server(name, &space.agnhost).on(node).manifest()))?;
    space.all_ready(Duration::from_secs(120))?;
    super::pods::all_reach_all(space, &names)?;
    for (from, to) in names.iter().zip(names.iter().skip(1)).chain(before.iter().zip(before.iter().skip(1))) {
        super::pods::much_arrives(space, from, to).map_err(|failure| format!("{from} to {to}: {failure}"))?;
    }
    Ok(())
}

/// How the kernel of each node would send to the pods of each other.
fn ways_lead(space: &Space<'_>, well: impl Fn(&str) -> bool) -> Result {
    let pairs = space.nodes.iter().flat_map(|node| space.nodes.iter().map(move |other| (node, other)));
    for (node, other) in pairs.filter(|(node, other)| node.name != other.name) {
        for range in &other.pod_ranges {
            let address = super::pods::near_the_end_of(range, 1)?.to_string();
            eventually(&format!("the way from {} to {range}", node.name), Duration::from_secs(30), || {
                let way = node.run(&["ip", "route", "get", &address])?;
                ensure!(well(&way), "{way}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Those to other nodes first, then all that are marked as ferrule's, which takes its own pods from a node as well.
pub fn routes_that_were_flushed_are_back(space: &Space<'_>) -> Result {
    let names = one_on_each_node(space)?;
    let prelude = "
        ours() { ip route show proto 102; ip -6 route show proto 102; }
        to_nodes() { ours | grep ' via ' | sort; }
        remove() { while read -r route; do ip $1 route del $route || exit 1; done; }";
    let to_nodes = "
        { ip -4 route show proto 102 | grep ' via ' | remove -4; } &&
        { ip -6 route show proto 102 | grep ' via ' | remove -6; }";
    let all = "ip -4 route flush proto 102 && ip -6 route flush proto 102";
    for node in &space.nodes {
        let took = broken_and_mended(node, prelude, "to_nodes", to_nodes)?;
        let took_all = broken_and_mended(node, prelude, "ours | sort", all)?;
        space.note(format!("{}: to other nodes {took} ms, all {took_all} ms", node.name));
    }
    super::pods::all_reach_all(space, &names).map(|_| ())
}

/// With masquerade and hostPorts in it.
pub fn a_table_that_was_flushed_is_back(space: &Space<'_>) -> Result {
    let node = space.worker(0)?;
    let port = 18480;
    let ports = serde_json::json!([{ "containerPort": HTTP, "hostPort": port }]);
    space.create([Pod::server("pod", &space.agnhost).on(node).with_ports(ports).manifest()])?;
    space.all_ready(Duration::from_secs(120))?;
    let outsider = Outsider::start(space)?;
    let family = *space.families.first().ok_or("no family")?;
    let works = || {
        let seen = In(space, "pod").seen_as(outsider.address(family)?, HTTP)?;
        ensure!(seen == node.address(family)?, "the pod is seen as {seen}");
        outsider.ask(node.address(family)?, port, "hostname")
    };
    works()?;
    for what in ["nft flush table inet ferrule", "nft delete table inet ferrule"] {
        // Counters and handles differ afterwards.
        let took = broken_and_mended(node, "", "nft -s list table inet ferrule", what)?;
        works().map_err(|failure| format!("after {what}: {failure}"))?;
        space.note(format!("{what}: back in {took} ms"));
    }
    Ok(())
}

/// Some other tool writes 0.
pub fn forwarding_that_was_switched_off_is_on_again(space: &Space<'_>) -> Result {
    let names = one_on_each_node(space)?;
    for family in &space.families {
        let key = match family {
            Family::V4 => "/proc/sys/net/ipv4/ip_forward",
            Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
        };
        for node in &space.nodes {
            let took = broken_and_mended(node, "", &format!("cat {key}"), &format!("echo 0 >{key}"))?;
            space.note(format!("{}, {family:?}: on again in {took} ms", node.name));
        }
    }
    super::pods::all_reach_all(space, &names).map(|_| ())
}

/// Breaks something on a node and waits, there, until `look` says the same as before; milliseconds from the end of the
/// breaking. Looking takes its time, so the figure is an upper bound.
fn broken_and_mended(node: &Node, prelude: &str, look: &str, breaking: &str) -> Result<u64> {
    let script = format!(
        "{prelude}
         look() {{ {look}; }}
         before=$(look 2>/dev/null); [ -n \"$before\" ] || {{ echo nothing to break; exit 1; }}
         {{ {breaking}; }} || exit 1
         start=$(date +%s%N); end=$((start + 70000000000))
         until [ \"$(look 2>/dev/null)\" = \"$before\" ]; do
             [ $(date +%s%N) -lt $end ] || {{ echo \"was: $before\"; echo \"is: $(look)\"; exit 1; }}
         done
         echo $((($(date +%s%N) - start) / 1000000))"
    );
    let said = node.shell(&script).map_err(|failure| format!("{breaking}: not mended: {failure}"))?;
    said.trim().parse().map_err(|_| format!("not a time: {said:?}").into())
}
