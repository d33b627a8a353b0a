//! The agent follows the Nodes of its cluster.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use super::node::{AgentNode, other, own};
use kit::call::Call;
use kit::pod::Pod;

#[test]
fn a_new_node_becomes_one_that_pods_can_be_added_to() {
    let mut node = AgentNode::new("begin");
    node.api.put(other(11));
    node.start();
    node.wait_for_routes_to(&[11]);
    node.wait("the conf", || node.has("net.d/10-ferrule.conflist"));
    let plugin = fs::metadata(node.path("bin/ferrule")).unwrap();
    assert_eq!(plugin.permissions().mode() & 0o7777, 0o755);
    assert_eq!(node.namespace.sysctl("net/ipv4/ip_forward"), "1");
    assert_eq!(node.namespace.sysctl("net/ipv6/conf/all/forwarding"), "1");
    assert!(node.namespace.ip("route show proto 102").contains("unreachable 10.244.1.0/24"));
    let inside = node.nft("list set inet ferrule no_masquerade4");
    for place in ["10.244.1.0/24", "10.244.11.0/24", "192.0.2.10/31"] {
        assert!(inside.contains(place), "{place}: {inside}");
    }
    let conf = node.conf();
    let call = |command: &str| Call::ferrule(command).on(&node.namespace).conf(&conf);
    call("STATUS").run().success();
    let pod = Pod::new("pod");
    let result = call("ADD").attachment(pod.container(), pod.namespace().path()).run().result();
    assert_eq!(result["ips"][0]["address"], "10.244.1.2/32");
    assert_eq!(result["ips"].as_array().unwrap().len(), 2);
    assert!(
        node.nft("list map inet ferrule masquerade4").contains("10.244.1.2")
            || node.nft("list set inet ferrule masquerade4").contains("10.244.1.2")
    );
    node.wait("the condition", || {
        node.api.written("/nodes/node-a/status").iter().any(|body| {
            let condition = &body["status"]["conditions"][0];
            condition["type"] == "NetworkUnavailable" && condition["status"] == "False"
        })
    });
    node.wait("metrics", || {
        node.metric("ferrule_addresses_used{network=\"podnet\",subnet=\"10.244.1.0/24\",family=\"ipv4\"}")
            == Some(1.0)
    });
    node.wait("phases", || {
        node.metric("ferrule_commands_total{command=\"ADD\",outcome=\"success\",code=\"0\"}") == Some(1.0)
    });
    assert_eq!(node.metric("ferrule_routes_programmed"), Some(2.0));
    call("DEL").attachment(pod.container(), pod.namespace().path()).run().success();
}

#[test]
fn nodes_come_go_and_change_their_addresses_and_podcidrs() {
    let mut node = AgentNode::new("follow");
    node.start_ready();
    for number in [11, 12, 13] {
        node.api.put(other(number));
    }
    node.wait_for_routes_to(&[11, 12, 13]);
    node.api.delete("node-12");
    node.wait_for_routes_to(&[11, 13]);
    let mut moved = other(13);
    moved.internal_ips = vec!["192.0.2.77".into(), "fd00:aa::77".into()];
    node.api.put(moved.clone());
    let has = |route: &str| node.peer_routes().iter().any(|it| it.starts_with(route));
    node.wait("the new address", || {
        has("10.244.13.0/24 via 192.0.2.77") && has("fd00:10:13::/64 via fd00:aa::77")
    });
    moved.pod_cidrs = vec!["10.244.99.0/24".into()];
    node.api.put(moved);
    node.wait("the new podCIDR", || has("10.244.99.0/24 via 192.0.2.77"));
    assert!(!has("10.244.13.0/24") && !has("fd00:10:13::/64"));
    assert!(node.nft("list set inet ferrule no_masquerade4").contains("192.0.2.77"));
}

