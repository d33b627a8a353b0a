//! A plugin that gives an address which somebody has, by what ferrule knows.

use std::fs;

use kit::ip;
use kit::netns::Namespace;
use kit::packets::answers_ping;
use kit::pod::addresses_of;

use super::{call, commands, scripted};

/// The other plugin knows that the pod is gone, and gives its address to the next one; ferrule was never told.
#[test]
fn an_address_that_the_dead_hold_is_taken_from_the_plugin() {
    let network = scripted(
        "knows",
        "echo '{\"ips\":[{\"address\":\"10.77.1.9/24\"},{\"address\":\"fd00:77::9/64\"}]}'",
    );
    let (gone, pod, late) = (Namespace::new("gone"), Namespace::new("pod"), Namespace::new("late"));
    call(&network, "ADD", "dead", &gone).run().success();
    let link = network.links()[0].clone();
    drop(gone);
    network.node.wait_for_end(&link);
    let result = call(&network, "ADD", "next", &pod).run().success();
    assert_eq!(addresses_of(&result), ["10.77.1.9", "fd00:77::9"]);
    let on_link = ip::addresses(&pod, "eth0");
    assert!(on_link.iter().any(|address| address["local"] == "10.77.1.9"), "{on_link:?}");
    assert_eq!(network.known(), ["next@eth0"]);
    // That of a pod that lives is refused, and given back.
    let said = call(&network, "ADD", "late", &late).run().complaint(101);
    assert!(said.contains("next"), "{said}");
    assert_eq!(commands(&network), ["ADD", "ADD", "ADD", "DEL"]);
    call(&network, "DEL", "next", &pod).run().success();
    network.assert_nothing_remains();
}

/// Somebody removed ferrule's store and the plugin's, and the plugin gives what a running pod has.
#[test]
fn an_address_of_a_pod_without_a_record_is_refused_by_its_name() {
    let network = scripted(
        "forgets",
        "echo '{\"ips\":[{\"address\":\"10.77.1.9/24\",\"gateway\":\"10.77.1.1\"},{\"address\":\"fd00:77::9/64\",\"gateway\":\"fd00:77::1\"}],\
         \"routes\":[{\"dst\":\"0.0.0.0/0\"},{\"dst\":\"::/0\"}]}'",
    );
    let (pod, late) = (Namespace::new("pod"), Namespace::new("late"));
    let result = call(&network, "ADD", "first", &pod).run().success();
    let link = network.links()[0].clone();
    fs::remove_dir_all(network.conf["dataDir"].as_str().unwrap()).unwrap();
    let said = call(&network, "ADD", "late", &late).run().complaint(101);
    for word in ["10.77.1.9", "\"forgets\"", "record is lost", &link, "first", "ferrulectl sync"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(commands(&network), ["ADD", "ADD", "DEL"]);
    for address in addresses_of(&result) {
        assert!(answers_ping(network.node.namespace(), &address), "{address} is the first pod's still");
    }
}

/// What an ADD left that was killed before its end, and whose record is lost: nobody uses that.
#[test]
fn an_address_of_an_add_that_did_not_live_is_taken_from_the_plugin() {
    let network = scripted(
        "knowing",
        "echo '{\"ips\":[{\"address\":\"10.77.1.9/24\",\"gateway\":\"10.77.1.1\"},{\"address\":\"fd00:77::9/64\",\"gateway\":\"fd00:77::1\"}],\
         \"routes\":[{\"dst\":\"0.0.0.0/0\"},{\"dst\":\"::/0\"}]}'",
    );
    let (dead, pod) = (Namespace::new("dead"), Namespace::new("pod"));
    call(&network, "ADD", "dead", &dead).run().success();
    let link = network.links()[0].clone();
    // The alias is an ADD's last step.
    network.node.namespace().sh(&format!("ip link set dev {link} alias ''"));
    fs::remove_dir_all(network.conf["dataDir"].as_str().unwrap()).unwrap();
    let result = call(&network, "ADD", "next", &pod).run().success();
    assert_eq!(addresses_of(&result), ["10.77.1.9", "fd00:77::9"]);
    assert_eq!(network.links().len(), 1);
    for address in addresses_of(&result) {
        assert!(answers_ping(network.node.namespace(), &address), "no answer from {address}");
    }
    call(&network, "DEL", "next", &pod).run().success();
    network.assert_nothing_remains();
}
