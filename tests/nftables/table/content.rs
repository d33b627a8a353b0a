//! The table as `nft` sees it, and what making it costs and leaves alone.

use ferrule::datapath::nftables::{add_pod, differences, expire_pod, remove_pod, remove_rest, remove_table};
use ferrule::desired::nftables::element::Protocol::{Tcp, Udp};
use ferrule::linux::nft::table::{Family, Table};
use futures_util::future::join_all;
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::world::{World, ensure, host_port, inside, network, run_nft};
use kit::block_on;
use kit::netns::Namespace;

/// What `nft` must print of an empty table.
const GOLDEN: &str = include_str!("table.nft");

fn ferrule_table() -> Table {
    Table { family: Family::Inet, name: "ferrule".into() }
}

#[test]
fn nft_prints_the_table_as_it_is_meant() {
    let world = World::new();
    block_on(async { ensure(&world.nft()).await.unwrap().expect("made") });
    assert_eq!(world.list("-s list table inet ferrule"), GOLDEN);
}

#[test]
fn nft_makes_the_same_of_what_it_prints() {
    // A node's administrator may save all tables and load them again.
    let (world, elsewhere) = (World::new(), Namespace::new("elsewhere"));
    run_nft(&elsewhere, ["-f", "-"], GOLDEN);
    block_on(async {
        let ours = world.nft();
        ensure(&ours).await.unwrap();
        let theirs = World { node: elsewhere, outside: Namespace::new("unused") };
        assert_eq!(
            ours.rules(&ferrule_table()).await.unwrap(),
            theirs.nft().rules(&ferrule_table()).await.unwrap()
        );
        assert_eq!(ensure(&theirs.nft()).await.unwrap(), None, "as good as ours");
        assert_eq!(differences(&theirs.nft(), &[]).await.unwrap(), [""; 0]);
    });
}

#[test]
fn the_json_of_nft_has_the_elements_of_a_pod_and_none_after_it() {
    let world = World::new();
    let pod = world.pod("a", 10);
    let ports = [host_port("", 80, Tcp), host_port("192.0.2.10", 53, Udp), host_port("fd00:aa::10", 53, Udp)];
    let elements = pod.rules(true, &ports).elements();
    block_on(async {
        let nft = world.prepare().await;
        add_pod(&nft, &elements).await.unwrap();
        assert_eq!(differences(&nft, &elements).await.unwrap(), [""; 0]);
        // Again, as an ADD that is repeated would.
        add_pod(&nft, &elements).await.unwrap();
    });
    let owner = "podnet default/vetha";
    let concat = |parts: Value| json!({ "concat": parts });
    let element = |value: Value| json!([{ "elem": { "val": value, "comment": owner } }]);
    let led =
        |key: Value, to: Value| json!([[{ "elem": { "val": concat(key), "comment": owner } }, concat(to)]]);
    let four = concat(json!(["vetha", "10.244.1.10"]));
    let six = concat(json!(["vetha", "fd00:1::10"]));
    assert_eq!(elements_of(&world, "pods"), element(json!("vetha")));
    assert_eq!(elements_of(&world, "sources4"), element(four.clone()));
    assert_eq!(elements_of(&world, "sources6"), element(six.clone()));
    assert_eq!(elements_of(&world, "masquerade4"), element(four));
    assert_eq!(elements_of(&world, "masquerade6"), element(six));
    assert_eq!(elements_of(&world, "any_hostports4"), led(json!(["tcp", 80]), json!(["10.244.1.10", 8080])));
    assert_eq!(elements_of(&world, "any_hostports6"), led(json!(["tcp", 80]), json!(["fd00:1::10", 8080])));
    assert_eq!(
        elements_of(&world, "hostports4"),
        led(json!(["192.0.2.10", "udp", 53]), json!(["10.244.1.10", 8080]))
    );
    assert_eq!(
        elements_of(&world, "hostports6"),
        led(json!(["fd00:aa::10", "udp", 53]), json!(["fd00:1::10", 8080]))
    );
    block_on(async {
        let nft = world.nft();
        remove_pod(&nft, &elements, &[]).await.unwrap();
        // What is not there is a success.
        remove_pod(&nft, &elements, &[]).await.unwrap();
        assert_eq!(differences(&nft, &elements).await.unwrap().len(), elements.len());
        for set in ["pods", "sources4", "masquerade6", "any_hostports4", "hostports6"] {
            assert_eq!(elements_of(&world, set), Value::Null, "{set}");
        }
        // Nor is the table.
        remove_table(&nft).await.unwrap();
        remove_table(&nft).await.unwrap();
        remove_pod(&nft, &elements, &[]).await.unwrap();
    });
    assert_eq!(world.list("list ruleset"), "");
}

