//! Flows of UDP that began before their hostPort, or outlived it (plugins#123, kubernetes#95258).

use std::net::IpAddr;

use ferrule::datapath::nftables::flows::{forget_address, forget_redirected};
use ferrule::datapath::nftables::{add_pod, remove_pod};
use ferrule::desired::nftables::element::Protocol::Udp;
use ferrule::linux::conntrack::FlowFilter;

use super::world::{World, host_port};
use kit::block_on;
use kit::traffic::{Server, UdpClient, reply};

/// containernetworking/plugins#123, kubernetes#66651: a client that never pauses.
#[test]
fn forgotten_flows_lead_a_busy_client_to_the_next_pod() {
    let world = World::new();
    let (a, b) = (world.pod("a", 10), world.pod("b", 11));
    let _servers = [
        Server::udp(&a.namespace, "10.244.1.10", 8080, "a"),
        Server::udp(&b.namespace, "10.244.1.11", 8080, "b"),
    ];
    let ports = [host_port("", 514, Udp)];
    let client = UdpClient::new(&world.outside, "192.0.2.1");
    let ask = || client.ask("192.0.2.10", 514);
    block_on(async {
        let (nft, node) = (world.prepare().await, world.netlink());
        // Nobody is there yet, and the flow to the node itself is remembered.
        assert!(client.asks_in_vain("192.0.2.10", 514));
        add_pod(&nft, &a.elements(&ports)).await.unwrap();
        let in_vain = client.asks_in_vain("192.0.2.10", 514);
        assert!(in_vain, "the flow keeps to the node: the test would prove nothing otherwise");
        assert_eq!(forget_redirected(&nft, &node, &a.elements(&ports)).await.unwrap(), 1);
        assert_eq!(ask(), reply("192.0.2.1", "a"));
        let flows = nft.flows(FlowFilter::All { ipv4: true }).await.unwrap();
        let to_pod =
            flows.iter().find(|flow| flow.answerer == "10.244.1.10".parse::<IpAddr>().unwrap()).unwrap();
        assert_eq!((to_pod.destination_port, to_pod.answering_port), (Some(514), Some(8080)));

        remove_pod(&nft, &a.elements(&ports), &[]).await.unwrap();
        add_pod(&nft, &b.elements(&ports)).await.unwrap();
        assert_eq!(ask(), reply("192.0.2.1", "a"), "the flow keeps to the old pod");
        assert_eq!(forget_redirected(&nft, &node, &a.elements(&ports)).await.unwrap(), 1);
        assert_eq!(ask(), reply("192.0.2.1", "b"));
        // Nothing to forget is a success, and so is a hostPort of TCP only.
        remove_pod(&nft, &b.elements(&ports), &[]).await.unwrap();
        assert_eq!(forget_redirected(&nft, &node, &b.elements(&ports)).await.unwrap(), 1);
        assert_eq!(forget_redirected(&nft, &node, &b.elements(&ports)).await.unwrap(), 0);
    });
}

/// A resolver on hostPort 53 must not cut the queries that others have under way.
#[test]
fn flows_to_the_same_port_elsewhere_are_left_alone() {
    let world = World::new();
    let pod = world.pod("a", 10);
    let _servers = [
        Server::udp(&world.outside, "192.0.2.1", 53, "world"),
        Server::udp(&world.node, "192.0.2.110", 53, "node"),
        Server::udp(&world.node, "192.0.2.10", 53, "node"),
    ];
    block_on(async {
        let (nft, node) = (world.prepare().await, world.netlink());
        let queries = [
            (UdpClient::new(&pod.namespace, "10.244.1.10"), "192.0.2.1"),
            (UdpClient::new(&world.outside, "192.0.2.1"), "192.0.2.110"),
            (UdpClient::new(&world.outside, "192.0.2.1"), "192.0.2.10"),
        ];
        for (client, to) in &queries {
            assert!(client.ask(to, 53).is_some(), "{to}");
        }
        let filter = FlowFilter::ToPort { ipv4: true, protocol: 17, port: 53, address: None };
        assert_eq!(nft.flows(filter).await.unwrap().len(), 3);
        let ports = [host_port("192.0.2.10", 53, Udp)];
        assert_eq!(forget_redirected(&nft, &node, &pod.elements(&ports)).await.unwrap(), 1);
        let left: Vec<_> = nft.flows(filter).await.unwrap();
        let mut left: Vec<_> = left.iter().map(|flow| flow.destination.to_string()).collect();
        left.sort();
        assert_eq!(left, ["192.0.2.1", "192.0.2.110"]);
        let all = [host_port("", 53, Udp)];
        assert_eq!(forget_redirected(&nft, &node, &pod.elements(&all)).await.unwrap(), 1);
        assert_eq!(nft.flows(filter).await.unwrap().len(), 1, "the pod's own query to the world");
    });
}

#[test]
fn an_address_that_changes_hands_takes_no_flow_along() {
    let world = World::new();
    let (a, b) = (world.pod("a", 10), world.pod("b", 11));
    let _servers = [
        Server::udp(&a.namespace, "10.244.1.10", 8080, "a"),
        Server::udp(&b.namespace, "fd00:1::11", 8080, "b"),
        Server::udp(&world.outside, "192.0.2.1", 9000, "outside"),
    ];
    block_on(async {
        let nft = world.prepare().await;
        add_pod(&nft, &a.rules(true, &[host_port("", 514, Udp)]).elements()).await.unwrap();
        add_pod(&nft, &b.rules(true, &[]).elements()).await.unwrap();
        // To the pod through its hostPort, from the pod to the world, and one of another pod.
        let clients = [
            (UdpClient::new(&world.outside, "192.0.2.1"), "192.0.2.10", 514),
            (UdpClient::new(&a.namespace, "10.244.1.10"), "192.0.2.1", 9000),
            (UdpClient::new(&world.outside, "fd00:aa::1"), "fd00:1::11", 8080),
        ];
        for (client, to, port) in &clients {
            assert!(client.ask(to, *port).is_some(), "{to}");
        }
        assert_eq!(forget_address(&nft, "10.244.1.10".parse().unwrap()).await.unwrap(), 2);
        assert_eq!(forget_address(&nft, "10.244.1.10".parse().unwrap()).await.unwrap(), 0);
        assert_eq!(nft.flows(FlowFilter::AnsweredBy("fd00:1::11".parse().unwrap())).await.unwrap().len(), 1);
        let other = FlowFilter::AnsweredBy("fd00:1::10".parse().unwrap());
        assert_eq!(nft.flows(other).await.unwrap(), []);
        assert_eq!(forget_address(&nft, "fd00:1::11".parse().unwrap()).await.unwrap(), 1);
    });
}
