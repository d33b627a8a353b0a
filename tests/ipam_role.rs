//! ferrule as the IPAM plugin of others: the distribution's ptp and bridge, and host-local as the measure.

mod store;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use kit::binaries::{FERRULE, REFERENCE_PLUGINS};
use kit::call::Call;
use kit::ip;
use kit::netns::Namespace;
use kit::network::Network;
use kit::packets::answers_ping_in_time;
use kit::pod::addresses_of;

/// A network whose links are made by `plugin` of the distribution, and its addresses by ferrule.
struct Peer {
    network: Network,
    plugin: &'static str,
}

impl Peer {
    fn new(plugin: &'static str) -> Self {
        let mut network = Network::for_ipam(plugin);
        network.conf["type"] = json!(plugin);
        if plugin == "bridge" {
            network.conf["bridge"] = json!("br-ferrule");
            network.conf["isGateway"] = json!(true);
        }
        symlink(&*FERRULE, network.node.scratch().path().join("ferrule")).unwrap();
        Self { network, plugin }
    }

    fn call(&self, command: &str, container: &str, pod: &Namespace) -> Call {
        let call =
            Call::reference(self.plugin, command).on(self.network.node.namespace()).conf(&self.network.conf);
        let path = format!("{}:{REFERENCE_PLUGINS}", self.network.node.scratch().path().display());
        call.env("CNI_PATH", path).attachment(container, pod.path())
    }
}

fn ping(from: &Namespace, to: &str) {
    assert!(answers_ping_in_time(from, to), "{} to {to}", from.name());
}

fn two_pods_meet_and_go(plugin: &'static str) {
    let mut peer = Peer::new(plugin);
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    let result_a = peer.call("ADD", "a", &a).run().success();
    let result_b = peer.call("ADD", "b", &b).run().success();
    assert_eq!(addresses_of(&result_a), ["10.77.1.2", "fd00:77:1::2"]);
    assert_eq!(addresses_of(&result_b), ["10.77.1.3", "fd00:77:1::3"]);
    for (pod, result) in [(&a, &result_a), (&b, &result_b)] {
        for address in addresses_of(result) {
            let found = ip::addresses(pod, "eth0");
            assert!(found.iter().any(|it| it["local"] == *address), "{address}: {found:?}");
        }
    }
    for family in [0, 1] {
        ping(&a, &addresses_of(&result_b)[family]);
        ping(&b, &addresses_of(&result_a)[family]);
        ping(peer.network.node.namespace(), &addresses_of(&result_a)[family]);
    }
    assert_eq!(peer.network.held().len(), 4);

    peer.network.conf["prevResult"] = result_a;
    peer.call("CHECK", "a", &a).run().success();
    // Somebody's hand in the store: the main plugin's CHECK hears of it.
    let record = peer.network.store().path().join("by-id/a@eth0");
    let aside = peer.network.node.scratch().path().join("aside");
    std::fs::rename(&record, &aside).unwrap();
    let complaint = peer.call("CHECK", "a", &a).run().complaint(105);
    assert!(complaint.contains("net/a/eth0"), "{complaint}");
    std::fs::rename(&aside, &record).unwrap();

    for _ in 0..2 {
        peer.call("DEL", "a", &a).run().success();
    }
    assert_eq!(peer.network.known(), ["b@eth0"]);
    // As after a reboot: the runtime no longer has a namespace to name.
    peer.call("DEL", "b", &b).without("CNI_NETNS").run().success();
    assert_eq!(peer.network.held(), Vec::<String>::new());
}

#[test]
fn pods_of_ptp_reach_each_other_in_both_families() {
    two_pods_meet_and_go("ptp");
}

#[test]
fn pods_of_bridge_reach_each_other_in_both_families() {
    two_pods_meet_and_go("bridge");
}

