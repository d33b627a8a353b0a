//! `ferrulectl sync` makes again what the node has lost, or never knew; doctor says that it is missing.

use serde_json::{Value, json};

use super::{install, text, verb};
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4};
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::traffic::{Server, tcp};

/// An address that comes to the node when its pods run.
const LATER: &str = "198.18.0.102";

/// The node's conf, installed.
fn installed(node: &Node) -> Value {
    node.namespace().set_sysctl("net/ipv4/conf/all/rp_filter", "0");
    let conf = node.conf();
    install(node, "10-ferrule.conflist", &conf);
    conf
}

#[test]
fn an_address_that_came_later_answers_on_hostports() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = installed(&node);
    conf["runtimeConfig"] = json!({ "portMappings": [{ "hostPort": 443, "containerPort": 8080 }] });
    node.add(&pod, &conf);
    let (_of_node, _of_pod) =
        (Server::tcp(node.namespace(), 443, "node"), Server::tcp(pod.namespace(), 8080, "pod"));
    node.namespace().ip(&format!("address add {LATER}/24 dev uplink"));
    let asked = || tcp(pod.namespace(), LATER, 443).map(|it| it.server);
    assert_eq!(asked().as_deref(), Some("node"));
    let doctor = verb(&node, "doctor").run();
    assert!(text(&doctor).contains(LATER) && !doctor.status.success(), "{doctor:?}");
    verb(&node, "sync").run();
    assert_eq!(asked().as_deref(), Some("pod"));
    let doctor = verb(&node, "doctor").run();
    assert!(!text(&doctor).contains(LATER), "{doctor:?}");
}

fn own_rules(node: &Node) -> usize {
    let rules = ["-4", "-6"].map(|family| node.namespace().ip(&format!("-d {family} rule show")));
    rules.concat().matches("proto 102").count()
}

/// The ids of the findings of doctor.
fn findings(node: &Node) -> Vec<String> {
    let report = verb(node, "doctor --output json").run().document().unwrap();
    let ids = report["findings"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned());
    ids.filter(|id| id != "networkd-foreign-routes").collect()
}

#[test]
fn a_rule_for_pods_that_somebody_removed_comes_back() {
    let (node, pod, next) = (Node::new(), Pod::new("pod"), Pod::new("next"));
    let conf = installed(&node);
    node.add(&pod, &conf);
    assert_eq!((own_rules(&node), findings(&node)), (2, vec![]));
    for mend in [true, false] {
        node.namespace().ip("rule delete pref 8");
        node.namespace().ip("-6 rule delete pref 8");
        assert_eq!((own_rules(&node), findings(&node)), (0, vec!["pod-rule-missing".to_owned()]));
        if mend {
            verb(&node, "sync").run();
        } else {
            node.add(&next, &conf);
        }
        assert_eq!((own_rules(&node), findings(&node)), (2, vec![]));
    }
}

#[test]
fn doctor_names_rules_that_come_before_ours() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = installed(&node);
    let result = node.add(&pod, &conf);
    node.namespace().ip(&format!("route add default via {OUTSIDE_V4} table 100"));
    // One that comes after it is no finding, one of the kernel's own tables neither.
    node.namespace().ip(&format!("rule add from {NODE_V4} lookup 100 pref 1000"));
    node.namespace().ip("rule add from 10.0.0.0/8 lookup main pref 3");
    assert_eq!(findings(&node), Vec::<String>::new());
    // One that comes before it and does no harm is a warning.
    node.namespace().ip("rule add fwmark 0x77 lookup 100 pref 5");
    let doctor = verb(&node, "doctor").run();
    assert!(text(&doctor).contains("5: fwmark 0x77 lookup 100") && doctor.status.success(), "{doctor:?}");
    node.namespace().ip("-6 rule add unreachable from fd00:18::2 pref 6");
    node.namespace().ip(&format!("rule add from {NODE_V4} lookup 100 pref 7"));
    let address = &addresses_of(&result)[0];
    assert!(!answers_ping(node.namespace(), address));
    let doctor = verb(&node, "doctor").run();
    for words in [
        format!("7: from {NODE_V4}/32 lookup 100"),
        format!("what goes from {NODE_V4} to pod {address} leaves by uplink"),
        format!("6: from {NODE_V6}/128 unreachable"),
        format!("what goes from {NODE_V6} to pod fd00:88::2 is refused"),
    ] {
        assert!(text(&doctor).contains(&words) && !doctor.status.success(), "{words}: {doctor:?}");
    }
}

