//! Agents end, API servers go away, and pods notice neither.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use super::api::NodeSpec;
use super::node::{AgentNode, other};

#[test]
fn it_ends_well_and_leaves_the_network_running() {
    let mut node = AgentNode::new("ends");
    node.api.put(other(11));
    node.start_ready();
    node.wait_for_routes_to(&[11]);
    assert!(node.end(Signal::TERM));
    node.wait_for_routes_to(&[11]);
    assert!(node.nft("list table inet ferrule").contains("fully-random"));
    assert!(node.has("net.d/10-ferrule.conflist"));
    assert!(node.has("data/podnet/agent.json"), "what it knew is remembered");
}

#[test]
fn after_a_reboot_without_the_api_it_uses_what_it_last_knew() {
    let mut node = AgentNode::new("reboot");
    node.api.put(other(11));
    node.api.put(other(12));
    node.start_ready();
    node.wait_for_routes_to(&[11, 12]);
    // Routes on trial would be withdrawn by an agent that is not answered.
    std::thread::sleep(Duration::from_secs(3));
    node.api.put(NodeSpec { heartbeat: 1, ..other(11) });
    let is_trusted = || fs::read_to_string(node.path("data/podnet/agent.json")).unwrap_or_default();
    node.wait("its memory", || is_trusted().contains("\"onTrial\":[]"));
    node.end(Signal::TERM);
    node.namespace.ip("route flush proto 102");
    node.namespace.ip("-6 route flush proto 102");
    node.nft("flush ruleset");
    // Of an earlier life: nobody can say yet that it is stale.
    let metric =
        ferrule::desired::names::route_metric(&ferrule::cni::ids::NetworkName::parse("podnet").unwrap());
    node.namespace.ip(&format!("route add 10.244.66.0/24 via 192.0.2.66 proto 102 metric {metric}"));
    fs::remove_file(node.path("net.d/10-ferrule.conflist")).unwrap();
    node.api.be_away(true);
    node.api.delete_unseen("node-12");
    node.start();
    let has = |route: &str| node.peer_routes().iter().any(|it| it.starts_with(route));
    node.wait("what it last knew", || has("10.244.11.0/24 via 192.0.2.11") && has("10.244.12.0/24"));
    node.wait("the table", || node.nft("list table inet ferrule").contains("fully-random"));
    assert!(!node.has("net.d/10-ferrule.conflist"), "the API server may know better");
    node.wait("the conf", || node.has("net.d/10-ferrule.conflist"));
    assert!(has("10.244.66.0/24"), "not before the list is complete");
    node.api.be_away(false);
    node.wait_for_routes_to(&[11]);
}

#[test]
fn killed_and_started_again_it_disturbs_nothing() {
    let mut node = AgentNode::new("killed");
    node.api.put(other(11));
    node.start_ready();
    node.wait_for_routes_to(&[11]);
    let before = node.namespace.ip("-s route show table all proto 102");
    let handle = node.nft("-a list table inet ferrule");
    node.end(Signal::KILL);
    node.start_ready();
    assert_eq!(node.namespace.ip("-s route show table all proto 102"), before);
    assert_eq!(node.nft("-a list table inet ferrule"), handle, "no rule and no set was made anew");
}

#[test]
fn broken_watches_and_lost_history_lose_no_change() {
    let mut node = AgentNode::new("broken");
    node.api.put(other(11));
    node.start_ready();
    node.wait_for_routes_to(&[11]);
    // Cut in the middle: it goes on from where it was.
    node.api.cut();
    node.api.put(other(12));
    node.wait_for_routes_to(&[11, 12]);
    // History is gone, and with it the news that a node left: only a new list tells.
    for (by_refusal, gone, come, rest) in [(false, "node-11", 13, [12, 13]), (true, "node-12", 14, [13, 14])]
    {
        let (lists, _) = node.api.lists_and_watches();
        node.api.delete_unseen(gone);
        node.api.compact(by_refusal);
        node.api.put(other(come));
        node.wait_for_routes_to(&rest);
        assert!(node.api.lists_and_watches().0 > lists, "410 Gone asks for a list");
    }
    // Away for a while, and back.
    node.api.be_away(true);
    std::thread::sleep(Duration::from_millis(500));
    node.api.put(other(15));
    node.api.be_away(false);
    node.wait_for_routes_to(&[13, 14, 15]);
    assert!(node.page("/healthz").unwrap().contains(" 200 "));
}

