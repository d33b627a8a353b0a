//! A node as if ferrule had never been there.

use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::node::{AgentNode, other};
use kit::binaries::FERRULED;
use kit::call::Call;
use kit::pod::Pod;

#[test]
fn it_refuses_while_pods_run_and_then_leaves_nothing() {
    let mut node = AgentNode::new("uninstall");
    node.namespace.set_sysctl("net/ipv4/ip_forward", "0");
    node.api.put(other(11));
    node.start_ready();
    node.wait_for_routes_to(&[11]);
    assert_eq!(node.namespace.sysctl("net/ipv4/ip_forward"), "1");
    let conf = node.conf();
    let pod = Pod::new("pod");
    let call = |command: &str| {
        let call = Call::ferrule(command).on(&node.namespace).conf(&conf);
        call.attachment(pod.container(), pod.namespace().path())
    };
    call("ADD").run().result();
    let del = call("DEL");
    node.end(Signal::TERM);
    assert!(!node.uninstall(&[]), "a pod is running");
    assert!(node.has("net.d/10-ferrule.conflist") && node.has("bin/ferrule"));
    assert!(!node.peer_routes().is_empty());
    del.run().success();
    assert!(node.uninstall(&[]));
    assert_eq!(node.namespace.ip("route show table all proto 102"), "");
    assert_eq!(node.namespace.ip("-6 route show table all proto 102"), "");
    for family in ["-4", "-6"] {
        assert!(!node.namespace.ip(&format!("-d {family} rule show")).contains("proto 102"));
    }
    assert_eq!(node.nft("list tables"), "");
    for name in ["net.d/10-ferrule.conflist", "bin/ferrule", "data/podnet"] {
        assert!(!node.has(name), "{name}");
    }
    assert_eq!(node.namespace.sysctl("net/ipv4/ip_forward"), "0", "as it was");
    assert!(node.uninstall(&[]), "twice is a success");
}

#[test]
fn told_that_pods_may_lose_their_network_it_goes_on() {
    let mut node = AgentNode::new("forced");
    node.start_ready();
    let pod = Pod::new("pod");
    let call = Call::ferrule("ADD").on(&node.namespace).conf(&node.conf());
    call.attachment(pod.container(), pod.namespace().path()).run().result();
    node.end(Signal::TERM);
    assert!(node.uninstall(&["--yes-pods-lose-their-network"]));
    assert!(!node.namespace.ip("link show").contains("ferrule:"));
    assert!(!node.has("data/podnet") && !node.has("net.d/10-ferrule.conflist"));
}

/// What is left of the pod that has cleaned a node: it needs no other image and no right.
#[test]
fn idle_it_waits_for_its_end() {
    let mut idle = Command::new(&*FERRULED).args(["--idle", "--node-name", "a"]).spawn().unwrap();
    let id = idle.id();
    let handles_sigterm = || {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (Signal::TERM.as_raw() - 1)) != 0
    };
    while !handles_sigterm() {
        assert!(idle.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&idle), Signal::TERM).unwrap();
    assert!(idle.wait().unwrap().success());
}
