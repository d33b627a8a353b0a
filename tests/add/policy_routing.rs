//! Rules of policy routing that others have on the node: pods are reached whatever these say.

use serde_json::{Value, json};

use kit::ip;
use kit::netns::Namespace;
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6, SUBNET_V4, SUBNET_V6};
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of};
use kit::process::run_in;
use kit::traffic::{Server, reply, tcp};

/// A table that knows the uplink and nothing else, as the helpers of clouds write one for each network card.
fn add_table_of_uplink(node: &Namespace) {
    node.ip_batch(&format!(
        "route add 198.18.0.0/24 dev uplink table 100\nroute add default via {OUTSIDE_V4} table 100\n\
         route add fd00:18::/64 dev uplink table 100\nroute add default via {OUTSIDE_V6} table 100\n"
    ));
}

/// Rules as others write them, without the family.
fn rules_of_others() -> [(&'static str, [String; 2]); 4] {
    [
        ("from the node", [NODE_V4, NODE_V6].map(|it| format!("from {it} lookup 100 pref 1000"))),
        ("from all", [(); 2].map(|()| "from all lookup 100 pref 100".to_owned())),
        ("from pods", [SUBNET_V4, SUBNET_V6].map(|it| format!("to {it} lookup 100 pref 50"))),
        ("by the link", [(); 2].map(|()| "iif lo lookup 100 pref 10".to_owned())),
    ]
}

fn add_rules(node: &Namespace, rules: &[String; 2]) {
    node.ip(&format!("rule add {}", rules[0]));
    node.ip(&format!("-6 rule add {}", rules[1]));
}

fn expect_to_be_reached(node: &Node, pod: &Pod, result: &Value, why: &str) {
    let _server = Server::tcp(pod.namespace(), 8080, "pod");
    let _of_node = Server::tcp(node.namespace(), 9090, "node");
    for (address, own) in addresses_of(result).iter().zip([NODE_V4, NODE_V6]) {
        assert_eq!(tcp(node.namespace(), address, 8080), reply(own, "pod"), "{why}: node to {address}");
        assert_eq!(tcp(pod.namespace(), own, 9090), reply(address, "node"), "{why}: {address} to node");
        assert!(answers_ping(node.outside(), address), "{why}: outside to {address}");
    }
}

#[test]
fn a_pod_is_reached_whatever_rules_others_have() {
    for (why, rules) in rules_of_others() {
        // Rules that were there before, and rules that come when pods run.
        for is_before in [true, false] {
            let (node, pod) = (Node::new(), Pod::new("pod"));
            add_table_of_uplink(node.namespace());
            if is_before {
                add_rules(node.namespace(), &rules);
            }
            let result = node.add(&pod, &node.conf());
            if !is_before {
                add_rules(node.namespace(), &rules);
            }
            expect_to_be_reached(&node, &pod, &result, why);
            node.check(&pod, &node.conf(), &result).success();
        }
    }
}

#[test]
fn so_is_one_whose_address_another_plugin_gave() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    add_table_of_uplink(node.namespace());
    let mut conf = node.conf();
    conf["cniVersion"] = json!("1.0.0");
    conf["dataDir"] = json!(node.data_dir());
    conf["ipam"] = json!({
        "type": "host-local", "dataDir": node.scratch().path().join("host-local"),
        "ranges": [[{ "subnet": SUBNET_V4 }], [{ "subnet": SUBNET_V6 }]],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
    });
    let result = node.add(&pod, &conf);
    add_rules(node.namespace(), &rules_of_others()[0].1);
    expect_to_be_reached(&node, &pod, &result, "host-local");
}

fn own_rules(node: &Namespace, family: &str) -> Vec<String> {
    let listed = node.ip(&format!("-d {family} rule show"));
    listed.lines().filter(|line| line.contains("proto 102")).map(str::to_owned).collect()
}

/// One for each subnet, however many pods; it is ours, and comes after the kernel's and before those of others.
#[test]
fn there_is_one_rule_for_each_subnet() {
    let node = Node::new();
    for _ in 0..3 {
        node.add(&Pod::new("pod"), &node.conf());
    }
    for (family, subnet, suppressed) in [("-4", SUBNET_V4, 31), ("-6", SUBNET_V6, 127)] {
        let own = own_rules(node.namespace(), family);
        let wanted = format!("to {subnet} lookup main suppress_prefixlength {suppressed}");
        assert!(own.len() == 1 && own[0].starts_with("8:") && own[0].contains(&wanted), "{own:?}");
    }
}

/// A packet to an address that no pod has must not go to the gateway, nor to and fro.
#[test]
fn a_free_address_is_unreachable_as_before() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    add_table_of_uplink(node.namespace());
    node.add(&pod, &node.conf());
    add_rules(node.namespace(), &rules_of_others()[0].1);
    for (source, free) in [(NODE_V4, "10.88.0.77"), (NODE_V6, "fd00:88::77")] {
        let asked = run_in(node.namespace(), "ip", ["route", "get", free, "from", source], "");
        assert!(asked.is_err_and(|why| why.to_string().contains("No route to host")), "{free}");
    }
}

/// Pods whose subnet is part of the node's own LAN: what others decide of the rest of it stays so.
#[test]
fn the_lan_that_pods_live_in_stays_others_to_route() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let ranges =
        json!([[{ "subnet": "198.18.0.0/24", "rangeStart": "198.18.0.100", "rangeEnd": "198.18.0.200" }]]);
    node.namespace().ip_batch(
        "link add second type veth peer name far\nlink set second up\nlink set far up\n\
         address add 198.18.0.3/24 dev second\nroute add 198.18.0.0/24 dev second table 101\n\
         rule add from 198.18.0.3 lookup 101 pref 1000\n",
    );
    let conf = node.conf_with(ranges);
    let result = node.add(&pod, &conf);
    let way = |to: &str| {
        let route = node.namespace().ip(&format!("-j route get {to} from 198.18.0.3"));
        serde_json::from_str::<Value>(&route).unwrap()[0]["dev"].as_str().unwrap().to_owned()
    };
    assert_eq!(way("198.18.0.77"), "second", "a neighbour in the LAN");
    let address = &addresses_of(&result)[0];
    assert_eq!(way(address), kit::pod::host_link_of(&result));
    assert!(
        ip::routes(node.namespace(), "-4 table 101").len() == 1 && answers_ping(node.namespace(), address)
    );
}
