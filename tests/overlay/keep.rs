//! What is kept, against what somebody else does to it.

use std::process::Command;
use std::time::Duration;

use ferrule::datapath::overlay::{Made, OverlayDone};
use ferrule::desired::overlay::Routing;
use ferrule::linux::monitor::{Event, Monitor};
use ferrule::linux::netns::Netns;

use super::world::{DEVICE, World};
use kit::packets::answers_ping;
use kit::{block_on, ip};

/// What somebody does, in words and in deed.
type Damage<'a> = (&'static str, Box<dyn Fn() + 'a>);

/// Else an agent that watches the kernel would wake itself for ever.
#[test]
fn what_stands_is_not_written_again() {
    let world = World::new();
    world.settle(Routing::Auto);
    let node = world.node(1);
    block_on(async {
        let mut monitor = Monitor::open_in(&Netns::open(node.namespace.path()).unwrap()).unwrap();
        let round = node.round(Routing::Auto, world.peers_of(1)).unwrap();
        assert!(round.changed_nothing(), "{round:?}");
        node.namespace.ip("route add 203.0.113.0/24 dev up0 proto 99");
        loop {
            let event = tokio::time::timeout(Duration::from_secs(20), monitor.next()).await.unwrap().unwrap();
            // Neighbours of the uplink come and go by themselves.
            if matches!(event, Event::Neighbour { .. }) {
                continue;
            }
            assert!(matches!(event, Event::Route { protocol: 99, .. }), "{event:?}");
            break;
        }
    });
}

#[test]
fn one_device_with_permanent_entries_and_nothing_to_flood() {
    let world = World::new();
    world.settle(Routing::Auto);
    let link = ip::link(&world.node(2).namespace, DEVICE).unwrap();
    let data = &link["linkinfo"]["info_data"];
    assert_eq!(
        (&data["id"], &data["port"], &data["local"], &data["learning"]),
        (&4096.into(), &8472.into(), &"192.168.2.12".into(), &false.into())
    );
    assert!(data.get("remote").is_none() && data.get("group").is_none(), "{data}");
    assert_eq!((&link["mtu"], &link["ifalias"].is_string()), (&1450.into(), &true));
    assert_eq!(world.node(2).namespace.in_sys(&format!("class/net/{DEVICE}/addr_assign_type")), "3");
    assert_eq!(world.node(2).namespace.sysctl(&format!("net/ipv4/conf/{DEVICE}/rp_filter")), "2");
    let addresses = ip::addresses(&world.node(2).namespace, DEVICE);
    let [address] = addresses.as_slice() else { panic!("{addresses:?}") };
    assert_eq!(
        (&address["local"], &address["prefixlen"], &address["scope"]),
        (&"10.244.2.0".into(), &32.into(), &"link".into())
    );
    // Each end computes the other's hardware address.
    let mac = |n| ip::link(&world.node(n).namespace, DEVICE).unwrap()["address"].as_str().unwrap().to_owned();
    let mut expected = vec![format!("fdb {} 192.168.1.11", mac(1)), format!("fdb {} 192.168.1.13", mac(3))];
    expected.sort();
    assert_eq!(world.node(2).forwarding_entries(), expected);
}

/// By hand, by systemd-networkd (routes and rules), by another tool.
#[test]
fn whatever_is_taken_away_or_added_is_repaired_by_one_round() {
    let world = World::new();
    world.settle(Routing::Auto);
    let node = world.node(1);
    let before = node.picture();
    let mac = ip::link(&world.node(2).namespace, DEVICE).unwrap()["address"].as_str().unwrap().to_owned();
    let bridge = |words: &str| {
        let run =
            Command::new("bridge").args(["-n", node.namespace.name(), "fdb"]).args(words.split(' ')).status();
        assert!(run.unwrap().success(), "{words}");
    };
    let ip = |words: &str| drop(node.namespace.ip(words));
    let table = "1711677270";
    let damages: Vec<Damage<'_>> = vec![
        ("device deleted", Box::new(|| ip("link delete ferrule-vxlan"))),
        ("device down", Box::new(|| ip("link set ferrule-vxlan down"))),
        ("mtu", Box::new(|| ip("link set ferrule-vxlan mtu 1300"))),
        ("mac", Box::new(|| ip("link set ferrule-vxlan address 02:00:00:00:00:99"))),
        ("fdb deleted", Box::new(|| bridge(&format!("delete {mac} dev {DEVICE}")))),
        ("fdb elsewhere", Box::new(|| bridge(&format!("replace {mac} dev {DEVICE} dst 192.168.1.99")))),
        ("flooding", Box::new(|| bridge(&format!("append 00:00:00:00:00:00 dev {DEVICE} dst 192.168.1.99")))),
        ("neighbour deleted", Box::new(|| ip("neighbour delete 192.168.2.12 dev ferrule-vxlan"))),
        (
            "neighbour elsewhere",
            Box::new(|| {
                ip("neighbour replace 192.168.2.12 lladdr 02:00:00:00:00:99 dev ferrule-vxlan nud permanent")
            }),
        ),
        (
            "neighbour more",
            Box::new(|| {
                ip("neighbour add 10.9.9.9 lladdr 02:00:00:00:00:99 dev ferrule-vxlan nud permanent")
            }),
        ),
        ("rule deleted", Box::new(|| ip("rule delete priority 32102"))),
        ("rule of IPv6 deleted", Box::new(|| ip("-6 rule delete priority 32102"))),
        ("rule more", Box::new(|| ip("rule add from 10.9.0.0/16 lookup 7 priority 32102 protocol 102"))),
        ("node's route", Box::new(move || ip(&format!("route delete 192.168.2.12 table {table}")))),
        ("pods' route", Box::new(|| ip("route delete 10.244.2.0/24 proto 102"))),
        (
            "node's route more",
            Box::new(move || ip(&format!("route add 10.9.9.9 dev up0 table {table} proto 102"))),
        ),
        ("rp_filter", Box::new(|| node.namespace.set_sysctl("net/ipv4/conf/ferrule-vxlan/rp_filter", "0"))),
        (
            "uplink flap",
            Box::new(|| {
                ip("link set up0 down");
                node.raise_uplink();
            }),
        ),
    ];
    for (what, damage) in damages {
        damage();
        let round = node.round(Routing::Auto, world.peers_of(1)).unwrap();
        assert!(!round.changed_nothing(), "{what}: the damage was not seen");
        assert_eq!(round.failures(), [""; 0], "{what}");
        assert_eq!(node.picture(), before, "{what}");
        assert_eq!(node.namespace.sysctl("net/ipv4/conf/ferrule-vxlan/rp_filter"), "2");
        let again = node.round(Routing::Auto, world.peers_of(1)).unwrap();
        assert!(again.changed_nothing(), "{what}: {again:?}");
    }
    assert!(answers_ping(&node.pod, "10.244.2.10") && answers_ping(&node.pod, "fd00:2::10"));
}

