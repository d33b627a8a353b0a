//! Who reaches whom under a plan, by real packets.

use ferrule::datapath::policy::{self, Mirror, Unknown};
use ferrule::policy::plan::{Action, ChainRule, Direction, PeerMatch};

use super::scene::{
    Planning, Scene, TCP, UDP, all, anyone, connects, denied, peers, port, port_chain, range,
};
use kit::block_on;
use kit::packets::{answers_ping, answers_ping_at_once};
use kit::traffic::{BRIEF, Server, UdpClient, receives_udp, send_udp, tcp_from};

const A: [&str; 2] = ["10.244.1.10", "fd00:1::10"];
const B: [&str; 2] = ["10.244.1.11", "fd00:1::11"];
const NODE: [&str; 2] = ["192.0.2.10", "fd00:aa::10"];
const OUTSIDE: [&str; 2] = ["192.0.2.1", "fd00:aa::1"];

#[test]
fn ingress_is_what_ports_and_peers_allow() {
    let mut scene = Scene::new();
    let _servers = [80, 81].map(|port| Server::tcp(&scene.b.namespace, port, "b"));
    let plan = Planning::default()
        .pods("peers-1", &A)
        .chain("pi-1", &[port(TCP, 80, &[peers("peers-1")])], &[])
        .pod("a", "", "")
        .pod("b", "pi-1", "");
    scene.apply(&plan.0);
    let Scene { a, b, c, world, .. } = &scene;
    for to in B {
        assert!(connects(&a.namespace, to, 80), "a to {to}");
        assert!(denied(&a.namespace, to, 81), "a to another port of {to}");
        assert!(denied(&c.namespace, to, 80), "c to {to}");
        assert!(denied(&world.outside, to, 80), "from outside to {to}");
        assert!(!answers_ping_at_once(&a.namespace, to), "no rule is for all protocols");
        // The node may always, whoever is at work there.
        assert!(connects(&world.node, to, 80) && connects(&world.node, to, 81), "node to {to}");
        world.node.sh(&format!(
            "setpriv --reuid 12345 --clear-groups bash -c 'exec 3<>/dev/tcp/{to}/81 && grep -q b <&3'"
        ));
    }
    // b itself is restricted in what it gets, not in what it sends: answers come back.
    let _outside = Server::tcp(&world.outside, 9000, "outside");
    assert!(OUTSIDE.iter().all(|to| connects(&b.namespace, to, 9000)));
    assert!(A.iter().all(|to| answers_ping(&b.namespace, to)));
}

#[test]
fn egress_is_judged_to_pods_node_and_world() {
    let mut scene = Scene::new();
    let servers = [&scene.b.namespace, &scene.c.namespace, scene.node(), &scene.world.outside];
    let _servers = servers.map(|at| [80, 9000].map(|port| Server::tcp(at, port, "server")));
    let to_b = ChainRule {
        peer: PeerMatch::AddressAndPort("named-1".into()),
        comment: "named".into(),
        action: Action::Accept,
    };
    let plan = Planning::default()
        .named_ports("named-1", &[(B[0], TCP, 80), (B[1], TCP, 80)])
        .blocks("blocks-14", &[(OUTSIDE[0], OUTSIDE[0]), (NODE[0], NODE[0])])
        .blocks("blocks-16", &[(OUTSIDE[1], OUTSIDE[1]), (NODE[1], NODE[1])])
        .chain("po-1", &[port(TCP, 9000, &[peers("blocks-1")])], &[to_b])
        .pod("a", "", "po-1");
    scene.apply(&plan.0);
    let Scene { a, b, .. } = &scene;
    for family in [0, 1] {
        assert!(connects(&a.namespace, B[family], 80), "by its name");
        assert!(denied(&a.namespace, B[family], 9000));
        assert!(connects(&a.namespace, OUTSIDE[family], 9000), "to a block");
        assert!(denied(&a.namespace, OUTSIDE[family], 80));
        assert!(connects(&a.namespace, NODE[family], 9000), "to the node, at the input hook");
        assert!(denied(&a.namespace, NODE[family], 80));
        assert!(connects(&b.namespace, OUTSIDE[family], 80), "b is not isolated");
    }
}

