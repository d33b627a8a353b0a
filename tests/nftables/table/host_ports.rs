//! Ports of the node that lead to pods.

use ferrule::datapath::nftables::{NftError, add_pod, remove_pod};
use ferrule::desired::nftables::element::HostPort;
use ferrule::desired::nftables::element::Protocol::{Sctp, Tcp, Udp};

use super::world::{Pod, World, host_port, run_nft, set};
use kit::block_on;
use kit::traffic::{Server, UdpClient, reply, tcp, udp};

/// What [`host_port`] leads to.
const TARGET: u16 = 8080;

/// Adds pods with their hostPorts and the setting that their links need.
fn add(world: &World, pods: &[(&Pod, &[HostPort])]) {
    block_on(async {
        let nft = world.prepare().await;
        for (pod, ports) in pods {
            let rules = pod.rules(true, ports);
            add_pod(&nft, &rules.elements()).await.unwrap();
            let link = &pod.host_link;
            // With strict source checks of the kernel's own, as an attachment's link has.
            let values = ["route_localnet", "rp_filter"].map(|name| format!("ipv4/conf/{link}/{name}=1"));
            set(&world.node, &values.each_ref().map(String::as_str));
        }
    });
}

/// From everywhere: kubernetes/plugins#763 (localhost), the hairpin of every bridge plugin.
#[test]
fn a_host_port_is_reached_from_everywhere_and_sees_the_client_where_it_can() {
    let world = World::new();
    let (pod, other) = (world.pod("a", 10), world.pod("b", 11));
    let _server = Server::tcp(&pod.namespace, TARGET, "a");
    add(&world, &[(&pod, &[host_port("", 30_080, Tcp)]), (&other, &[host_port("", 1, Udp)])]);
    let from = |from, to: &str| tcp(from, to, 30_080);
    // Another host, with its own address.
    for (to, client) in
        [("192.0.2.10", "192.0.2.1"), ("192.0.2.110", "192.0.2.1"), ("fd00:aa::10", "fd00:aa::1")]
    {
        let seen = from(&world.outside, to).unwrap_or_else(|| panic!("{to}"));
        let same_host: &[&str] =
            if to.contains(':') { &["fd00:aa::1", "fd00:aa::11", "fd00:2::5"] } else { &[client] };
        assert!(same_host.contains(&seen.client.to_string().as_str()), "{seen:?}");
        assert_eq!(seen.server, "a");
    }
    // The node, by each of its addresses; it speaks to its second one from its first.
    for (to, client) in
        [("192.0.2.10", "192.0.2.10"), ("192.0.2.110", "192.0.2.10"), ("fd00:aa::10", "fd00:aa::10")]
    {
        assert_eq!(from(&world.node, to), reply(client, "a"), "{to}");
    }
    // 127.0.0.1 cannot be answered: the pod sees the node.
    for to in ["127.0.0.1", "127.1.2.3"] {
        assert_eq!(from(&world.node, to), reply("192.0.2.10", "a"), "{to}");
    }
    // Another pod.
    assert_eq!(from(&other.namespace, "192.0.2.10"), reply("10.244.1.11", "a"));
    assert_eq!(from(&other.namespace, "fd00:aa::10"), reply("fd00:1::11", "a"));
    // The pod itself, which sees the node: it would drop what comes from its own address.
    assert_eq!(from(&pod.namespace, "192.0.2.10"), reply("192.0.2.10", "a"));
    assert_eq!(from(&pod.namespace, "fd00:aa::10"), reply("fd00:aa::10", "a"));
    // Another port, and the same port of another protocol, lead nowhere.
    assert_eq!(tcp(&world.outside, "192.0.2.10", 30_081), None);
    assert!(UdpClient::new(&world.outside, "0.0.0.0").asks_in_vain("192.0.2.10", 30_080));
    // And what is not for this node is not redirected: the peer's own server answers.
    let _peer = Server::tcp(&world.outside, 30_080, "outside");
    assert_eq!(from(&pod.namespace, "192.0.2.11"), reply("10.244.1.10", "outside"));
}

/// The conformance test "no conflict between pods with same hostPort but different hostIP and protocol".
#[test]
fn pods_share_a_port_on_different_addresses_and_protocols() {
    let world = World::new();
    let (a, b, c) = (world.pod("a", 10), world.pod("b", 11), world.pod("c", 12));
    let _servers = [
        Server::tcp(&a.namespace, TARGET, "a"),
        Server::tcp(&b.namespace, TARGET, "b"),
        Server::udp(&c.namespace, "10.244.1.12", TARGET, "c"),
    ];
    add(
        &world,
        &[
            (&a, &[host_port("127.0.0.1", 54_323, Tcp)]),
            (&b, &[host_port("192.0.2.10", 54_323, Tcp)]),
            (&c, &[host_port("192.0.2.10", 54_323, Udp)]),
        ],
    );
    let node = |to| tcp(&world.node, to, 54_323).map(|reply| reply.server);
    assert_eq!(node("127.0.0.1").as_deref(), Some("a"));
    assert_eq!(node("192.0.2.10").as_deref(), Some("b"));
    assert_eq!(node("192.0.2.110"), None);
    assert_eq!(tcp(&world.outside, "192.0.2.10", 54_323), reply("192.0.2.1", "b"));
    for from in [&world.node, &world.outside] {
        assert_eq!(
            udp(from, "0.0.0.0", "192.0.2.10", 54_323).map(|reply| reply.server).as_deref(),
            Some("c")
        );
    }
}

