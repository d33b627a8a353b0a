//! Other plugins behind ferrule: tuning, portmap and bandwidth work as behind any other main plugin.

use serde_json::{Value, json};

use super::{Chain, index_of, versions};
use kit::files::names_in;
use kit::ip;
use kit::netns::{Namespace, inside};
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4};
use kit::packets::answers_ping;
use kit::pod::host_link_of;
use kit::tc;

/// ferrule for both families, and behind it `other`, which keeps what it has to keep beside the node's store.
fn followed_by(version: &str, mut other: Value) -> Chain {
    let node = Node::new();
    other["dataDir"] = json!(node.scratch().path().join("tuning"));
    let plugins = vec![node.conf(), other];
    Chain::new(node, version, plugins)
}

fn expect_pings(chain: &Chain) {
    // The answer over IPv6 is that to the node's ping: beyond, the uplink's duplicate address detection is in the way.
    assert!(answers_ping(chain.pod.namespace(), OUTSIDE_V4));
    for address in chain.pod.addresses() {
        let address = address.split('/').next().unwrap().to_owned();
        assert!(answers_ping(chain.node.namespace(), &address), "{address} from the node");
    }
}

#[test]
fn tuning_sets_mtu_promiscuous_mode_and_sysctls() {
    for version in versions(&["tuning"]) {
        let tuning = json!({
            "type": "tuning", "mtu": 1400, "promisc": true,
            "sysctl": { "net.core.somaxconn": "500", "net.ipv4.conf.eth0.arp_notify": "1" },
        });
        let chain = followed_by(version, tuning);
        let result = chain.add();
        let link = ip::link(chain.pod.namespace(), "eth0").unwrap();
        assert_eq!((&link["mtu"], &link["promiscuity"]), (&json!(1400), &json!(1)), "{link}");
        assert_eq!(chain.pod.namespace().sysctl("net/core/somaxconn"), "500");
        chain.check(&result);
        expect_pings(&chain);
        chain.del(&result);
        assert_eq!(ip::link(chain.pod.namespace(), "eth0"), None);
        assert_eq!(names_in(&chain.node.scratch().path().join("tuning")), Vec::<String>::new());
        chain.node.expect_nothing_left();
    }
}

/// What tuning sets and no result tells may be less than ferrule's, but not more: the node's end would drop it.
#[test]
fn an_mtu_that_the_nodes_end_cannot_carry_is_a_difference() {
    let chain = followed_by("1.0.0", json!({ "type": "tuning", "mtu": 1400 }));
    let result = chain.add();
    chain.check_ferrule(&result).success();
    chain.pod.namespace().ip("link set eth0 mtu 1501");
    let told = chain.check_ferrule(&result).complaint(105);
    assert!(told.contains("the pod's end has mtu 1501"), "{told}");
    chain.del(&result);
}

/// The sender's TCP in the namespace `from` reaches port 8080 of the pod by `address`; what the pod answers.
fn reached(from: &Namespace, address: &str, port: u16) -> std::io::Result<String> {
    use std::io::Read;
    use std::net::{IpAddr, SocketAddr, TcpStream};
    use std::time::Duration;
    let target = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port);
    let patience = Duration::from_secs(5);
    let mut stream = inside(from, || TcpStream::connect_timeout(&target, patience))?;
    stream.set_read_timeout(Some(patience))?;
    let mut word = String::new();
    stream.read_to_string(&mut word).map(|_| word)
}

/// Answers every TCP connection to port 8080 of the pod with `word`, `count` times.
fn answer(pod: &Namespace, word: &'static str, count: usize) -> std::thread::JoinHandle<()> {
    use std::io::Write;
    let listener = inside(pod, || std::net::TcpListener::bind("[::]:8080").unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().take(count) {
            stream.unwrap().write_all(word.as_bytes()).unwrap();
        }
    })
}

fn iptables(node: &Namespace, program: &str) -> String {
    node.sh(&format!("{program} -t nat -S"))
}

#[test]
fn portmap_leads_a_port_of_the_node_to_the_pod() {
    for version in versions(&["portmap"]) {
        let chain = followed_by(
            version,
            json!({
                "type": "portmap", "snat": true, "capabilities": { "portMappings": true },
                "runtimeConfig": { "portMappings": [
                    { "hostPort": 18080, "containerPort": 8080, "protocol": "tcp" },
                ] },
            }),
        );
        let result = chain.add();
        let server = answer(chain.pod.namespace(), "here", 4);
        let (outside, node) = (chain.node.outside(), chain.node.namespace());
        for (from, to) in [(outside, NODE_V4), (outside, NODE_V6), (node, NODE_V4), (node, "127.0.0.1")] {
            assert_eq!(reached(from, to, 18080).unwrap(), "here", "{version} {to} from {}", from.name());
        }
        server.join().unwrap();
        chain.check(&result);
        assert!(iptables(node, "iptables").contains("10.88.0.2:8080"));
        chain.del(&result);
        for (program, pod) in [("iptables", "10.88.0.2"), ("ip6tables", "fd00:88::2")] {
            let rules = iptables(node, program);
            assert!(!rules.contains(pod), "{rules}");
        }
        assert!(reached(outside, NODE_V4, 18080).is_err());
        chain.node.expect_nothing_left();
    }
}