#[test]
fn an_exhausted_range_is_told_through_the_main_plugin() {
    let mut peer = Peer::new("ptp");
    peer.network.conf["ipam"]["ranges"] = json!([[{"subnet": "10.77.1.0/30"}]]);
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    peer.call("ADD", "a", &a).run().success();
    let complaint = peer.call("ADD", "b", &b).run().complaint(100);
    assert!(complaint.contains("no free address in"), "{complaint}");
    assert_eq!(peer.network.held(), ["10.77.1.2"]);
}

/// Confs that host-local's users have, and what is special about each.
fn confs_of_host_local(resolv_conf: &PathBuf) -> Vec<(&'static str, Value)> {
    let subnet = || json!([[{"subnet": "10.77.1.0/24"}]]);
    vec![
        ("one subnet", json!({"ranges": subnet()})),
        ("dual stack", json!({"ranges": [[{"subnet": "10.77.1.0/24"}], [{"subnet": "fd00:77:1::/64"}]]})),
        ("IPv6 first", json!({"ranges": [[{"subnet": "fd00:77:1::/64"}], [{"subnet": "10.77.1.0/24"}]]})),
        (
            "short form",
            json!({"subnet": "10.77.1.0/24", "rangeStart": "10.77.1.30", "gateway": "10.77.1.254"}),
        ),
        (
            "short form and ranges",
            json!({"subnet": "10.77.1.0/24", "ranges": [[{"subnet": "fd00:77:1::/64"}]]}),
        ),
        (
            "bounds and gateway",
            json!({"ranges": [[{"subnet": "10.77.1.0/24", "rangeStart": "10.77.1.100", "rangeEnd": "10.77.1.110",
                "gateway": "10.77.1.101"}]]}),
        ),
        (
            "a /30 and its successor",
            json!({"ranges": [[{"subnet": "10.77.1.0/30"}, {"subnet": "10.77.2.0/24"}]]}),
        ),
        (
            "range of one, then another subnet",
            json!({"ranges": [[{"subnet": "10.77.1.0/24", "rangeStart": "10.77.1.9", "rangeEnd": "10.77.1.9"},
                {"subnet": "10.77.9.0/24", "gateway": "10.77.9.7"}]]}),
        ),
        (
            "routes",
            json!({"ranges": subnet(), "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.96.0.0/12", "gw": "10.77.1.1"},
                {"dst": "::/0"}, {"dst": "192.0.2.7/32"}]}),
        ),
        ("no routes", json!({"ranges": subnet(), "routes": []})),
        ("resolvConf", json!({"ranges": subnet(), "resolvConf": resolv_conf})),
    ]
}

/// Moving over from host-local is changing `type`: the main plugin and the runtime see the same.
#[test]
fn results_are_those_of_host_local_for_the_same_conf() {
    let network = Network::for_ipam("same");
    let resolv_conf = network.node.scratch().path().join("resolv.conf");
    let text = "# comment\n; another\nnameserver 10.96.0.10\nnameserver fd00::a\n\ndomain cluster.local\n\
                search a.example b.example\nsearch c.example\noptions ndots:5 edns0\noptions timeout:1\n\
                sortlist 10.0.0.0\nnameserver\n  nameserver 192.0.2.53\n";
    std::fs::write(&resolv_conf, text).unwrap();
    for (index, (what, ipam)) in confs_of_host_local(&resolv_conf).into_iter().enumerate() {
        for version in ["0.2.0", "0.3.1", "0.4.0", "1.0.0"] {
            let answers = |program: &Path, name: &str| -> Vec<Value> {
                let mut conf = network.conf.clone();
                conf["cniVersion"] = json!(version);
                conf["name"] = json!(format!("net{index}-{version}"));
                conf["ipam"] = ipam.clone();
                conf["ipam"]["type"] = json!(name);
                conf["ipam"]["dataDir"] = json!(network.node.scratch().path().join(name));
                conf["dns"] = json!({"nameservers": ["192.0.2.99"]});
                let call = Call::of(program)
                    .env("CNI_COMMAND", "ADD")
                    .env("CNI_PATH", REFERENCE_PLUGINS)
                    .conf(&conf);
                let containers = ["c1", "c2", "c3"];
                let run = |container| {
                    call.clone().attachment(container, network.node.namespace().path()).run().success()
                };
                containers.into_iter().map(run).map(without_nothing).collect()
            };
            let expected = answers(&Path::new(REFERENCE_PLUGINS).join("host-local"), "host-local");
            assert_eq!(answers(&FERRULE, "ferrule"), expected, "{what}, {version}");
        }
    }
}