#[test]
fn ranges_datagrams_and_icmp_are_judged() {
    let mut scene = Scene::new();
    let some = range(UDP, 5000, 5003, &[anyone()]);
    let plan = Planning::default()
        .pods("peers-1", &A)
        .chain("pi-1", &[some, port(UDP, 6000, &[peers("peers-1")])], &[peers("peers-1")])
        .chain("po-1", &[port(UDP, 53, &[anyone()])], &[])
        .pod("b", "pi-1", "po-1");
    scene.apply(&plan.0);
    let Scene { a, b, c, world, .. } = &scene;
    for (family, any) in ["0.0.0.0", "::"].into_iter().enumerate() {
        let to = B[family];
        let _servers = [4999, 5000, 5003, 5004, 6000].map(|port| Server::udp(&b.namespace, to, port, "b"));
        let (client, other) = (UdpClient::new(&a.namespace, any), UdpClient::new(&c.namespace, any));
        for port in [4999, 5000, 5003, 5004, 6000] {
            assert!(client.ask(to, port).is_some(), "a may all, to {port}");
            assert_eq!(!other.asks_in_vain(to, port), (5000..=5003).contains(&port), "c to {port}");
        }
        assert!(answers_ping(&a.namespace, to), "a rule without ports is for all protocols");
        assert!(!answers_ping_at_once(&c.namespace, to));
        let _dns = [53, 54].map(|port| Server::udp(&world.outside, OUTSIDE[family], port, "dns"));
        let client = UdpClient::new(&b.namespace, any);
        assert!(client.ask(OUTSIDE[family], 53).is_some());
        assert!(client.asks_in_vain(OUTSIDE[family], 54));
    }
}

/// A pod cannot block access to itself, by its own Service either.
#[test]
fn a_pod_reaches_itself_by_its_own_service() {
    let mut scene = Scene::new();
    kit::nft::load(
        scene.node(),
        "table inet service {
            chain to { type nat hook prerouting priority dstnat;
                ip daddr 10.96.0.1 tcp dport 80 dnat ip to 10.244.1.10:8080
                ip daddr 10.96.0.2 tcp dport 80 dnat ip to 10.244.1.11:8080
                ip6 daddr fd00:96::1 tcp dport 80 dnat ip6 to [fd00:1::10]:8080; }
            chain from { type nat hook postrouting priority srcnat;
                oifname vetha ip saddr 10.244.1.10 masquerade
                oifname vetha ip6 saddr fd00:1::10 masquerade; }
        }",
    );
    let _servers = [&scene.a, &scene.b].map(|pod| Server::tcp(&pod.namespace, 8080, "pod"));
    scene.apply(&Planning::default().pod("a", "closed", "closed").0);
    assert!(connects(&scene.a.namespace, "10.96.0.1", 80));
    assert!(connects(&scene.a.namespace, "fd00:96::1", 80));
    assert!(denied(&scene.a.namespace, "10.96.0.2", 80), "another's Service");
    assert!(denied(&scene.b.namespace, "10.96.0.1", 80), "from another pod");
}

/// Destinations were rewritten before, sources are not yet: the client is judged, and the pod behind the port.
#[test]
fn a_node_port_is_judged_by_client_and_pod() {
    let mut scene = Scene::new();
    kit::nft::load(
        scene.node(),
        "table ip service { chain to { type nat hook prerouting priority dstnat;
            ip daddr 192.0.2.10 tcp dport 30080 dnat to 10.244.1.11:8080; }
        }",
    );
    let _server = Server::tcp(&scene.b.namespace, 8080, "b");
    let plan = Planning::default()
        .blocks("blocks-14", &[("192.0.2.0", "192.0.2.10")])
        .chain("pi-1", &[port(TCP, 8080, &[peers("blocks-1")])], &[])
        .pod("b", "pi-1", "");
    scene.apply(&plan.0);
    assert!(tcp_from(&scene.world.outside, "192.0.2.1", "192.0.2.10", 30080).is_some());
    assert!(super::scene::denied_from(&scene.world.outside, "192.0.2.11", "192.0.2.10", 30080));
}

