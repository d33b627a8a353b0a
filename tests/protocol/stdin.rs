//! What a runtime, a disk that is full or somebody who is up to no good writes to stdin.

use serde_json::{Value, json};

use kit::netns::Namespace;
use kit::network::Network;

/// Most resident memory for any conf that is refused, in KiB. A conf is at most 4 MiB.
const MEMORY_MAX: u64 = 64 * 1024;

fn call(network: &Network, stdin: impl Into<Vec<u8>>) -> kit::call::Call {
    network.call("ADD").attachment("c1", "/run/netns/none").stdin(stdin)
}

#[test]
fn an_empty_stdin_is_code_6_and_says_what_belongs_there() {
    let network = Network::new("empty");
    for stdin in ["", " ", "\n\n", "\t\r\n "] {
        for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            let call = network.call(command).attachment("c1", "/run/netns/none").stdin(stdin);
            let complaint = call.run().complaint(6);
            assert!(complaint.contains("stdin was empty"), "{command} {stdin:?}: {complaint}");
        }
    }
}

#[test]
fn a_closed_stdin_is_an_empty_one() {
    let network = Network::new("closed");
    let call = call(&network, "").through(["sh", "-c", "exec \"$0\" <&-"]);
    call.run().complaint(6);
}

#[test]
fn a_stdin_that_never_ends_is_an_error() {
    let network = Network::new("endless");
    let from = |source: &str| {
        let redirection = format!("exec \"$0\" <{source}");
        call(&network, "").through(["sh", "-c", &redirection]).run()
    };
    assert!(from("/dev/zero").complaint(6).contains("longer than"));
    assert!(from("/").complaint(5).contains("stdin"));
}

/// A runtime that dies while it writes. Wherever the conf was cut: an answer, in JSON, with the place.
#[test]
fn a_conf_that_is_cut_off_is_code_6_with_its_place() {
    let network = Network::new("cut");
    let whole = serde_json::to_string_pretty(&network.conf).unwrap();
    let cuts = (1..whole.len()).step_by(7);
    for cut in cuts {
        let answer = call(&network, &whole[..cut]).run();
        let complaint = answer.complaint(6);
        assert!(complaint.contains("line") && complaint.contains("column"), "at {cut}: {complaint}");
        let version_was_read = whole[..cut].contains("\"cniVersion\": \"1.0.0\"");
        let version = if version_was_read { "1.0.0" } else { "1.1.0" };
        assert_eq!(answer.document().unwrap()["cniVersion"], version, "at {cut}");
    }
    network.assert_nothing_remains();
}

#[test]
fn bytes_that_are_no_utf8_are_code_6_with_their_place() {
    let network = Network::new("utf8");
    let complaint = call(&network, b"{\"name\":\n \"\xff\"}".to_vec()).run().complaint(6);
    assert!(complaint.contains("not UTF-8 at line 2 column 3"), "{complaint}");
    call(&network, b"\xef\xbb\xbf{}".to_vec()).run().complaint(6);
    call(&network, b"{}\0".to_vec()).run().complaint(6);
    call(&network, b"{}{}".to_vec()).run().complaint(6);
}

/// Megabytes of nonsense, and confs that are small on the wire and large in memory. The limit on the address
/// space would make an allocation fail, and with it the process, without an answer.
#[test]
fn nothing_on_stdin_makes_it_take_more_than_bounded_memory() {
    let network = Network::new("memory");
    let megabytes = |unit: &str, count: usize| unit.repeat(count * (1 << 20) / unit.len()).into_bytes();
    let nested = |open: &str| open.repeat(100_000).into_bytes();
    let list = |unit: &str| {
        let length = (4 << 20) - 100;
        let mut text = format!("{{\"cniVersion\":\"1.0.0\",\"x\":[{unit}");
        while text.len() + unit.len() + 4 < length {
            text.push(',');
            text.push_str(unit);
        }
        (text + "]}").into_bytes()
    };
    let below_the_limit = |unit: &str, count: usize| {
        let units = vec![unit; count].join(",");
        format!("{{\"cniVersion\":\"1.0.0\",\"x\":[{units}]}}").into_bytes()
    };
    let cases: [(&str, Vec<u8>, u64); 13] = [
        ("5 MB of spaces", megabytes(" ", 5), 6),
        ("5 MB of a string", [b"\"".to_vec(), megabytes("x", 5)].concat(), 6),
        ("50 MB", megabytes("{\"a\":", 50), 6),
        ("100,000 lists", nested("["), 6),
        ("100,000 objects", nested("{\"a\":"), 6),
        ("100,000 lists, closed", [nested("["), nested("]")].concat(), 6),
        ("a million numbers", list("0"), 6),
        ("a million empty lists", list("[]"), 6),
        ("a million objects", list("{\"a\":0}"), 6),
        ("as many objects as may be", below_the_limit("{\"a\":0}", 65_000), 7),
        ("as many numbers as may be", below_the_limit("0", 130_000), 7),
        ("a string of 3 MB", below_the_limit(&format!("\"{}\"", ",[{\\\"".repeat(600_000)), 1), 7),
        (
            "as many peers as there are nodes",
            below_the_limit(
                "{\"node\":\"b\",\"podCIDRs\":[\"10.1.1.0/24\",\"fd00::/64\"],\"nodeIPs\":[\"10.0.0.1\",\"fd00::1\"]}",
                5_000,
            ),
            7,
        ),
    ];
    for (what, stdin, code) in cases {
        let limit = format!("--as={}", MEMORY_MAX * 1024);
        let answer = call(&network, stdin).through(["prlimit", &limit]).run();
        assert!(answer.document().is_some(), "{what}: no answer: {answer:?}");
        answer.complaint(code);
    }
    network.assert_nothing_remains();
}