#[test]
fn a_node_that_leaves_takes_its_entries_along() {
    let world = World::new();
    let bare = world.node(2).picture();
    let node = world.node(2);
    let mut peers = world.peers_of(2);
    node.round(Routing::Auto, peers.clone()).unwrap();
    let both = node.picture();
    let gone = peers.remove(1);
    node.round(Routing::Auto, peers.clone()).unwrap();
    let one = node.picture();
    assert!(!one.is_empty() && one.len() < both.len());
    for mark in gone.node_ips.iter().map(ToString::to_string).chain(["10.244.3.".into(), "fd00:3:".into()]) {
        assert!(!one.iter().any(|line| line.contains(&mark)), "{mark} in {one:#?}");
    }
    node.round(Routing::Auto, vec![]).unwrap();
    assert_eq!(node.picture(), bare);
    assert_eq!(ip::link(&node.namespace, DEVICE), None);
}

/// What kind does to its nodes at each restart.
#[test]
fn changed_addresses_of_peer_and_node_are_followed() {
    let mut world = World::new();
    world.settle(Routing::Auto);
    let node = &mut world.nodes[1];
    node.addresses = vec!["192.168.2.77".into(), "fd02::77".into()];
    node.namespace.ip("address flush dev up0 scope global");
    node.raise_uplink();
    node.namespace.ip_batch(
        "route replace 10.244.2.10/32 dev vethpod src 192.168.2.77\n\
         route replace fd00:2::10/128 dev vethpod src fd02::77\n",
    );
    let round = world.node(2).round(Routing::Auto, world.peers_of(2)).unwrap();
    assert_eq!(round.overlay.as_ref().unwrap().device, Made::Replaced);
    world.settle(Routing::Auto);
    let one = world.node(1).picture();
    assert!(!one.iter().any(|line| line.contains("192.168.2.12") || line.contains("fd02::12")), "{one:#?}");
    for (from, to) in [(1, 2), (2, 1)] {
        for address in world.node(to).pod_addresses().iter().chain(&world.node(to).addresses) {
            assert!(answers_ping(&world.node(from).pod, address), "{from} to {address}");
        }
        for address in world.node(to).pod_addresses() {
            assert!(answers_ping(&world.node(from).namespace, &address), "node {from} to {address}");
        }
    }
}

/// Other settings are another device.
#[test]
fn identifier_port_and_mtu_follow_the_settings() {
    let world = World::new();
    world.settle(Routing::Auto);
    let node = world.node(1);
    let settings = ferrule::datapath::overlay::Settings { id: 77, port: 4789, mtu: Some(1400) };
    let round = node.round_with(Routing::Auto, world.peers_of(1), settings).unwrap();
    assert_eq!(round.overlay.unwrap().device, Made::Replaced);
    let link = ip::link(&node.namespace, DEVICE).unwrap();
    let data = &link["linkinfo"]["info_data"];
    assert_eq!((&data["id"], &data["port"], &link["mtu"]), (&77.into(), &4789.into(), &1400.into()));
    let settings = ferrule::datapath::overlay::Settings { mtu: Some(1410), ..settings };
    let round = node.round_with(Routing::Auto, world.peers_of(1), settings).unwrap();
    let corrected = OverlayDone { device: Made::Corrected, ..OverlayDone::default() };
    assert_eq!(round.overlay.unwrap(), corrected);
}
