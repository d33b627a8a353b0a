//! `log`: what is told at which level, where it goes, and where it must not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use serde_json::json;

use kit::netns::Namespace;
use kit::network::Network;

/// A network with a peer to which there is no way: an ADD that succeeds, with something to tell.
fn network_with_a_warning(role: &str) -> Network {
    let mut network = Network::new(role);
    network.conf["peers"] =
        json!([{"node": "node-b", "podCIDRs": ["10.77.2.0/24"], "nodeIPs": ["198.51.100.7"]}]);
    network
}

#[test]
fn a_warning_is_one_line_of_the_log_file() {
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
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.starts_with("time=20") && time.ends_with('Z'), "{line:?}");
        assert!(rest.starts_with("level=warn msg=\"") && rest.ends_with('"'), "{line:?}");
    }
    assert!(text.contains("node-b"), "{text}");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn without_a_log_file_a_warning_goes_to_stderr() {
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
fn a_log_file_that_is_a_symlink_is_not_followed() {
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

/// The value of a field of a line.
fn field<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn milliseconds(line: &str, key: &str) -> f64 {
    let value = field(line, key).unwrap_or_else(|| panic!("no {key} in {line}"));
    value.strip_suffix("ms").unwrap().parse().unwrap()
}

#[test]
fn level_info_is_one_line_a_command_with_its_phases() {
    let mut network = Network::new("info");
    network.conf["log"] = json!({"level": "info"});
    let pod = Namespace::new("pod");
    let pod_name = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0";
    let add = network.call_for("ADD", "c1", &pod).env("CNI_ARGS", pod_name).run();
    add.success();
    let [line] = add.stderr.lines().collect::<Vec<_>>()[..] else { panic!("{add:?}") };
    assert!(line.starts_with("level=info cmd=ADD attachment=net/c1/eth0 pod=default/web-0 ips="), "{line}");
    assert_eq!(field(line, "ips"), Some("10.77.1.2,fd00:77:1::2"));
    let phases = ["lock", "ipam", "link", "addresses"].map(|phase| milliseconds(line, phase));
    assert!(phases.iter().sum::<f64>() <= milliseconds(line, "took"), "{line}");
    assert!(phases.iter().all(|took| *took > 0.0), "{line}");

    let status = network.call("STATUS").conf(&{
        let mut conf = network.conf.clone();
        conf["cniVersion"] = json!("1.1.0");
        conf
    });
    assert_eq!(status.run().stderr, "", "asked for every five seconds");
    let del = network.call_for("DEL", "c1", &pod).run();
    assert_eq!(del.stderr.lines().count(), 1);
    for phase in ["lock", "link", "ipam"] {
        milliseconds(&del.stderr, phase);
    }
}

#[test]
fn level_debug_tells_every_step_before_that() {
    let mut network = Network::new("debug");
    network.conf["log"] = json!({"level": "debug"});
    let pod = Namespace::new("pod");
    let add = network.call_for("ADD", "c1", &pod).run();
    add.success();
    let lines: Vec<&str> = add.stderr.lines().collect();
    let steps: Vec<Option<&str>> = lines.iter().map(|line| field(line, "step")).collect();
    assert_eq!(steps, [Some("lock"), Some("ipam"), Some("link"), Some("nft"), Some("addresses"), None]);
    assert!(lines[0].starts_with("level=debug cmd=ADD attachment=net/c1/eth0 step=lock at="), "{lines:?}");
    network.conf["cniVersion"] = json!("1.1.0");
    let status = network.call("STATUS").run();
    assert!(status.stderr.starts_with("level=debug cmd=STATUS network=net took="), "{status:?}");
}

#[test]
fn a_trace_of_the_runtime_is_in_each_line() {
    let mut network = network_with_a_warning("trace");
    network.conf["log"] = json!({"level": "info"});
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (trace, is_told) in [(trace, true), ("0 level=error", false)] {
        let pod = Namespace::new("pod");
        let answer = network.call_for("ADD", "c1", &pod).env("TRACEPARENT", trace).run();
        answer.success();
        assert!(answer.stderr.lines().count() >= 1);
        for line in answer.stderr.lines() {
            assert_eq!(line.ends_with(&format!(" traceparent={trace}")), is_told, "{line}");
        }
        network.call_for("DEL", "c1", &pod).run().success();
    }
}

/// On stdout it is the answer, and the runtime tells of that.
#[test]
fn an_error_is_told_in_the_file_and_not_on_stderr() {
    let mut network = Network::new("error");
    let log = network.node.scratch().path().join("ferrule.log");
    let pod = Namespace::new("pod");
    network.conf["ipam"]["ranges"] = json!([[{"subnet": "10.77.1.0/24"}], [{"subnet": "10.77.1.0/25"}]]);
    let failed = network.call_for("ADD", "c1", &pod).run();
    failed.failure(7);
    assert_eq!(failed.stderr, "");
    network.conf["log"] = json!({"file": log});
    let failed = network.call_for("ADD", "c1", &pod).run();
    failed.failure(7);
    assert_eq!(failed.stderr, "");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("level=error cmd=ADD attachment=net/c1/eth0 took="), "{text}");
    assert!(text.contains(" code=7 msg=\"") && text.contains("overlaps"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn a_full_file_is_put_aside_once_and_no_line_is_lost() {
    let mut network = Network::new("rotate");
    let log = network.node.scratch().path().join("ferrule.log");
    let aside = network.node.scratch().path().join("ferrule.log.1");
    network.conf["log"] = json!({"file": log, "level": "info"});
    fs::write(&aside, "older\n").unwrap();
    fs::write(&log, vec![b'x'; 1 << 20]).unwrap();
    let full = fs::metadata(&log).unwrap().ino();
    let dels: Vec<_> = (0..12)
        .map(|n| network.call("DEL").attachment(&format!("c{n}"), network.node.namespace().path()).spawn())
        .collect();
    for del in dels {
        del.wait().success();
    }
    assert_eq!(fs::metadata(&aside).unwrap().ino(), full);
    let texts = [&aside, &log].map(|file| fs::read_to_string(file).unwrap());
    let told: usize = texts.iter().map(|text| text.matches("cmd=DEL").count()).sum();
    assert_eq!(told, 12, "{}", texts[1]);
    assert!(fs::metadata(&log).unwrap().len() < 1 << 20);
}