#[test]
fn in_a_small_cluster_reconnecting_does_not_take_long() {
    let mut node = AgentNode::new("patience");
    node.api.put(other(11));
    node.start_ready();
    node.wait_for_routes_to(&[11]);
    node.api.be_away(true);
    // Were its pauses those of a large cluster, so many tries would take it minutes.
    let tries = || node.metric("ferrule_errors_total{step=\"watch\"}").unwrap_or_default();
    node.wait("ten tries", || tries() >= 10.0);
    node.api.put(other(12));
    node.api.be_away(false);
    node.wait_for_routes_to(&[11, 12]);
}

#[test]
fn an_api_server_away_from_the_start_is_logged_once() {
    let mut node = AgentNode::new("nobody");
    node.api.be_away(true);
    node.start();
    node.wait("six tries", || {
        node.metric("ferrule_errors_total{step=\"watch\"}").is_some_and(|tries| tries >= 6.0)
    });
    let told = |words: &str| node.log().matches(words).count();
    assert_eq!(told("API server not reachable"), 1, "{}", node.log());
    assert_eq!(told("API server reachable again"), 0, "{}", node.log());
    // Not by the library as well, at each try.
    assert_eq!(told("level=error"), 0, "{}", node.log());
    assert_eq!(node.metric("ferrule_api_up"), Some(0.0));
    node.api.be_away(false);
    node.wait("word of it", || told("API server reachable again") == 1);
    assert_eq!(node.metric("ferrule_api_up"), Some(1.0));
}

/// Kubelet tells each pod of the Services of its namespace: one named `vxlan` sets VXLAN_PORT.
#[test]
fn services_of_any_name_keep_no_agent_from_starting() {
    let names =
        ["ferrule", "vxlan", "mtu", "listen", "network", "node", "bin", "conf", "data", "plugin", "routing"];
    let more =
        ["masquerade", "non_masquerade", "forward", "drop", "log", "apiserver", "uninstall", "ferrule_vxlan"];
    let mut node = AgentNode::new("services");
    node.through = vec!["env".into()];
    for name in names.iter().chain(&more) {
        let name = name.to_uppercase();
        for (end, value) in [
            ("PORT", "tcp://10.96.0.5:8472"),
            ("SERVICE_HOST", "10.96.0.5"),
            ("SERVICE_PORT", "8472"),
            ("PORT_8472_TCP_ADDR", "10.96.0.5"),
        ] {
            node.through.push(format!("{name}_{end}={value}"));
        }
    }
    // And what other programs in the same pod are told.
    for other in ["MTU=tcp://10.96.0.5:1", "LISTEN=tcp://10.96.0.5:1", "NETWORK=a/b", "UNINSTALL=true"] {
        node.through.push(other.to_owned());
    }
    node.start_ready();
    assert!(node.namespace.ip("route show proto 102").contains("unreachable 10.244.1.0/24"));
}

#[test]
fn variables_of_the_agent_set_what_flags_set() {
    let mut node = AgentNode::new("variables");
    node.through = vec!["env".into(), "FERRULE_MTU=1380".into(), "FERRULE_MASQUERADE=false".into()];
    node.start_ready();
    let conf = node.conf();
    assert_eq!((conf["mtu"].as_u64(), conf["ipMasq"].as_bool()), (Some(1380), Some(false)));
}

/// A setting of the conf and of the node's rules, which goes when it is switched off.
#[test]
fn the_metadata_service_is_refused_where_it_is_asked_for() {
    let mut node = AgentNode::new("metadata");
    let refusals = |node: &AgentNode| {
        let rules = ["-4", "-6"].map(|family| node.namespace.ip(&format!("{family} rule show")));
        rules.concat().lines().filter(|line| line.contains("unreachable")).count()
    };
    node.words = vec!["--block-instance-metadata".into()];
    node.start_ready();
    assert_eq!((refusals(&node), node.conf()["blockInstanceMetadata"].as_bool()), (3, Some(true)));
    node.namespace.ip("rule delete from 10.244.1.0/24 to 169.254.169.254 pref 8");
    node.wait("it to be there again", || refusals(&node) == 3);
    node.end(Signal::TERM);
    node.words.clear();
    node.start_ready();
    assert_eq!((refusals(&node), node.conf()["blockInstanceMetadata"].as_bool()), (0, None));
}