/// What a DEL does instead of removing elements, so that nobody waits for the kernel to free them.
#[test]
fn expired_elements_go_unless_added_again() {
    let world = World::new();
    let (a, b) = (world.pod("a", 10), world.pod("b", 11));
    let (http, dns) = (host_port("", 80, Tcp), host_port("192.0.2.10", 53, Udp));
    let (going, staying) = (a.rules(true, &[http, dns]).elements(), b.elements(&[http]));
    let has_left = || {
        let listed = world.list("list table inet ferrule");
        !listed.contains("vetha") && !listed.contains("10.244.1.10") && !listed.contains("fd00:1::10")
    };
    block_on(async {
        let nft = world.prepare().await;
        add_pod(&nft, &going).await.unwrap();
        assert!(!has_left(), "nft sees it");
        // Twice, as a DEL that is repeated would; and then elements that are gone, which must not come back.
        for _ in 0..2 {
            expire_pod(&nft, &going, &[]).await.unwrap();
        }
        wait_until(has_left);
        expire_pod(&nft, &going, &[]).await.unwrap();
        assert!(has_left());
        let sent = nft.messages_sent();
        remove_rest(&nft, &going, &[]).await.unwrap();
        let asked = 2 + going.len() as u32;
        assert_eq!(
            nft.messages_sent() - sent,
            asked,
            "the table, a chain, one question an element, and nothing to remove"
        );

        // The place is free for another pod at once, and what that one has is not the first one's to end.
        add_pod(&nft, &staying).await.unwrap();
        expire_pod(&nft, &going, &[]).await.unwrap();
        assert_eq!(differences(&nft, &staying).await.unwrap(), [""; 0]);

        // An ADD that comes in between has what it added.
        let (first, rest) = going.split_at(5);
        assert!(rest.iter().all(|element| element.data.is_some()), "{rest:?}");
        add_pod(&nft, first).await.unwrap();
        expire_pod(&nft, first, &[]).await.unwrap();
        add_pod(&nft, first).await.unwrap();
        // Longer than the elements were to have.
        expire_pod(&nft, &staying, &[]).await.unwrap();
        wait_until(|| !world.list("list table inet ferrule").contains("vethb"));
        assert_eq!(differences(&nft, first).await.unwrap(), [""; 0]);

        remove_table(&nft).await.unwrap();
        expire_pod(&nft, &going, &[]).await.unwrap();
    });
}

/// Looks again and again, because nothing tells that an element has expired.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    assert!((0..1000).any(|_| is_so()), "it does not come");
}

#[test]
fn exemptions_are_ranges_that_follow_the_conf() {
    let world = World::new();
    block_on(async {
        let nft = world.prepare().await;
        assert!(
            !ferrule::datapath::nftables::ensure_no_masquerade(&nft, &inside()).await.unwrap(),
            "nothing to do"
        );
    });
    let shown = |set: &str| world.list(&format!("list set inet ferrule {set}"));
    assert!(shown("no_masquerade4").contains("1711677270 . 10.244.0.0/16"), "{}", shown("no_masquerade4"));
    assert!(shown("no_masquerade6").contains("1711677270 . fd00:aa::11 "), "{}", shown("no_masquerade6"));
    block_on(async {
        let mut grown = inside();
        // Wider than one that is there, and another node.
        grown.networks.extend(["10.0.0.0/8", "192.0.2.12/32"].map(|text| text.parse::<IpNetwork>().unwrap()));
        let nft = world.nft();
        assert!(ferrule::datapath::nftables::ensure_no_masquerade(&nft, &grown).await.unwrap());
        assert!(!ferrule::datapath::nftables::ensure_no_masquerade(&nft, &grown).await.unwrap());
    });
    assert!(!shown("no_masquerade4").contains("10.244.0.0/16"), "{}", shown("no_masquerade4"));
    for place in ["10.0.0.0/8", "192.0.2.10", "192.0.2.11", "192.0.2.12"] {
        assert!(
            shown("no_masquerade4").contains(&format!("1711677270 . {place} ")),
            "{place}: {}",
            shown("no_masquerade4")
        );
    }
    block_on(async {
        ferrule::datapath::nftables::remove_no_masquerade(&world.nft(), &network()).await.unwrap()
    });
    assert!(!shown("no_masquerade4").contains("elements"), "{}", shown("no_masquerade4"));
}