#[test]
fn bandwidth_puts_its_buckets_on_the_host_link() {
    for version in versions(&["bandwidth"]) {
        let chain = followed_by(
            version,
            json!({
                "type": "bandwidth", "capabilities": { "bandwidth": true },
                "runtimeConfig": { "bandwidth": {
                    "ingressRate": 8_000_000, "ingressBurst": 1_600_000,
                    "egressRate": 16_000_000, "egressBurst": 3_200_000,
                } },
            }),
        );
        let result = chain.add();
        let host = host_link_of(&result);
        let rates = |link: &str| {
            let qdiscs = tc::qdiscs(chain.node.namespace(), link);
            let buckets = qdiscs.iter().filter(|qdisc| qdisc["kind"] == "tbf");
            buckets.map(|it| it["options"]["rate"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(rates(&host), [1_000_000], "what the pod receives");
        let links = chain.node.host_links();
        let [ifb] = links.iter().filter(|name| **name != host).collect::<Vec<_>>()[..] else {
            panic!("{links:?}")
        };
        assert_eq!(rates(ifb), [2_000_000], "what the pod sends");
        chain.check(&result);
        expect_pings(&chain);
        chain.del(&result);
        chain.node.expect_nothing_left();
    }
}

/// As `conf/chained.conflist` has them, and tuning besides.
#[test]
fn all_of_them_in_one_chain_agree_with_each_other() {
    for version in versions(&["tuning", "portmap", "bandwidth"]) {
        let node = Node::new();
        let limits = json!({ "ingressRate": 8_000_000, "ingressBurst": 1_600_000 });
        let plugins = vec![
            node.conf(),
            json!({ "type": "tuning", "sysctl": { "net.core.somaxconn": "500" }, "mtu": 1300,
                "dataDir": node.scratch().path().join("tuning") }),
            json!({ "type": "portmap", "snat": true, "runtimeConfig": { "portMappings": [
                { "hostPort": 18081, "containerPort": 8080, "protocol": "tcp", "hostIP": NODE_V4 } ] } }),
            json!({ "type": "bandwidth", "runtimeConfig": { "bandwidth": limits } }),
        ];
        let chain = Chain::new(node, version, plugins);
        let result = chain.add();
        let server = answer(chain.pod.namespace(), "here", 1);
        assert_eq!(reached(chain.node.outside(), NODE_V4, 18081).unwrap(), "here");
        server.join().unwrap();
        chain.check(&result);
        chain.del(&result);
        // A runtime that was killed repeats it.
        chain.del(&result);
        chain.node.expect_nothing_left();
    }
}

/// Both plugins read `MAC` of CNI_ARGS and `runtimeConfig.mac`. But whoever sets a hardware address, be it the same one,
/// has the kernel forget all neighbours of that link (neigh_changeaddr, net/core/neighbour.c), and the gateway's stands
/// there for good. ferrule is the one to be told; CHECK names what is missing.
#[test]
fn a_hardware_address_set_by_tuning_is_followed() {
    let chain = followed_by("1.0.0", json!({ "type": "tuning", "mac": "02:11:22:33:44:55" }));
    let result = chain.add();
    let pod_end = index_of(&result, "eth0");
    assert_eq!(result["interfaces"][pod_end]["mac"], "02:11:22:33:44:55");
    let told = chain.check_ferrule(&result).complaint(105);
    for words in [
        "pod: neighbour 169.254.1.1",
        "pod: neighbour fe80::1",
        "node: neighbour 10.88.0.2 lladdr 02:11:22:33:44:55",
        "node: neighbour fd00:88::2 lladdr 02:11:22:33:44:55",
    ] {
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
    assert!(!told.contains("'s end has address"), "the runtime was told of it: {told}");

    // With the neighbours put right by hand it is whole again, which shows that nothing else was lost.
    let host = host_link_of(&result);
    let host_mac = result["interfaces"][0]["mac"].as_str().unwrap();
    for hop in ["169.254.1.1", "fe80::1"] {
        chain.pod.namespace().ip(&format!("neighbour add {hop} lladdr {host_mac} dev eth0 nud permanent"));
    }
    for address in ["10.88.0.2", "fd00:88::2"] {
        let neighbour =
            format!("neighbour replace {address} lladdr 02:11:22:33:44:55 dev {host} nud permanent");
        chain.node.namespace().ip(&neighbour);
    }
    chain.check(&result);
    expect_pings(&chain);

    // An address that nobody was told of is a difference as before.
    chain.pod.namespace().ip("link set eth0 address 02:11:22:33:44:66");
    let told = chain.check_ferrule(&result).complaint(105);
    assert!(told.contains("the pod's end has address 02:11:22:33:44:66"), "{told}");
    chain.del(&result);
    chain.node.expect_nothing_left();
}
