//! Plugins behind ferrule, and programs in the pod, that route through the pod's gateway without knowing that it is
//! on-link.

use serde_json::{Value, json};

use super::{Chain, versions};
use kit::binaries::REFERENCE_PLUGINS;
use kit::call::Call;
use kit::ip;
use kit::netns::Namespace;
use kit::node::Node;
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::process::run_in;

/// Adds routes as a VPN client does: through the gateway, and nothing else said. Where the gateway is link-local, IPv6
/// wants the link besides.
fn expect_to_be_next_hops(pod: &Namespace, gateways: [&str; 2]) {
    let [v4, v6] = gateways;
    pod.ip(&format!("route add 198.51.100.9/32 via {v4}"));
    let link = if v6.starts_with("fe80:") { " dev eth0" } else { "" };
    pod.ip(&format!("-6 route add 2001:db8:9::/64 via {v6}{link}"));
    for (family, destination) in [("-4", "198.51.100.9"), ("-6", "2001:db8:9::/64")] {
        let added = ip::routes(pod, &format!("{family} to {destination}"));
        assert_eq!(added.len(), 1, "{added:?}");
    }
}

fn expect_pings(node: &Node, result: &Value) {
    for address in addresses_of(result) {
        for from in [node.namespace(), node.outside()] {
            assert!(answers_ping(from, &address), "{address} from {}", from.name());
        }
    }
}

#[test]
fn the_gateway_is_a_next_hop_for_everybody() {
    let named = json!([
        [{ "subnet": "10.88.0.0/24", "gateway": "10.88.0.1" }],
        [{ "subnet": "fd00:88::/64", "gateway": "fd00:88::1" }],
    ]);
    let last = json!([
        [{ "subnet": "10.88.0.0/24", "gateway": "10.88.0.254" }],
        [{ "subnet": "fd00:88::/64", "gateway": "fd00:88::fe" }],
    ]);
    for (ranges, gateways) in [
        (None, ["169.254.1.1", "fe80::1"]),
        (Some(named), ["10.88.0.1", "fd00:88::1"]),
        (Some(last), ["10.88.0.254", "fd00:88::fe"]),
    ] {
        let (node, pod) = (Node::new(), Pod::new("pod"));
        let conf = ranges.map_or_else(|| node.conf(), |ranges| node.conf_with(ranges));
        let result = node.add(&pod, &conf);
        expect_to_be_next_hops(pod.namespace(), gateways);
        expect_pings(&node, &result);
        node.check(&pod, &conf, &result).success();
        let told: Vec<&Value> = result["ips"].as_array().unwrap().iter().map(|ip| &ip["gateway"]).collect();
        assert_eq!(told, gateways);
        pod.namespace().ip(&format!("route delete {} scope link", gateways[0]));
        let complaint = node.check(&pod, &conf, &result).complaint(105);
        assert!(complaint.contains(&format!("pod: route {}/32 dev eth0", gateways[0])), "{complaint}");
        if !gateways[1].starts_with("fe80:") {
            pod.namespace().ip(&format!("-6 route delete {}", gateways[1]));
            let complaint = node.check(&pod, &conf, &result).complaint(105);
            assert!(complaint.contains(&format!("pod: route {}/128 dev eth0", gateways[1])), "{complaint}");
        }
        node.del(&pod, &conf);
        node.expect_nothing_left();
    }
}

/// host-local names the first address of the subnet; a route of its own may name any.
#[test]
fn so_is_one_that_a_delegate_or_a_route_names() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = node.conf();
    conf["cniVersion"] = json!("1.0.0");
    conf["ipam"] = json!({
        "type": "host-local", "dataDir": node.scratch().path().join("host-local"),
        "ranges": [[{ "subnet": "10.88.0.0/24" }], [{ "subnet": "fd00:88::/64" }]],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }, { "dst": "203.0.113.0/24", "gw": "10.88.0.9" },
            { "dst": "10.88.0.1/32" }],
    });
    conf["dataDir"] = json!(node.data_dir());
    let result = node.add(&pod, &conf);
    expect_to_be_next_hops(pod.namespace(), ["10.88.0.1", "fd00:88::1"]);
    pod.namespace().ip("route add 198.51.100.10/32 via 10.88.0.9");
    expect_pings(&node, &result);
    node.check(&pod, &conf, &result).success();
    node.del(&pod, &conf);
}

/// What sbr is for: what an address sends leaves by its own interface. By sbr's rule and table, or, where sbr lost the
/// route that it meant to move, by ferrule's behind them.
fn expect_source_routing(pod: &Namespace, link: &str, result: &Value) {
    for address in addresses_of(result) {
        let family = if address.contains(':') { "-6" } else { "-4" };
        let rules = pod.ip(&format!("{family} rule show from {address}"));
        assert!(rules.contains("lookup 1"), "sbr's rule for {address}: {rules}");
        let beyond = if family == "-6" { "2001:db8::1" } else { "203.0.113.1" };
        let way = pod.ip(&format!("route get {beyond} from {address}"));
        assert!(way.contains(&format!(" dev {link} ")), "{address}: {way}; {rules}");
    }
}

#[test]
fn sbr_routes_by_the_pods_source_address() {
    for version in versions(&["sbr"]) {
        for gateways in [false, true] {
            let node = Node::new();
            let mut ferrule = node.conf();
            if gateways {
                ferrule["ipam"]["ranges"] = json!([
                    [{ "subnet": "10.88.0.0/24", "gateway": "10.88.0.1" }],
                    [{ "subnet": "fd00:88::/64", "gateway": "fd00:88::1" }],
                ]);
            }
            let chain = Chain::new(node, version, vec![ferrule, json!({ "type": "sbr" })]);
            let alone = chain.call("ADD", &chain.plugins[0], None).result();
            chain.call("DEL", &chain.plugins[0], None).success();
            let result = chain.add();
            assert_eq!(result["routes"], alone["routes"]);
            expect_source_routing(chain.pod.namespace(), "eth0", &result);
            expect_pings(&chain.node, &result);
            chain.check_ferrule(&result).success();
            chain.del(&result);
            chain.node.expect_nothing_left();
        }
    }
}

/// Two networks have the same link-local gateway, each by its own interface.
#[test]
fn sbr_on_a_second_interface_finds_the_gateway_there() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut second =
        node.conf_with(json!([[{ "subnet": "10.88.1.0/24" }], [{ "subnet": "fd00:88:1::/64" }]]));
    second["name"] = json!("second");
    let mut results = Vec::new();
    for (conf, link) in [(node.conf(), "eth0"), (second, "net1")] {
        let mut conf = conf;
        conf["cniVersion"] = json!("1.0.0");
        let ours = node.call_for("ADD", &pod, &conf).ifname(link).run().result();
        let sbr = json!({ "cniVersion": "1.0.0", "name": conf["name"], "type": "sbr", "prevResult": ours });
        let call =
            Call::reference("sbr", "ADD").on(node.namespace()).env("CNI_PATH", REFERENCE_PLUGINS).conf(&sbr);
        let result = call.attachment(pod.container(), pod.namespace().path()).ifname(link).run().result();
        expect_source_routing(pod.namespace(), link, &result);
        conf["prevResult"] = result.clone();
        node.call_for("CHECK", &pod, &conf).ifname(link).run().success();
        results.push(result);
    }
    for result in &results {
        for address in addresses_of(result) {
            assert!(answers_ping(node.namespace(), &address), "{address} from the node");
        }
        assert!(run_in(node.namespace(), "ip", ["link", "show", &host_link_of(result)], "").is_ok());
    }
}