/// Both ends must allow it, and a flow that was allowed goes on: policies are for what begins.
#[test]
fn both_ends_must_allow_what_begins() {
    let mut scene = Scene::new();
    let _server = Server::tcp(&scene.b.namespace, 80, "b");
    let plan = |egress: &str, ingress: &str| {
        Planning::default()
            .pods("peers-1", &[A, B].concat())
            .chain("pi-1", &[], &[peers("peers-1")])
            .chain("po-1", &[], &[peers("peers-1")])
            .pod("a", "", egress)
            .pod("b", ingress, "")
            .0
    };
    for (egress, ingress, allowed) in [
        ("po-1", "pi-1", true),
        ("po-1", "closed", false),
        ("closed", "pi-1", false),
        ("", "pi-1", true),
        ("po-1", "", true),
        ("none", "none", true),
    ] {
        scene.apply(&plan(egress, ingress));
        for to in B {
            let is = if allowed { connects } else { denied };
            assert!(is(&scene.a.namespace, to, 80), "{egress:?} {ingress:?} to {to}");
        }
    }
}

/// By which rule what began was allowed, and how much was denied.
#[test]
fn rules_count_what_begins_and_what_is_denied() {
    let mut scene = Scene::new();
    let _server = Server::tcp(&scene.b.namespace, 80, "b");
    let plan = Planning::default()
        .pods("peers-1", &A)
        .chain("pi-1", &[port(TCP, 80, &[peers("peers-1")])], &[])
        .pod("b", "pi-1", "");
    scene.apply(&plan.0);
    for _ in 0..3 {
        assert!(connects(&scene.a.namespace, B[0], 80));
    }
    assert!(denied(&scene.c.namespace, B[0], 80));
    let counted = policy::counted(&scene.nft, Direction::Ingress, "pi-1");
    let counted = kit::block_on(counted).unwrap();
    let shown: Vec<_> = counted.iter().map(|it| (it.chain.as_str(), it.counted.packets)).collect();
    let [four, six, (last, denied)] = shown[..] else { panic!("{counted:?}") };
    let chain = port_chain(TCP, 80, &[peers("peers-1")]);
    assert_eq!((four, six, last), ((chain.as_str(), 3), (chain.as_str(), 0), "denied_in"));
    assert!(denied >= 1, "{counted:?}");
    assert_eq!(counted[0].comment, "shop/peers ingress[0]");
    // A chain that stays goes on counting, whatever changes beside it.
    scene.read();
    scene.apply(&plan.pods("peers-2", &A).chain("pi-2", &[], &[peers("peers-2")]).pod("c", "pi-2", "").0);
    let counted = kit::block_on(policy::counted(&scene.nft, Direction::Ingress, "pi-1")).unwrap();
    assert_eq!(counted[0].counted.packets, 3);
}

/// Whoever can choose his source, a container of docker for example, does not speak as the pod itself.
#[test]
fn who_sends_under_a_pods_own_address_is_judged() {
    let mut scene = Scene::new();
    let plan = Planning::default().pod("b", "closed", "");
    let mut attached = scene.attached();
    attached[1].addresses.push("10.244.1.99".parse().unwrap());
    let mut mirror = Mirror::default();
    block_on(policy::apply(&scene.nft, &mut mirror, &plan.0, &all(), &attached, Unknown::Open)).unwrap();
    let own = scene.list("");
    assert!(own.contains("10.244.1.99"), "{own}");
    let Scene { b, c, .. } = &mut scene;
    c.namespace.ip("address add 10.244.1.99/32 dev lo");
    let send = || send_udp(&c.namespace, "10.244.1.99", B[0], 9);
    assert!(!receives_udp(BRIEF, &b.namespace, B[0], 9, send));
}
