//! `log.file`: where warnings go, and where they must not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use crate::harness::netns::Namespace;
use crate::harness::network::Network;

/// A network with a peer to which there is no way: an ADD that succeeds, with something to tell.
fn network_with_a_warning(role: &str) -> Network {
    let mut network = Network::new(role);
    network.conf["peers"] =
        json!([{"node": "node-b", "podCIDRs": ["10.77.2.0/24"], "nodeIPs": ["198.51.100.7"]}]);
    network
}

#[test]
fn a_warning_lands_in_the_log_file_on_one_line_and_not_on_stderr() {
    let mut network = network_with_a_warning("file");
    let log = network.node.scratch().path().join("ferrule.log");
    network.conf["log"] = json!({"file": log});
    for container in ["c1", "c2"] {
        let pod = Namespace::new("pod");
        let answer = network.call_for("ADD", container, &pod).run();
        answer.success();
        assert_eq!(answer.stderr, "");
    }
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(!lines.is_empty());
    for line in &lines {
        assert!(line.starts_with("level=warn msg=\"") && line.ends_with('"'), "{line:?}");
    }
    assert!(text.contains("node-b"), "{text}");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn without_a_log_file_a_warning_goes_to_stderr_where_runtimes_keep_it() {
    let network = network_with_a_warning("stderr");
    let pod = Namespace::new("pod");
    let answer = network.call_for("ADD", "c1", &pod).run();
    answer.success();
    assert!(answer.stderr.starts_with("level=warn msg=\"") && answer.stderr.contains("node-b"), "{answer:?}");
}

#[test]
fn level_error_leaves_warnings_out() {
    let mut network = network_with_a_warning("level");
    network.conf["log"] = json!({"level": "error"});
    let pod = Namespace::new("pod");
    assert_eq!(network.call_for("ADD", "c1", &pod).run().stderr, "");
}

/// Root writes the log: a symlink there would let whoever placed it append to any file of the node.
#[test]
fn a_log_file_that_is_a_symlink_is_not_followed_and_the_pod_starts_all_the_same() {
    let mut network = network_with_a_warning("symlink");
    let at = |name: &str| network.node.scratch().path().join(name);
    let (victim, absent) = (at("victim"), at("absent"));
    fs::write(&victim, "precious\n").unwrap();
    symlink(&victim, at("to-victim")).unwrap();
    symlink(&absent, at("to-absent")).unwrap();
    network.node.scratch().make_fifo("fifo");
    let logs = ["to-victim", "to-absent", "fifo", "missing/directory/x", "."].map(at);
    for (index, log) in logs.iter().enumerate() {
        network.conf["log"] = json!({"file": log});
        let pod = Namespace::new("pod");
        let container = format!("c{index}");
        let answer = network.call_for("ADD", &container, &pod).run();
        answer.success();
        assert!(
            answer.stderr.contains("level=warn"),
            "{}: told on stderr instead: {answer:?}",
            log.display()
        );
        network.call_for("DEL", &container, &pod).run().success();
        // The warning comes with each attempt on the peer, and not each ADD attempts.
        let _ = fs::remove_dir_all(network.store().path());
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious\n");
    assert!(!absent.exists());
}