/// What takes away the node's side of a pod, or a part of it: all shell, run on the node, HOST and IFB for the links.
const RUINS: [&str; 12] = [
    // DHCP, NetworkManager.
    "ip address delete 198.18.0.2/24 dev uplink; ip address add 198.18.0.2/24 dev uplink
     ip route add default via 198.18.0.1",
    "ip address delete fd00:18::2/64 dev uplink; ip address add fd00:18::2/64 dev uplink nodad",
    "ip link set HOST down",
    "ip link set HOST down; ip link set HOST up",
    "ip route flush proto 102; ip -6 route flush proto 102",
    "ip neighbour delete 10.88.0.2 dev HOST; ip neighbour delete fd00:88::2 dev HOST",
    "ip neighbour replace 10.88.0.2 lladdr 02:00:00:00:00:99 dev HOST nud permanent",
    "cd /proc/sys/net/ipv4/conf/HOST; echo 0 >rp_filter; echo 0 >route_localnet",
    "cd /proc/sys/net/ipv6/conf/HOST; echo 1 >accept_ra; echo 0 >addr_gen_mode",
    "tc qdisc delete dev HOST root; tc qdisc delete dev HOST ingress; tc qdisc delete dev IFB root",
    "ip link delete IFB",
    "ip link set IFB down",
];

/// A pod with a hostPort, limits and a hardware address of its own choice.
fn add_with_everything(node: &Node, conf: &Value, pod: &Pod) -> (Value, Value) {
    let mut conf = conf.clone();
    conf["runtimeConfig"] = json!({
        "portMappings": [{ "hostPort": 8080, "containerPort": 80 }],
        "mac": "02:11:22:33:44:55",
        "bandwidth": { "ingressRate": 80_000_000, "ingressBurst": 8_000_000,
                       "egressRate": 80_000_000, "egressBurst": 8_000_000 },
    });
    let result = node.add(pod, &conf);
    (conf, result)
}

fn ruin(node: &Node, how: &str, result: &Value) {
    let host = host_link_of(result);
    let ifb = host.replace("veth", "ifb");
    node.namespace().sh(&how.replace("HOST", &host).replace("IFB", &ifb));
}

fn expect_reached(node: &Node, result: &Value, why: &str) {
    for address in addresses_of(result) {
        assert!(answers_ping(node.namespace(), &address), "{why}: {address}");
    }
}

/// The whole node's side, against CHECK and with packets; doctor says what to do.
#[test]
fn sync_makes_the_nodes_side_of_a_pod_again() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = installed(&node);
    let (conf, result) = add_with_everything(&node, &conf, &pod);
    node.check(&pod, &conf, &result).success();
    for how in RUINS {
        ruin(&node, how, &result);
        node.check(&pod, &conf, &result).failure(105);
        assert!(verb(&node, "doctor").run().text().contains("ferrulectl sync"), "{how}");
        let synced = verb(&node, "sync --output json").run().success();
        assert!(synced["networks"][0]["podsRepaired"].as_u64().unwrap() > 0, "{how}: {synced}");
        node.check(&pod, &conf, &result).success();
        expect_reached(&node, &result, how);
        let again = verb(&node, "sync --output json").run().success();
        assert_eq!(again["networks"][0]["podsRepaired"], 0, "{how}: {again}");
    }
    node.del(&pod, &conf);
    node.expect_nothing_left();
}

/// Without an agent and without a person: what an ADD sees on its way is enough.
#[test]
fn the_next_add_repairs_pods_that_lost_their_routes() {
    let (node, pod, other) = (Node::new(), Pod::new("pod"), Pod::new("other"));
    let conf = installed(&node);
    let (with_all, result) = add_with_everything(&node, &conf, &pod);
    let others = node.add(&other, &conf);
    for how in &RUINS[..5] {
        ruin(&node, how, &result);
        node.add(&Pod::new("next"), &conf);
        expect_reached(&node, &result, how);
        expect_reached(&node, &others, how);
        node.check(&pod, &with_all, &result).success();
        node.check(&other, &conf, &others).success();
    }
}

