//! A plugin that fails, dies or hangs, or an ADD that dies behind it: its addresses are given back.

use std::fs;
use std::time::{Duration, Instant};

use kit::netns::Namespace;

use super::{call, commands, expect_taken_back, scripted};

#[test]
fn an_answer_that_is_no_result_fails_the_add_and_is_taken_back() {
    for (role, answer) in [
        ("silent", "true"),
        ("garbage", "echo garbage"),
        ("two", "echo '{\"ips\":[]}{}'"),
        ("empty", "echo '{\"cniVersion\":\"1.0.0\",\"ips\":[]}'"),
        ("noaddress", "echo '{\"ips\":[{}]}'"),
        ("malformed", "echo '{\"ips\":[{\"address\":\"10.77.1.300/24\"}]}'"),
        ("list", "echo '[]'"),
        ("binary", "head -c 1000 /dev/urandom"),
        ("endless", "exec cat /dev/zero"),
    ] {
        let network = scripted(role, answer);
        let complaint = expect_taken_back(&network, 6);
        assert!(complaint.contains(&format!("\"{role}\"")), "names the plugin: {complaint}");
    }
}

#[test]
fn a_plugin_that_dies_is_named_and_asked_to_take_back() {
    for (role, death, told) in [
        ("killed", "kill -9 $$", "signal: 9"),
        ("fails", "exit 3", "exit status: 3"),
        ("babbles", "echo some text; exit 1", "some text"),
        ("floods", "head -c 500000 /dev/zero | tr '\\0' x; exit 1", "exit status: 1"),
    ] {
        let network = scripted(role, death);
        let complaint = expect_taken_back(&network, 5);
        assert!(complaint.contains(role) && complaint.contains(told), "{complaint}");
    }
}

#[test]
fn a_plugins_error_is_passed_on_and_it_is_asked_to_take_back() {
    let network = scripted(
        "refuses",
        "echo '{\"code\": 123, \"msg\": \"no more\", \"details\": \"of anything\"}'; exit 1",
    );
    assert_eq!(expect_taken_back(&network, 123), "no more: of anything");
}

#[test]
fn a_plugin_that_cannot_be_executed_is_an_error_that_says_why() {
    let network = scripted("sealed", "true");
    let program = network.node.scratch().path().join("sealed");
    fs::write(&program, "\u{7f}no program").unwrap();
    let pod = Namespace::new("pod");
    let complaint = call(&network, "ADD", "c1", &pod).run().complaint(5);
    assert!(complaint.contains("sealed") && complaint.contains("os error"), "{complaint}");
    network.assert_nothing_remains();
}

/// A pod that waits for ever for its address keeps kubelet's worker for ever. What the plugin started keeps
/// our stderr open, and a runtime waits for its end: it must go too.
#[test]
fn a_plugin_that_hangs_is_killed_with_its_children() {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for (role, hang) in [("hangs", "exec sleep 45"), ("forks", "sleep 45; true")] {
            scope.spawn(move || {
                let network = scripted(role, hang);
                let complaint = expect_taken_back(&network, 11);
                assert!(complaint.contains(role) && complaint.contains("killed"), "{complaint}");
            });
        }
    });
    let waited = begun.elapsed();
    assert!(waited > Duration::from_secs(8) && waited < Duration::from_secs(30), "{waited:?}");
}

/// Killed between the plugin's ADD and the end of its own (P1, P12): whoever comes next has the plugin take back.
#[test]
fn the_next_add_or_del_returns_the_address_of_a_killed_add() {
    let answer = "echo '{\"ips\":[{\"address\":\"10.77.1.9/24\"}]}'";
    for next in ["ADD", "DEL"] {
        let network =
            scripted("deadly", "cd \"$(dirname \"$0\")\"; [ -e dead ] || { touch dead; kill -9 $PPID; }");
        let program = network.node.scratch().path().join("deadly");
        let script = fs::read_to_string(&program).unwrap();
        fs::write(&program, script + answer).unwrap();
        let pod = Namespace::new("pod");
        let killed = call(&network, "ADD", "c1", &pod).spawn().wait_for_any_end();
        assert!(!killed.status.success() && killed.stdout.is_empty(), "{killed:?}");

        call(&network, next, "c1", &pod).run().success();
        if next == "ADD" {
            assert_eq!(commands(&network), ["ADD", "DEL", "ADD"]);
            assert_eq!(network.held(), ["10.77.1.9"]);
            call(&network, "DEL", "c1", &pod).run().success();
        } else {
            assert_eq!(commands(&network), ["ADD", "DEL"]);
        }
        network.assert_nothing_remains();
    }
}

/// An address stays known until the plugin whose it is has taken it back.
#[test]
fn a_del_that_the_plugin_refuses_can_be_tried_again() {
    let network = scripted("flaky", "echo '{\"ips\":[{\"address\":\"10.77.1.9/24\"}]}'");
    let pod = Namespace::new("pod");
    call(&network, "ADD", "c1", &pod).run().success();
    let program = network.node.scratch().path().join("flaky");
    let script = fs::read_to_string(&program).unwrap();
    fs::write(&program, "#!/bin/sh\necho '{\"code\": 11, \"msg\": \"busy\"}'; exit 1\n").unwrap();
    assert_eq!(call(&network, "DEL", "c1", &pod).run().complaint(11), "busy: ");
    assert_eq!(network.known(), ["c1@eth0"]);
    fs::write(&program, script).unwrap();
    call(&network, "DEL", "c1", &pod).run().success();
    network.assert_nothing_remains();
}