/// A result without its empty members: `"dns": {}` says as much as no `dns`.
fn without_nothing(mut result: Value) -> Value {
    let is_nothing = |value: &Value| {
        value.is_null()
            || value.as_object().is_some_and(serde_json::Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty)
    };
    if let Some(members) = result.as_object_mut() {
        members.retain(|_, value| !is_nothing(value));
    }
    result
}

/// Addresses asked for, and ranges from the runtime, mean what they mean to host-local.
#[test]
fn runtime_config_and_args_mean_what_they_mean_to_host_local() {
    let network = Network::for_ipam("runtime");
    let cases = [
        ("ips", json!({"runtimeConfig": {"ips": ["10.77.1.44/24"]}}), ""),
        ("args", json!({"args": {"cni": {"ips": ["10.77.1.45"]}}}), ""),
        ("IP", json!({}), "IgnoreUnknown=1;IP=10.77.1.46"),
        ("ipRanges", json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.77.3.0/24"}]]}}), ""),
    ];
    for (what, extra, args) in cases {
        let answer = |program: &Path, name: &str| {
            let mut conf = network.conf.clone();
            conf["name"] = json!(format!("net-{what}"));
            conf["ipam"]["type"] = json!(name);
            conf["ipam"]["dataDir"] = json!(network.node.scratch().path().join(name));
            conf["ipam"]["ranges"] = json!([[{"subnet": "10.77.1.0/24"}]]);
            conf.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let call = Call::of(program)
                .env("CNI_COMMAND", "ADD")
                .env("CNI_PATH", REFERENCE_PLUGINS)
                .env("CNI_ARGS", args);
            without_nothing(
                call.conf(&conf).attachment("c1", network.node.namespace().path()).run().success(),
            )
        };
        let expected = answer(&Path::new(REFERENCE_PLUGINS).join("host-local"), "host-local");
        assert_eq!(answer(&FERRULE, "ferrule"), expected, "{what}");
    }
}

#[test]
fn an_unreadable_resolv_conf_fails_the_add() {
    let mut network = Network::for_ipam("resolv");
    network.conf["ipam"]["resolvConf"] = json!(network.node.scratch().path().join("missing"));
    let complaint = network.call("ADD").attachment("c1", network.node.namespace().path()).run().complaint(5);
    assert!(complaint.contains("ipam.resolvConf") && complaint.contains("missing"), "{complaint}");
    network.assert_nothing_remains();
}

/// In the main role the conf's own `dns` counts before what resolvConf says, as with ptp.
#[test]
fn the_main_plugins_own_dns_counts_before_resolv_conf() {
    let mut network = Network::new("dns");
    let file = network.node.scratch().path().join("resolv.conf");
    std::fs::write(&file, "nameserver 10.96.0.10\nsearch a.example\n").unwrap();
    network.conf["ipam"]["resolvConf"] = json!(file);
    let pod = Namespace::new("pod");
    let result = network.call_for("ADD", "c1", &pod).run().success();
    assert_eq!(result["dns"], json!({"nameservers": ["10.96.0.10"], "search": ["a.example"]}));
    network.call_for("DEL", "c1", &pod).run().success();
    network.conf["dns"] = json!({"nameservers": ["192.0.2.99"]});
    let result = network.call_for("ADD", "c1", &pod).run().success();
    assert_eq!(result["dns"], json!({"nameservers": ["192.0.2.99"]}));
}