/// The node's own address is another from now on (DHCP).
#[test]
fn pods_are_reached_from_a_new_address_of_the_node() {
    for by_add in [true, false] {
        let (node, pod) = (Node::new(), Pod::new("pod"));
        let conf = installed(&node);
        let result = node.add(&pod, &conf);
        node.namespace().ip_batch(&format!(
            "address delete {NODE_V4}/24 dev uplink\naddress add 198.18.0.77/24 dev uplink\n\
             route add default via {OUTSIDE_V4}\n"
        ));
        match by_add {
            true => drop(node.add(&Pod::new("next"), &conf)),
            false => drop(verb(&node, "sync").run()),
        }
        expect_reached(&node, &result, "a new address");
        node.check(&pod, &conf, &result).success();
    }
}

/// A gateway that the conf names is a `local` route of `lo`, and for IPv6 an address besides.
#[test]
fn a_named_gateway_that_went_with_lo_comes_back() {
    for by_add in [true, false] {
        let (node, pod) = (Node::bare("node"), Pod::new("pod"));
        let mut conf = node.conf_with(json!([
            [{ "subnet": "10.88.0.0/24", "gateway": "10.88.0.1" }],
            [{ "subnet": "fd00:88::/64", "gateway": "fd00:88::1" }],
        ]));
        conf["name"] = json!("podnet");
        install(&node, "10-ferrule.conflist", &conf);
        let result = node.add(&pod, &conf);
        node.namespace().ip_batch("link set lo down\nlink set lo up\n");
        match by_add {
            true => drop(node.add(&Pod::new("next"), &conf)),
            false => drop(verb(&node, "sync").run()),
        }
        for gateway in ["10.88.0.1", "fd00:88::1"] {
            assert!(answers_ping(pod.namespace(), gateway), "{gateway}");
        }
        expect_reached(&node, &result, "lo");
        node.check(&pod, &conf, &result).success();
    }
}

/// `rm -rf /var/lib/cni` under running pods, of whatever network and family.
#[test]
fn pods_whose_records_were_removed_get_them_again() {
    let (node, pod, next) = (Node::new(), Pod::new("pod"), Pod::new("next"));
    let mut conf = installed(&node);
    conf["runtimeConfig"] =
        json!({ "portMappings": [{ "hostPort": 443, "containerPort": 8080 }], "mac": "02:11:22:33:44:55" });
    node.add(&pod, &conf);
    let before = node.store().record(pod.container());
    std::fs::remove_dir_all(node.data_dir()).unwrap();
    assert_eq!(findings(&node), ["link-unrecorded"]);
    let said = text(&verb(&node, "sync").run()).to_owned();
    assert!(said.contains("records of running pods  1 restored"), "{said}");
    let after = node.store().record(pod.container());
    for field in ["container", "ifname", "hostLink", "addresses", "masquerade", "hostPorts", "mac", "bootId"]
    {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(findings(&node), Vec::<String>::new());
    let _server = Server::tcp(pod.namespace(), 8080, "pod");
    assert_eq!(tcp(node.outside(), NODE_V4, 443).map(|it| it.server).as_deref(), Some("pod"));
    assert!(answers_ping(pod.namespace(), OUTSIDE_V4));
    conf.as_object_mut().unwrap().remove("runtimeConfig");
    assert_eq!(addresses_of(&node.add(&next, &conf)), ["10.88.0.3", "fd00:88::3"]);
    node.del(&next, &conf);
    assert!(!text(&verb(&node, "sync").run()).contains("restored"));
    node.del(&pod, &conf);
    node.expect_nothing_left();
}

/// Of one that lost its record its namespace may not be found: then its link tells whether it lives.
#[test]
fn a_record_without_a_namespace_goes_with_its_link() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = installed(&node);
    node.add(&pod, &conf);
    node.store().rewrite(pod.container(), |record| drop(record.as_object_mut().unwrap().remove("netns")));
    assert!(verb(&node, "reclaim").run().status.success());
    assert_eq!(node.held_addresses(), ["10.88.0.2", "fd00:88::2"]);
    pod.die();
    node.wait_for_host_links(0);
    assert!(verb(&node, "reclaim").run().status.success());
    assert_eq!(node.held_addresses(), Vec::<String>::new());
}
