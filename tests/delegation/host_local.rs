//! The distribution's host-local as the other plugin.

use std::fs;

use serde_json::json;

use kit::files::names_in;
use kit::ip;
use kit::netns::Namespace;
use kit::network::Network;
use kit::packets::answers_ping;
use kit::pod::addresses_of;

use super::{call, network};

/// What host-local holds for the network: its files that are addresses.
fn held_by_host_local(network: &Network) -> Vec<String> {
    let mut held = names_in(&network.node.scratch().path().join("host-local.d/net"));
    held.retain(|name| name.parse::<std::net::IpAddr>().is_ok());
    held
}

#[test]
fn a_pod_lives_and_dies_with_an_address_of_host_local() {
    let mut network = network("host-local");
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        network.conf["cniVersion"] = json!(version);
        let pod = Namespace::new("pod");
        let container = format!("c-{version}");
        let result = call(&network, "ADD", &container, &pod).run().success();
        let held = held_by_host_local(&network);
        assert_eq!(held.len(), 2, "{held:?}");
        for (ip, address) in result["ips"].as_array().unwrap().iter().zip(&held) {
            assert_eq!(ip["address"].as_str().unwrap().split('/').next().unwrap(), address);
            assert_eq!(ip["interface"], 1);
            let found = ip::addresses(&pod, "eth0");
            assert!(found.iter().any(|it| it["local"] == **address), "{found:?}");
        }
        assert_eq!(network.held(), held, "what DEL and GC work from");
        assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));

        network.conf["prevResult"] = result;
        if version != "0.3.1" {
            call(&network, "CHECK", &container, &pod).run().success();
        }
        for _ in 0..2 {
            call(&network, "DEL", &container, &pod).run().success();
        }
        network.conf.as_object_mut().unwrap().remove("prevResult");
        assert_eq!(held_by_host_local(&network), Vec::<String>::new());
        network.assert_nothing_remains();
    }
}

#[test]
fn a_pod_with_an_address_of_host_local_is_reached_from_its_node() {
    let network = network("host-local");
    let pod = Namespace::new("pod");
    let result = call(&network, "ADD", "c1", &pod).run().success();
    for address in addresses_of(&result) {
        assert!(answers_ping(network.node.namespace(), &address), "no answer from {address}");
    }
}

#[test]
fn host_locals_own_error_is_passed_on_with_its_code_and_words() {
    let mut network = network("host-local");
    network.conf["ipam"]["ranges"] = json!([[{"subnet": "10.77.1.0/30"}]]);
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    call(&network, "ADD", "a", &a).run().success();
    let answer = call(&network, "ADD", "b", &b).run();
    let error = answer.document().unwrap();
    assert!(!answer.status.success());
    assert!(error.to_string().contains("no IP addresses available in range set"), "{error}");
    assert_eq!(error["cniVersion"], "1.0.0");
    assert_eq!(network.known(), ["a@eth0"]);
    assert_eq!(held_by_host_local(&network), ["10.77.1.2"]);
    assert_eq!(network.links().len(), 1);

    network.conf["prevResult"] = json!({"cniVersion": "1.0.0", "ips": []});
    fs::remove_file(network.node.scratch().path().join("host-local.d/net/10.77.1.2")).unwrap();
    let error = call(&network, "CHECK", "a", &a).run().document().unwrap();
    assert!(error.to_string().contains("ailed to find address"), "{error}");
}

/// The plugin did its part, and then the kernel would not have it.
#[test]
fn a_failed_add_gives_the_plugins_address_back() {
    let network = network("host-local");
    let pod = Namespace::new("pod");
    pod.ip("link add eth0 type veth peer other");
    call(&network, "ADD", "c1", &pod).run().complaint(101);
    assert_eq!(held_by_host_local(&network), Vec::<String>::new());
    network.assert_nothing_remains();
}

/// A second ADD of what stands must not cost a second address of the other plugin, nor the first one.
#[test]
fn a_second_add_leaves_the_first_and_its_address_alone() {
    let network = network("host-local");
    let pod = Namespace::new("pod");
    call(&network, "ADD", "c1", &pod).run().success();
    let held = held_by_host_local(&network);
    call(&network, "ADD", "c1", &pod).run().complaint(101);
    assert_eq!(held_by_host_local(&network), held);
    assert!(ip::link(&pod, "eth0").is_some());
}

/// A runtime that retries while its first attempt still runs: what one of them is refused must not take the
/// other's address from under it.
#[test]
fn of_many_delegated_adds_at_once_one_keeps_the_address() {
    let network = &network("host-local");
    let pod = &Namespace::new("pod");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let lanes: Vec<_> =
            (0..12).map(|_| scope.spawn(move || call(network, "ADD", "c1", pod).run())).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    let won: Vec<_> = answers.iter().filter(|answer| answer.status.success()).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    let result = won[0].success();
    let address = |index: usize| result["ips"][index]["address"].as_str().unwrap().split('/').next().unwrap();
    assert_eq!(held_by_host_local(network), [address(0), address(1)]);
    assert_eq!(network.held(), [address(0), address(1)]);
    call(network, "DEL", "c1", pod).run().success();
    assert_eq!(held_by_host_local(network), Vec::<String>::new());
    network.assert_nothing_remains();
}
