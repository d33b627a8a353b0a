//! Routes follow the conf, and come back when somebody takes them away.

use super::{add_one, conf, delete, peer, peer_routes, silent_peer};
use kit::underlay::Underlay;

const FOUR: [&str; 4] = [
    "10.244.1.0/24 via 192.168.77.11",
    "10.244.2.0/24 via 192.168.77.12",
    "fd00:244:1::/64 via fd77::11",
    "fd00:244:2::/64 via fd77::12",
];

/// Does not follow node addresses: kr PR #2164. Never removes: flannel#2554, kindnetd, kr#1738.
#[test]
fn the_next_add_follows_a_peer_that_changed_or_left() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    add_one(node, &conf(node, "podnet", 0, vec![peer(1), peer(2)]), "c1");
    assert_eq!(peer_routes(node), FOUR);

    let mut moved = peer(1);
    moved["nodeIPs"] = serde_json::json!(["192.168.77.55", "fd77::55"]);
    add_one(node, &conf(node, "podnet", 0, vec![moved, peer(2)]), "c2");
    let after = ["10.244.1.0/24 via 192.168.77.55", FOUR[1], "fd00:244:1::/64 via fd77::55", FOUR[3]];
    assert_eq!(peer_routes(node), after);

    let mut renumbered = peer(1);
    renumbered["podCIDRs"] = serde_json::json!(["10.244.91.0/24", "fd00:244:91::/64"]);
    add_one(node, &conf(node, "podnet", 0, vec![renumbered, peer(2)]), "c3");
    let after = [FOUR[1], "10.244.91.0/24 via 192.168.77.11", FOUR[3], "fd00:244:91::/64 via fd77::11"];
    assert_eq!(peer_routes(node), after);

    add_one(node, &conf(node, "podnet", 0, vec![peer(2)]), "c4");
    assert_eq!(peer_routes(node), [FOUR[1], FOUR[3]]);

    // The last one too: a conf without peers is a conf that wants no routes.
    add_one(node, &conf(node, "podnet", 0, vec![]), "c5");
    assert_eq!(peer_routes(node), [""; 0]);
}

/// systemd-networkd removes what it does not know (kube-router#1815, systemd#25451); a person removes too much.
#[test]
fn the_next_add_restores_deleted_routes() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    let conf = conf(node, "podnet", 0, vec![peer(1), peer(2)]);
    add_one(node, &conf, "c0");
    delete(node, &peer_routes(node));
    assert_eq!(peer_routes(node), [""; 0]);
    add_one(node, &conf, "c1");
    assert_eq!(peer_routes(node), FOUR);
    for (n, one) in FOUR.iter().enumerate() {
        delete(node, &[(*one).to_owned()]);
        assert_eq!(peer_routes(node).len(), 3);
        add_one(node, &conf, &format!("d{n}"));
        assert_eq!(peer_routes(node), FOUR, "after {one} was deleted");
    }
}

/// A link flap takes every route through the link (flannel#1070, flannel#869).
#[test]
fn the_next_add_restores_routes_after_a_link_flap() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    let conf = conf(node, "podnet", 0, vec![peer(1), peer(2)]);
    add_one(node, &conf, "c0");
    node.namespace().ip_batch("link set up0 down\nlink set up0 up\n");
    assert_eq!(peer_routes(node), [""; 0]);
    underlay.give_addresses(0);
    add_one(node, &conf, "c1");
    assert_eq!(peer_routes(node), FOUR);
}

/// Of many routes one is missed as soon as any.
#[test]
fn the_next_add_puts_back_one_route_of_a_thousand() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    let conf = conf(node, "podnet", 0, (0..500).map(silent_peer).collect());
    add_one(node, &conf, "first");
    let all = peer_routes(node);
    assert_eq!(all.len(), 1000);
    delete(node, &[all[333].clone()]);
    assert_eq!(peer_routes(node).len(), 999);
    add_one(node, &conf, "second");
    assert_eq!(peer_routes(node), all);
}