#[test]
fn heartbeats_cost_nothing() {
    let mut node = AgentNode::new("heartbeat");
    node.api.put(other(11));
    node.start_ready();
    node.wait_for_routes_to(&[11]);
    let steps = |node: &AgentNode| {
        let page = node.page("/metrics").unwrap();
        let counts = page.lines().filter(|line| line.starts_with("ferrule_step_duration_seconds_count"));
        counts.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = steps(&node);
    for heartbeat in 1..=50 {
        let mut alive = other(11);
        alive.heartbeat = heartbeat;
        node.api.put(alive);
    }
    // Told after the heartbeats, so done after them.
    node.api.put(other(12));
    node.wait_for_routes_to(&[11, 12]);
    let after = steps(&node);
    let count = |steps: &[String], step: &str| -> u64 {
        let line = steps.iter().find(|line| line.contains(&format!("\"{step}\"")));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    };
    assert_eq!(count(&after, "routes_of_some"), count(&before, "routes_of_some") + 1);
    assert_eq!(count(&after, "routes"), count(&before, "routes"));
}

#[test]
fn a_bad_node_is_told_and_stops_nobody() {
    let mut node = AgentNode::new("bad");
    let mut without_cidr = other(21);
    without_cidr.pod_cidrs.clear();
    let mut far = other(22);
    far.internal_ips = vec!["203.0.113.22".into()];
    let mut twin = other(23);
    twin.pod_cidrs = vec!["10.244.11.0/24".into()];
    twin.created = "2026-11-24T00:00:00Z".into();
    for bad in [without_cidr, far, twin] {
        node.api.put(bad);
    }
    node.api.put(other(11));
    node.start_ready();
    node.wait_for_routes_to(&[11]);
    let log = node.log();
    for words in ["node=node-21", "peer=node-22", "node=node-23"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    assert!(node.metric("ferrule_peer_errors_total{peer=\"node-22\"}").is_some_and(|count| count >= 1.0));
    assert_eq!(node.metric("ferrule_nodes_with_problems"), Some(3.0));
    // It has its podCIDR at last, and the twin is gone.
    node.api.put(other(21));
    node.api.delete("node-11");
    let has = |route: &str| node.peer_routes().iter().any(|it| it.starts_with(route));
    node.wait("the twin's route", || has("10.244.11.0/24 via 192.0.2.23"));
    node.wait("the late one's route", || has("10.244.21.0/24 via 192.0.2.21"));
}

#[test]
fn a_changed_node_address_reaches_conf_routes_and_running_pods() {
    let mut node = AgentNode::new("moved");
    node.api.put(other(11));
    node.start_ready();
    let conf = node.conf();
    let pod = Pod::new("pod");
    let call = Call::ferrule("ADD").on(&node.namespace).conf(&conf);
    call.attachment(pod.container(), pod.namespace().path()).run().result();
    let inode = fs::metadata(node.path("net.d/10-ferrule.conflist")).unwrap().ino();
    // As a kind node that was restarted.
    node.namespace.ip("address delete 192.0.2.10/24 dev eth0");
    node.namespace.ip("address add 192.0.2.50/24 dev eth0");
    let mut moved = own();
    moved.internal_ips = vec!["192.0.2.50".into(), "fd00:aa::10".into()];
    node.api.put(moved);
    node.wait("routes with the new source", || {
        node.peer_routes().contains(&"10.244.11.0/24 via 192.0.2.11 src 192.0.2.50".to_owned())
    });
    node.wait("the pod's route with the new source", || {
        node.namespace.ip("route show 10.244.1.2").contains("src 192.0.2.50")
    });
    node.wait("the new conf", || node.conf()["nodeIPs"][0] == "192.0.2.50");
    assert_ne!(fs::metadata(node.path("net.d/10-ferrule.conflist")).unwrap().ino(), inode);
}

#[test]
fn a_node_without_a_podcidr_waits_and_gets_no_conf() {
    let mut node = AgentNode::new("waits");
    let mut without = own();
    without.pod_cidrs.clear();
    node.api.put(without);
    node.start();
    node.wait("word of it", || node.log().contains("has no podCIDR"));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!node.has("net.d/10-ferrule.conflist"));
    assert!(node.page("/readyz").unwrap().contains(" 503 "));
    assert!(node.page("/healthz").unwrap().contains(" 200 "));
    node.api.put(own());
    node.wait("the conf", || node.has("net.d/10-ferrule.conflist"));
}

#[test]
fn a_runtime_that_ignores_the_conf_is_nudged() {
    let mut node = AgentNode::new("nudge");
    fs::create_dir(node.path("net.d")).unwrap();
    fs::write(node.path("net.d/05-other.conflist"), "{}").unwrap();
    let mut waiting = own();
    waiting.ready = false;
    waiting.awaits_network = true;
    node.api.put(waiting);
    node.start_ready();
    let inode = || fs::metadata(node.path("net.d/10-ferrule.conflist")).unwrap().ino();
    let first = inode();
    node.wait("the event", || {
        let events = node.api.written("/events");
        events
            .iter()
            .any(|event| event["reason"] == "OtherNetworkFirst" && event["regarding"]["name"] == "node-a")
    });
    node.wait("a second writing", || inode() != first);
    assert!(node.has("net.d/05-other.conflist"));
}
