//! Other plugins before ferrule: what they made is in the result still, and keeps its place.

use serde_json::{Value, json};

use super::{Chain, index_of, versions};
use kit::binaries::REFERENCE_PLUGINS;
use kit::call::Call;
use kit::node::{Node, OUTSIDE_V4};
use kit::packets::answers_ping;
use kit::pod::{Pod, host_link_of};

/// The interface that an address of the result is on.
fn interface_of<'a>(result: &'a Value, address: &str) -> &'a Value {
    let ips = result["ips"].as_array().unwrap();
    let ip = ips.iter().find(|ip| ip["address"] == address);
    let ip = ip.unwrap_or_else(|| panic!("{address} is not in {result}"));
    &result["interfaces"][ip["interface"].as_u64().unwrap() as usize]
}

/// loopback, which is the first of a conflist in the wild.
#[test]
fn behind_loopback_the_result_has_all_interfaces() {
    for version in versions(&["loopback"]) {
        let node = Node::new();
        let plugins = vec![json!({ "type": "loopback" }), node.conf()];
        let chain = Chain::new(node, version, plugins);
        let result = chain.add();
        assert_eq!(index_of(&result, "lo"), 0, "what was there comes first: {result}");
        assert_eq!(index_of(&result, "eth0"), 2);
        assert_eq!(interface_of(&result, "127.0.0.1/8")["name"], "lo");
        for address in ["10.88.0.2/32", "fd00:88::2/128"] {
            assert_eq!(interface_of(&result, address)["name"], "eth0");
        }
        chain.check(&result);
        assert!(answers_ping(chain.pod.namespace(), OUTSIDE_V4));
        chain.del(&result);
        chain.node.expect_nothing_left();
    }
}

/// What ptp made for another interface of the same pod, with routes and DNS of its own.
#[test]
fn behind_ptp_routes_dns_and_addresses_are_merged() {
    for version in versions(&["ptp"]) {
        let (node, pod) = (Node::new(), Pod::new("pod"));
        let ptp = json!({
            "cniVersion": version, "name": "second", "type": "ptp",
            "ipam": { "type": "host-local", "subnet": "10.99.0.0/24", "dataDir": node.scratch().path().join("host-local"),
                "routes": [{ "dst": "203.0.113.0/24" }] },
            "dns": { "nameservers": ["192.0.2.53", "192.0.2.54"], "domain": "second.example",
                "search": ["second.example"], "options": ["ndots:2"] },
        });
        let on_node = |command: &str, conf: &Value| {
            let call =
                Call::reference("ptp", command).on(node.namespace()).env("CNI_PATH", REFERENCE_PLUGINS);
            call.container(pod.container()).netns(pod.namespace().path()).ifname("net0").conf(conf).run()
        };
        let first = on_node("ADD", &ptp).result();
        let mut conf = node.conf();
        conf["cniVersion"] = json!(version);
        conf["dns"] = json!({ "nameservers": ["192.0.2.52", "192.0.2.53"], "search": ["first.example"] });
        conf["prevResult"] = first.clone();
        let result = node.add(&pod, &conf);

        let known = first["interfaces"].as_array().unwrap().len();
        assert_eq!(
            result["interfaces"].as_array().unwrap()[..known],
            first["interfaces"].as_array().unwrap()[..]
        );
        assert_eq!(interface_of(&result, "10.99.0.2/24")["name"], "net0");
        assert_eq!(interface_of(&result, "10.88.0.2/32"), &result["interfaces"][index_of(&result, "eth0")]);
        let routes = result["routes"].as_array().unwrap();
        for destination in ["203.0.113.0/24", "0.0.0.0/0", "::/0"] {
            assert!(routes.iter().any(|route| route["dst"] == destination), "{destination}: {routes:?}");
        }
        let dns = json!({
            "nameservers": ["192.0.2.52", "192.0.2.53", "192.0.2.54"], "domain": "second.example",
            "search": ["first.example", "second.example"], "options": ["ndots:2"],
        });
        assert_eq!(result["dns"], dns, "ours first, nothing lost, nothing twice");

        node.check(&pod, &conf, &result).success();
        node.del(&pod, &conf);
        // ptp's own pair is not ours to take.
        assert_ne!(
            host_link_of(&first),
            host_link_of(&json!({ "interfaces": [result["interfaces"][known]] }))
        );
        on_node("DEL", &ptp).success();
        node.expect_nothing_left();
    }
}

/// Two networks of ferrule's, the first one's result handed to the second: each CHECK looks at its own.
#[test]
fn behind_ferrule_itself_each_looks_at_its_own() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let (first_conf, mut second_conf) =
        (node.conf(), node.conf_with(json!([[{ "subnet": "10.89.0.0/24" }]])));
    second_conf["name"] = json!("second");
    let first = node.add(&pod, &first_conf);
    second_conf["prevResult"] = first;
    let both = node.call_for("ADD", &pod, &second_conf).ifname("net1").run().result();
    assert_eq!(interface_of(&both, "10.88.0.2/32")["name"], "eth0");
    assert_eq!(interface_of(&both, "10.89.0.2/32")["name"], "net1");
    node.check(&pod, &first_conf, &both).success();
    second_conf["prevResult"] = both;
    node.call_for("CHECK", &pod, &second_conf).ifname("net1").run().success();
    node.call_for("DEL", &pod, &second_conf).ifname("net1").run().success();
    node.del(&pod, &first_conf);
    node.expect_nothing_left();
}