#[test]
fn one_address_comes_before_all_addresses() {
    let world = World::new();
    let (all, one) = (world.pod("a", 10), world.pod("b", 11));
    let _servers = [Server::tcp(&all.namespace, TARGET, "all"), Server::tcp(&one.namespace, TARGET, "one")];
    add(&world, &[(&all, &[host_port("0.0.0.0", 80, Tcp)]), (&one, &[host_port("192.0.2.110", 80, Tcp)])]);
    assert_eq!(tcp(&world.outside, "192.0.2.10", 80), reply("192.0.2.1", "all"));
    assert_eq!(tcp(&world.outside, "192.0.2.110", 80), reply("192.0.2.1", "one"));
    // 0.0.0.0 means IPv4.
    assert_eq!(tcp(&world.outside, "fd00:aa::10", 80), None);
}

/// kubernetes#93091: the old pod's rule wins.
#[test]
fn a_port_that_is_taken_is_refused_with_its_holder_and_stays_the_holders() {
    let world = World::new();
    let (holder, late) = (world.pod("a", 10), world.pod("b", 11));
    let ports = [host_port("", 80, Tcp), host_port("192.0.2.10", 53, Udp), host_port("", 443, Sctp)];
    let (theirs, ours) = (holder.elements(&ports), late.elements(&ports));
    block_on(async {
        let nft = world.prepare().await;
        add_pod(&nft, &theirs).await.unwrap();
        let error = add_pod(&nft, &ours).await.unwrap_err();
        let NftError::HostPortTaken(clashes) = &error else { panic!("{error}") };
        assert_eq!(clashes.len(), 5);
        assert!(clashes.iter().all(|clash| clash.comment.as_deref() == Some("podnet default/vetha")));
        let words = error.to_string();
        for part in [
            "hostPort tcp 80 leads to 10.244.1.10 port 8080 already (podnet default/vetha)",
            "hostPort 192.0.2.10 udp 53 leads to 10.244.1.10 port 8080 already (podnet default/vetha)",
            "hostPort sctp 443 leads to fd00:1::10 port 8080 already (podnet default/vetha)",
        ] {
            assert!(words.contains(part), "{words}");
        }
        // Nothing of the late one is there, not even what was free; and to take it back takes nothing else.
        assert!(!world.list("list table inet ferrule").contains("vethb"));
        remove_pod(&nft, &ours).await.unwrap();
        assert!(world.list("list map inet ferrule any_hostports4").contains("tcp . 80"));
        remove_pod(&nft, &theirs).await.unwrap();
        add_pod(&nft, &ours).await.unwrap();
    });
}

/// CVE-2019-9946: a hostPort must not draw a Service's traffic.
#[test]
fn a_service_on_the_nodes_address_comes_before_a_host_port() {
    let world = World::new();
    let (pod, backend) = (world.pod("a", 10), world.pod("b", 11));
    let _servers =
        [Server::tcp(&pod.namespace, TARGET, "hostport"), Server::tcp(&backend.namespace, TARGET, "service")];
    run_nft(
        &world.node,
        ["-f", "-"],
        "table ip kube-proxy {
            chain services {
                type nat hook prerouting priority dstnat;
                ip daddr 192.0.2.10 tcp dport 80 dnat to 10.244.1.11:8080
            }
        }",
    );
    add(&world, &[(&pod, &[host_port("", 80, Tcp)])]);
    assert_eq!(tcp(&world.outside, "192.0.2.10", 80), reply("192.0.2.1", "service"));
    assert_eq!(tcp(&world.outside, "192.0.2.110", 80), reply("192.0.2.1", "hostport"));
}

/// plugins#512
#[test]
fn a_removed_host_port_leads_nowhere_and_the_others_go_on() {
    let world = World::new();
    let (a, b) = (world.pod("a", 10), world.pod("b", 11));
    let _servers = [Server::tcp(&a.namespace, TARGET, "a"), Server::tcp(&b.namespace, TARGET, "b")];
    let ports: [&[HostPort]; 2] = [&[host_port("", 80, Tcp)], &[host_port("", 81, Tcp)]];
    add(&world, &[(&a, ports[0]), (&b, ports[1])]);
    assert_eq!(tcp(&world.outside, "192.0.2.10", 80), reply("192.0.2.1", "a"));
    block_on(async { remove_pod(&world.nft(), &a.rules(true, ports[0]).elements()).await.unwrap() });
    assert_eq!(tcp(&world.outside, "192.0.2.10", 80), None);
    assert_eq!(tcp(&world.outside, "192.0.2.10", 81), reply("192.0.2.1", "b"));
}
