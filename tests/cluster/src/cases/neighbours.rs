//! Other programs' plugins beside the agent's conflist.

use std::time::Duration;

use super::pods;
use crate::cluster::Node;
use crate::ensure;
use crate::pod::Pod;
use crate::process::{Result, eventually};
use crate::space::Space;

const AGENT: &str = "daemonset/ferrule";
const CONF: &str = "/etc/cni/net.d/10-ferrule.conflist";

/// A chained plugin that notes each ADD, and answers what it was given: portmap without a mapping does.
const INSTALL: &str = r#"
    set -e
    printf '%s\n' '#!/bin/sh' '[ "$CNI_COMMAND" != ADD ] || echo "$CNI_CONTAINERID" >>/run/ferrule-chained' \
        'exec "${0%/*}/portmap"' >/opt/cni/bin/ferrule-chained
    chmod 755 /opt/cni/bin/ferrule-chained
    rm -f /run/ferrule-chained"#;

/// As istio-cni and linkerd-cni do it: at the end of the list.
const CHAIN: &str = r#"
    jq -c '.plugins += [{"type": "ferrule-chained"}]' /etc/cni/net.d/10-ferrule.conflist >/etc/cni/net.d/.chained
    mv /etc/cni/net.d/.chained /etc/cni/net.d/10-ferrule.conflist"#;

const UNCHAIN: &str = r#"
    jq -c 'del(.plugins[] | select(.type == "ferrule-chained"))' /etc/cni/net.d/10-ferrule.conflist \
        >/etc/cni/net.d/.chained
    mv /etc/cni/net.d/.chained /etc/cni/net.d/10-ferrule.conflist
    rm -f /opt/cni/bin/ferrule-chained /run/ferrule-chained"#;

/// A plugin that another program put behind ours is called for each pod, and stays through a restart of the agents and
/// through an upgrade that changes our own entry.
pub fn a_chained_plugin_stays_through_restart_and_upgrade(space: &Space<'_>) -> Result {
    let all = |script: &str| space.nodes.iter().try_for_each(|node| node.shell(script).map(|_| ()));
    all(INSTALL)?;
    all(CHAIN)?;
    let outcome = chained(space);
    let mtu = set_mtu(space, "FERRULE_MTU-");
    all(UNCHAIN)?;
    outcome.and(mtu)
}

fn chained(space: &Space<'_>) -> Result {
    works_on_each(space, "at-first")?;
    space.kubectl(&["--namespace", "kube-system", "rollout", "restart", AGENT])?;
    space.system_rolled_out(AGENT)?;
    works_on_each(space, "restarted")?;
    set_mtu(space, "FERRULE_MTU=1380")?;
    for node in &space.nodes {
        let own = node.shell(&format!("jq .plugins[0].mtu {CONF}"))?;
        ensure!(own.trim() == "1380", "{}: the agent's own entry says {own}", node.name);
    }
    works_on_each(space, "upgraded")
}

fn set_mtu(space: &Space<'_>, value: &str) -> Result {
    space.kubectl(&["--namespace", "kube-system", "set", "env", AGENT, value])?;
    space.system_rolled_out(AGENT)
}

/// A pod on each node has its network, and the chained plugin was asked for it.
fn works_on_each(space: &Space<'_>, name: &str) -> Result {
    for node in &space.nodes {
        let types = node.shell(&format!("jq -r .plugins[].type {CONF}"))?;
        ensure!(types.split_whitespace().eq(["ferrule", "ferrule-chained"]), "{}: {types}", node.name);
    }
    let before = space.nodes.iter().map(calls).collect::<Result<Vec<usize>>>()?;
    let names: Vec<String> = space.nodes.iter().map(|node| format!("{name}-{}", node.name)).collect();
    let servers = names.iter().zip(&space.nodes);
    space.create(servers.map(|(name, node)| Pod::server(name, &space.agnhost).on(node).manifest()))?;
    space.all_ready(Duration::from_secs(120))?;
    pods::all_reach_all(space, &names)?;
    for (node, before) in space.nodes.iter().zip(before) {
        eventually(&format!("the chained plugin on {}", node.name), Duration::from_secs(10), || {
            let now = calls(node)?;
            ensure!(now > before, "it was asked {now} times, and {before} times before");
            Ok(())
        })?;
    }
    Ok(())
}

fn calls(node: &Node) -> Result<usize> {
    Ok(node.shell("cat /run/ferrule-chained 2>/dev/null || true")?.lines().count())
}

/// What multus does for pods without networks of their own: it hands its first delegate to that one's plugin.
const MULTUS: &str = r#"
    set -e
    printf '%s\n' '#!/bin/sh' 'conf=$(cat)' \
        '[ "$CNI_COMMAND" = VERSION ] || conf=$(echo "$conf" | jq -c ".delegates[0] + del(.delegates, .type, .name)")' \
        'echo "$conf" | "${0%/*}/ferrule"' >/opt/cni/bin/multus-double
    chmod 755 /opt/cni/bin/multus-double
    jq -c '{cniVersion: "1.0.0", name: "multus-cni-network", type: "multus-double",
            capabilities: .plugins[0].capabilities, delegates: [.plugins[0] + {name: .name}]}' \
        /etc/cni/net.d/10-ferrule.conflist >/etc/cni/net.d/.multus
    mv /etc/cni/net.d/.multus /etc/cni/net.d/00-multus.conf"#;

/// Multus' file comes first on purpose. Pods have their network, and neither agent nor doctor want it away.
pub fn multus_in_front_stays_there_and_pods_start(space: &Space<'_>) -> Result {
    let all = |script: &str| space.nodes.iter().try_for_each(|node| node.shell(script).map(|_| ()));
    all(MULTUS)?;
    let outcome = below_multus(space);
    all("rm -f /etc/cni/net.d/00-multus.conf /opt/cni/bin/multus-double")?;
    outcome
}

fn below_multus(space: &Space<'_>) -> Result {
    space.kubectl(&["--namespace", "kube-system", "rollout", "restart", AGENT])?;
    space.system_rolled_out(AGENT)?;
    let names = pods::one_on_each_node(space)?;
    pods::all_reach_all(space, &names)?;
    let events = space.kubectl(&["--namespace", "default", "get", "events", "--output", "json"])?;
    ensure!(!events.contains("00-multus.conf"), "the agents report multus: {events}");
    // From there it cannot look at everything, which is 3; a fault is 1.
    let doctor = ["--namespace", "kube-system", "exec", AGENT, "--", "/ferrulectl", "doctor"];
    match space.kubectl(&doctor) {
        Err(failure) if !failure.to_string().contains("exit code 3") => Err(failure),
        _ => Ok(()),
    }
}
