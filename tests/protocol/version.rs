//! Every version of the specification, from a real ADD to the DEL that a runtime replays years later.

use serde_json::{Value, json};

use kit::call::Call;
use kit::netns::Namespace;
use kit::network::Network;

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn at_least(version: &str, other: &str) -> bool {
    let place = |text| VERSIONS.iter().position(|known| *known == text).unwrap();
    place(version) >= place(other)
}

#[test]
fn version_answers_in_the_version_that_was_asked() {
    for version in VERSIONS {
        let answer = Call::ferrule("VERSION").conf(&json!({"cniVersion": version})).run().success();
        assert_eq!(answer, json!({"cniVersion": version, "supportedVersions": VERSIONS}));
    }
}

/// cnitool and older runtimes write nothing, or something of their own, for VERSION.
#[test]
fn version_answers_whatever_is_on_stdin_and_in_the_environment() {
    for stdin in ["", "{", "null", "[]", "{\"cniVersion\":\"9.9.9\"}", "\u{0}", "{\"cniVersion\":7}"] {
        let call =
            Call::ferrule("VERSION").stdin(stdin).env("CNI_CONTAINERID", "../..").env("CNI_IFNAME", "/");
        assert_eq!(call.run().success()["supportedVersions"], json!(VERSIONS), "{stdin:?}");
    }
}

#[test]
fn an_unknown_version_is_code_1_with_the_list() {
    let network = Network::new("unknown");
    for version in ["0.0.9", "0.5.0", "1.2.0", "2.0.0", "v1.0.0", "1.0", "1.0.0 ", "1.0.0\n"] {
        for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            let mut conf = network.conf.clone();
            conf["cniVersion"] = json!(version);
            let call = network.call(command).attachment("c1", "/run/netns/none").conf(&conf);
            let complaint = call.run().complaint(1);
            for known in VERSIONS {
                assert!(complaint.contains(known), "{command} {version:?}: {complaint}");
            }
        }
    }
    network.assert_nothing_remains();
}

#[test]
fn a_command_newer_than_the_conf_names_its_version() {
    let mut network = Network::new("since");
    for (command, since) in [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")] {
        for version in VERSIONS {
            network.conf["cniVersion"] = json!(version);
            let answer = network.call(command).attachment("c1", "/run/netns/none").run();
            if at_least(version, since) {
                assert_ne!(answer.document().unwrap_or_default()["code"], 1, "{command} {version}");
            } else {
                let complaint = answer.complaint(1);
                assert!(complaint.contains(since) && complaint.contains(version), "{complaint}");
                assert_eq!(answer.document().unwrap()["cniVersion"], version);
            }
        }
    }
}

/// One pod per version: ADD, CHECK where the version has it, DEL twice, each with the runtime's prevResult.
#[test]
fn a_pod_lives_and_dies_in_every_version() {
    let mut network = Network::new("each");
    for version in VERSIONS {
        let pod = Namespace::new("pod");
        network.conf["cniVersion"] = json!(version);
        let result = network.call_for("ADD", version, &pod).run().success();
        assert_eq!(result["cniVersion"], version);
        expect_form(version, &result, &pod);

        network.conf["prevResult"] = result;
        if at_least(version, "0.4.0") {
            assert_eq!(network.call_for("CHECK", version, &pod).run().success(), Value::Null, "{version}");
        }
        for _ in 0..2 {
            assert_eq!(network.call_for("DEL", version, &pod).run().success(), Value::Null, "{version}");
        }
        network.conf.as_object_mut().unwrap().remove("prevResult");
        network.assert_nothing_remains();
        drop(pod);
    }
}

/// A node's plugins are upgraded while its pods run: DEL comes with another version than ADD did.
#[test]
fn a_prev_result_is_read_in_its_own_version() {
    let mut network = Network::new("mixed");
    for version in VERSIONS {
        let pod = Namespace::new("pod");
        network.conf["cniVersion"] = json!(version);
        let result = network.call_for("ADD", "c1", &pod).run().success();
        network.conf["prevResult"] = result;
        network.conf["cniVersion"] = json!("1.1.0");
        assert_eq!(network.call_for("CHECK", "c1", &pod).run().success(), Value::Null, "{version}");
        network.call_for("DEL", "c1", &pod).run().success();
        network.conf.as_object_mut().unwrap().remove("prevResult");
        network.assert_nothing_remains();
    }
}

/// A conf without cniVersion always meant 0.1.0.
#[test]
fn a_conf_without_a_version_is_answered_as_0_1_0() {
    let mut network = Network::new("none");
    let pod = Namespace::new("pod");
    network.conf.as_object_mut().unwrap().remove("cniVersion");
    let result = network.call_for("ADD", "c1", &pod).run().success();
    expect_form("0.1.0", &result, &pod);
}

/// The keys that the version's text has, and no others.
fn expect_form(version: &str, result: &Value, pod: &Namespace) {
    if !at_least(version, "0.3.0") {
        expect_keys(result, &["cniVersion", "ip4", "ip6"]);
        expect_keys(&result["ip4"], &["gateway", "ip", "routes"]);
        assert!(result["ip4"]["ip"].as_str().unwrap().starts_with("10.77.1."), "{result}");
        assert_eq!(result["ip4"]["routes"][0]["dst"], "0.0.0.0/0");
        assert!(result["ip6"]["ip"].as_str().unwrap().starts_with("fd00:77:1:"), "{result}");
        assert_eq!(result["ip6"]["routes"], json!([{"dst": "::/0"}]));
        return;
    }
    expect_keys(result, &["cniVersion", "interfaces", "ips", "routes"]);
    let interfaces = result["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 2);
    for interface in interfaces {
        let is_in_pod = interface["name"] == "eth0";
        let mut keys = vec!["mac", "name"];
        keys.extend(at_least(version, "1.1.0").then_some("mtu"));
        keys.extend(is_in_pod.then_some("sandbox"));
        expect_keys(interface, &keys);
        if is_in_pod {
            assert_eq!(interface["sandbox"], pod.path().to_str().unwrap());
        }
    }
    assert_eq!(interfaces[1]["name"], "eth0");
    for (ip, family) in result["ips"].as_array().unwrap().iter().zip(["4", "6"]) {
        let mut keys = vec!["address", "gateway", "interface"];
        keys.extend((!at_least(version, "1.0.0")).then_some("version"));
        expect_keys(ip, &keys);
        assert_eq!(ip["interface"], 1, "the pod's end, by which containerd finds the address");
        if !at_least(version, "1.0.0") {
            assert_eq!(ip["version"], family);
        }
    }
    assert_eq!(result["ips"].as_array().unwrap().len(), 2);
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
}

fn expect_keys(value: &Value, keys: &[&str]) {
    let found: Vec<&String> =
        value.as_object().unwrap_or_else(|| panic!("an object: {value}")).keys().collect();
    let (mut found, mut keys) = (found.iter().map(|key| key.as_str()).collect::<Vec<_>>(), keys.to_vec());
    found.sort_unstable();
    keys.sort_unstable();
    assert_eq!(found, keys, "{value}");
}