#[test]
fn sixteen_that_find_no_table_make_one() {
    let world = World::new();
    block_on(async {
        let ways: Vec<_> = (0..16).map(|_| world.nft()).collect();
        let made = join_all(ways.iter().map(ensure)).await;
        assert_eq!(
            made.into_iter().filter(|made| made.as_ref().unwrap().as_ref().is_some_and(|it| it.made)).count(),
            1
        );
    });
    assert_eq!(world.list("-s list table inet ferrule"), GOLDEN);
}

#[test]
fn a_host_port_among_a_thousand_costs_no_more_messages() {
    let world = World::new();
    let (first, last) = (world.pod("a", 10), world.pod("b", 11));
    let cost = |nft: &ferrule::linux::nfnetlink::Nfnetlink, before: u32| nft.messages_sent() - before;
    block_on(async {
        let nft = world.prepare().await;
        let measure = async |elements: &[_]| {
            let before = nft.messages_sent();
            assert_eq!(ensure(&nft).await.unwrap(), None);
            add_pod(&nft, elements).await.unwrap();
            let add = cost(&nft, before);
            remove_pod(&nft, elements, &[]).await.unwrap();
            (add, cost(&nft, before) - add)
        };
        let one = last.elements(&[host_port("", 65_000, Tcp)]);
        let alone = measure(&one).await;
        let thousand: Vec<_> = (1..=1000).map(|port| host_port("", port, Tcp)).collect();
        add_pod(&nft, &first.elements(&thousand)).await.unwrap();
        assert_eq!(measure(&one).await, alone);
        // The table, a chain; begin and end of the transaction, and the five sets of the pod.
        assert!(alone.0 <= 9, "{alone:?}");
    });
    let listed = elements_of(&world, "any_hostports4");
    assert_eq!(listed.as_array().unwrap().len(), 1000);
}

#[test]
fn other_tables_with_the_same_hooks_stay_as_they_are() {
    const FOREIGN: &str = "table inet kube-proxy {
        map hostports4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
        chain prerouting {
            type filter hook prerouting priority raw; policy accept;
            counter accept
        }
        chain postrouting {
            type nat hook postrouting priority srcnat; policy accept;
            ip saddr 10.9.0.0/16 masquerade
        }
    }
    table ip ferrule {
        chain postrouting {
            type nat hook postrouting priority srcnat; policy accept;
        }
    }";
    let world = World::new();
    let pod = world.pod("a", 10);
    run_nft(&world.node, ["-f", "-"], FOREIGN);
    let foreign = || world.list("-s list table inet kube-proxy") + &world.list("-s list table ip ferrule");
    let before = foreign();
    block_on(async {
        let nft = world.prepare().await;
        let elements = pod.elements(&[host_port("", 80, Tcp)]);
        add_pod(&nft, &elements).await.unwrap();
        run_nft(&world.node, ["flush", "table", "inet", "ferrule"], "");
        assert!(ensure(&nft).await.unwrap().is_some());
        remove_pod(&nft, &elements, &[]).await.unwrap();
        remove_table(&nft).await.unwrap();
    });
    assert_eq!(foreign(), before);
    assert_eq!(world.list("list tables").lines().count(), 2);
}

/// The elements of a set, as `nft -j` lists them.
fn elements_of(world: &World, set: &str) -> Value {
    let kind = if set.contains("hostports") { "map" } else { "set" };
    let listed = world.list(&format!("-j list {kind} inet ferrule {set}"));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let found = listed["nftables"].as_array().unwrap().iter().find(|it| !it[kind].is_null());
    found.unwrap()[kind]["elem"].clone()
}