#[test]
fn json_that_is_no_conf_is_code_7() {
    let network = Network::new("kind");
    for stdin in ["null", "[]", "7", "\"conf\"", "true"] {
        let complaint = call(&network, stdin).run().complaint(7);
        assert!(complaint.contains("not a JSON object"), "{stdin}: {complaint}");
    }
}

/// Whoever corrects a conf hears of all its faults at once, and where each stands.
#[test]
fn every_problem_of_a_conf_is_told_at_once_with_its_path() {
    let mut network = Network::new("problems");
    network.conf = json!({
        "cniVersion": "1.0.0", "name": "../etc", "type": "ferrule", "mtu": "large",
        "ipam": {
            "type": "ferrule", "dataDir": "relative", "resolvConf": 7,
            "ranges": [
                [{"subnet": "10.77.1.5/24"}, {"subnet": "10.77.2.0/24", "rangeStart": "10.77.3.1"}],
                {"subnet": "10.77.4.0/24"},
                [{"subnet": "fd00::/64", "gateway": "fd01::1"}, {}],
                [],
            ],
            "routes": [{"dst": "everywhere"}, {"gw": "10.0.0.1"}, {"dst": "0.0.0.0/0", "gw": "gateway"}],
        },
        "peers": [{"node": "b", "podCIDRs": ["10.77.9.0/24", "nonsense"], "nodeIPs": ["fd00::9"]}],
        "nodeIPs": ["10.0.0.1", "10.0.0.2"],
        "runtimeConfig": {"ips": ["10.77.1.300"], "mac": "ff:ff:ff:ff:ff:ff"},
        "args": {"cni": {"ips": [7]}},
        "dns": {"nameservers": "1.1.1.1"},
        "log": {"level": "loud", "file": "relative"},
    });
    let pod = Namespace::new("pod");
    let complaint = network.call_for("ADD", "c1", &pod).run().complaint(7);
    for path in [
        "name: ",
        "mtu: ",
        "ipam.dataDir: ",
        "ipam.resolvConf: ",
        "ipam.ranges[0][0].subnet: ",
        "ipam.ranges[0][1].rangeStart: ",
        "ipam.ranges[1]: ",
        "ipam.ranges[2][1].subnet: ",
        "ipam.ranges[3]: ",
        "ipam.routes[0].dst: ",
        "ipam.routes[1].dst: ",
        "ipam.routes[2].gw: ",
        "peers[0].podCIDRs[1]: ",
        "nodeIPs",
        "runtimeConfig.ips[0]: ",
        "runtimeConfig.mac: ",
        "args.cni.ips[0]: ",
        "dns.nameservers",
        "log.level: ",
        "log.file: ",
    ] {
        assert!(complaint.contains(path), "{path} is not in: {complaint}");
    }
    network.assert_nothing_remains();
}

/// Runtimes and their users write keys of their own; none of them is ours to judge.
#[test]
fn keys_that_nobody_knows_are_passed_over_everywhere() {
    let mut network = Network::new("keys");
    let pod = Namespace::new("pod");
    for path in ["", "/ipam", "/ipam/ranges/0/0", "/ipam/routes/0"] {
        network.conf.pointer_mut(path).unwrap()["x-unknown"] = json!({"any": ["thing", null]});
    }
    network.conf["capabilities"] = json!({"portMappings": true, "io.kubernetes.cri.pod-annotations": true});
    network.conf["runtimeConfig"] =
        json!({"portMappings": [], "cgroupPath": "/kubepods/x", "dns": {"Servers": [u64::MAX]}});
    network.conf["prevResult"] = Value::Null;
    network.call_for("ADD", "c1", &pod).run().success();
}
