//! The agent may go and come back.

use std::time::{Duration, Instant};

use super::pods;
use crate::ensure;
use crate::pod::Pod;
use crate::probe;
use crate::process::{Result, eventually, seconds};
use crate::space::Space;

/// The agents' DaemonSet.
pub const AGENT: &str = "daemonset/ferrule";

/// An upgrade is a rollout.
pub fn rolled_out_again_it_costs_no_packet(space: &Space<'_>) -> Result {
    let names = pods::one_on_each_node(space)?;
    let start = Instant::now();
    let (took, losses) = probe::during(space, &names, || {
        space.kubectl(&["--namespace", "kube-system", "rollout", "restart", AGENT])?;
        space.system_rolled_out(AGENT)?;
        Ok(start.elapsed())
    })?;
    space.note(format!("rolled out in {}", seconds(took)));
    losses.none()
}

/// ADD asks nobody.
pub fn without_it_pods_start_all_the_same(space: &Space<'_>) -> Result {
    without_agents(space, || {
        let names = pods::one_on_each_node(space)?;
        pods::all_reach_all(space, &names).map(|_| ())
    })
}

/// Does something while no node has an agent. They are taken off the nodes by a selector that no node has.
pub fn without_agents<T>(space: &Space<'_>, act: impl FnOnce() -> Result<T>) -> Result<T> {
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
        act()
    })();
    patch("null")?;
    space.system_rolled_out(AGENT)?;
    worked
}

/// As where routers lie between the nodes, and back again. Pods that run meanwhile keep their connections to each other.
pub fn forced_into_tunnels_all_reach_all(space: &Space<'_>) -> Result {
    let before = pods::one_on_each_node(space)?;
    let routing = |value: &str| {
        space.kubectl(&["--namespace", "kube-system", "set", "env", AGENT, value])?;
        space.system_rolled_out(AGENT)
    };
    routing("FERRULE_ROUTING=vxlan")?;
    let worked = tunnels_carry(space, &before);
    routing("FERRULE_ROUTING-")?;
    worked?;
    pods::all_reach_all(space, &before)?;
    ways_lead(space, |way| !way.contains("ferrule-vxlan"))
}

/// As docs/security-model.md advises it. Kubelet's probes go on passing.
pub fn listening_on_the_loopback_it_is_ready(space: &Space<'_>) -> Result {
    let listen = |value: &str| {
        space.kubectl(&["--namespace", "kube-system", "set", "env", AGENT, value])?;
        space.system_rolled_out(AGENT)
    };
    let worked = listen("FERRULE_LISTEN=127.0.0.1:9690");
    listen("FERRULE_LISTEN-")?;
    worked
}

/// By the lines of docs/install.md.
pub fn settings_come_from_a_config_map(space: &Space<'_>) -> Result {
    let restart = || {
        space.kubectl(&["--namespace", "kube-system", "rollout", "restart", AGENT])?;
        space.system_rolled_out(AGENT)
    };
    let mtu_is = |mtu: &str| {
        space.nodes.iter().try_for_each(|node| {
            let found = node.shell("jq .plugins[0].mtu /etc/cni/net.d/10-ferrule.conflist")?;
            ensure!(found.trim() == mtu, "{}: mtu {found}", node.name);
            Ok(())
        })
    };
    let line = "kubectl --namespace kube-system create configmap ferrule --from-literal=FERRULE_MTU=1400";
    space.follow(line)?;
    let worked = restart().and_then(|()| mtu_is("1400"));
    space.kubectl(&["--namespace", "kube-system", "delete", "configmap", "ferrule"])?;
    restart()?;
    worked?;
    mtu_is("null")
}

fn tunnels_carry(space: &Space<'_>, before: &[String]) -> Result {
    ways_lead(space, |way| way.contains("dev ferrule-vxlan"))?;
    pods::all_reach_all(space, before)?;
    // Those that start now know how much fits into a tunnel.
    let names: Vec<String> = space.nodes.iter().map(|node| format!("later-on-{}", node.name)).collect();
    let pods = names.iter().zip(&space.nodes);
    space.create(pods.map(|(name, node)| Pod::server(name, &space.agnhost).on(node).manifest()))?;
    space.all_ready(Duration::from_secs(120))?;
    pods::all_reach_all(space, &names)?;
    for (from, to) in names.iter().zip(names.iter().skip(1)).chain(before.iter().zip(before.iter().skip(1))) {
        pods::much_arrives(space, from, to).map_err(|failure| format!("{from} to {to}: {failure}"))?;
    }
    Ok(())
}

/// How the kernel of each node would send to the pods of each other.
fn ways_lead(space: &Space<'_>, well: impl Fn(&str) -> bool) -> Result {
    let pairs = space.nodes.iter().flat_map(|node| space.nodes.iter().map(move |other| (node, other)));
    for (node, other) in pairs.filter(|(node, other)| node.name != other.name) {
        for range in &other.pod_ranges {
            let address = pods::near_the_end_of(range, 1)?.to_string();
            eventually(&format!("the way from {} to {range}", node.name), Duration::from_secs(30), || {
                let way = node.run(&["ip", "route", "get", &address])?;
                ensure!(well(&way), "{way}");
                Ok(())
            })?;
        }
    }
    Ok(())
}
