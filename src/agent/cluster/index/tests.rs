use super::*;
use crate::agent::k8s::node_info::{Condition, RawNode};

fn node(name: &str, pod_cidrs: &[&str], internal_ips: &[&str]) -> NodeInfo {
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    NodeInfo::read(RawNode {
        name: name.to_owned(),
        created: 100,
        pod_cidrs: texts(pod_cidrs),
        internal_ips: texts(internal_ips),
        condition: Condition { ready: true, ..Condition::default() },
    })
}

fn index(nodes: &[NodeInfo]) -> Index {
    let mut index = Index::new("a");
    index.apply(NodeEvent::ListBegins);
    nodes.iter().for_each(|node| {
        index.apply(NodeEvent::Listed(node.clone()));
    });
    assert!(index.apply(NodeEvent::ListEnds).completed);
    index
}

fn three() -> Index {
    index(&[
        node("a", &["10.244.1.0/24"], &["172.18.0.2"]),
        node("b", &["10.244.2.0/24"], &["172.18.0.3"]),
        node("c", &["10.244.3.0/24"], &["172.18.0.4"]),
    ])
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn told(index: &Index, name: &str) -> Vec<String> {
    index.assess(name).problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_heartbeat_changes_nothing() {
    let mut index = three();
    let change = index.apply(NodeEvent::Changed(node("b", &["10.244.2.0/24"], &["172.18.0.3"])));
    assert!(change.is_nothing());
    let mut not_ready = node("b", &["10.244.2.0/24"], &["172.18.0.3"]);
    not_ready.condition.ready = false;
    assert!(index.apply(NodeEvent::Changed(not_ready)).is_nothing(), "a peer's condition is no route");
}

#[test]
fn what_a_new_list_does_not_name_is_gone_and_only_that_changes() {
    let mut index = three();
    index.apply(NodeEvent::ListBegins);
    for name in ["a", "c"] {
        let info = index.claims.node(name).cloned().unwrap();
        assert!(index.apply(NodeEvent::Listed(info)).is_nothing());
    }
    assert!(index.assess("b").peer.is_some(), "not before the list's end");
    let change = index.apply(NodeEvent::ListEnds);
    assert_eq!(change, Change { peers: names(["b"]), ..Change::default() });
    assert_eq!(index.assess("b"), Assessment::default());
}

#[test]
fn a_changed_address_or_cidr_concerns_that_node_alone() {
    let mut index = three();
    let change = index.apply(NodeEvent::Changed(node("b", &["10.244.2.0/24"], &["172.18.0.9"])));
    assert_eq!(change.peers, names(["b"]));
    let change =
        index.apply(NodeEvent::Changed(node("b", &["10.244.7.0/24", "fd00:7::/64"], &["172.18.0.9"])));
    assert_eq!(change.peers, names(["b"]));
    let standing = index.assess("b");
    assert_eq!(standing.peer.unwrap().pod_cidrs, ["10.244.7.0/24".parse().unwrap()]);
    assert_eq!(standing.problems, [Problem::NoAddress("fd00:7::/64".parse().unwrap())]);
}

#[test]
fn of_two_that_claim_a_cidr_the_older_keeps_it_until_it_goes() {
    let mut index = three();
    let mut late = node("a-late", &["10.244.3.0/24"], &["172.18.0.7"]);
    late.created = 200;
    assert_eq!(index.apply(NodeEvent::Changed(late)).peers, names(["a-late"]));
    assert!(index.assess("a-late").peer.is_none());
    assert!(told(&index, "a-late")[0].contains("podCIDR 10.244.3.0/24 is node c's as well"));
    assert!(index.assess("c").peer.is_some());
    assert_eq!(index.apply(NodeEvent::Gone("c".into())).peers, names(["a-late", "c"]));
    assert!(index.assess("a-late").peer.is_some());
}

#[test]
fn an_address_is_kept_by_the_node_that_lives() {
    let mut index = three();
    let mut heir = node("heir", &["10.244.9.0/24"], &["172.18.0.4"]);
    heir.created = 200;
    index.apply(NodeEvent::Changed(heir));
    assert!(index.assess("heir").peer.is_none());
    // Nobody deleted the Node of c, whose machine is gone.
    let mut dead = node("c", &["10.244.3.0/24"], &["172.18.0.4"]);
    dead.condition.ready = false;
    assert_eq!(index.apply(NodeEvent::Changed(dead)).peers, names(["c", "heir"]));
    assert!(index.assess("heir").peer.is_some());
    assert!(index.assess("c").peer.is_none());
    assert_eq!(
        told(&index, "c"),
        ["address 172.18.0.4 is node heir's as well, which keeps it; delete a Node that is gone"]
    );
}

#[test]
fn two_nodes_that_swap_addresses_end_with_routes_to_both() {
    let mut index = three();
    index.apply(NodeEvent::Changed(node("b", &["10.244.2.0/24"], &["172.18.0.4"])));
    index.apply(NodeEvent::Changed(node("c", &["10.244.3.0/24"], &["172.18.0.3"])));
    for (name, address) in [("b", "172.18.0.4"), ("c", "172.18.0.3")] {
        let standing = index.assess(name);
        assert_eq!(standing.problems, []);
        assert_eq!(standing.peer.unwrap().node_ips, [address.parse::<IpAddr>().unwrap()]);
    }
}

#[test]
fn what_lies_in_the_own_subnet_is_never_routed_away() {
    let mut index = three();
    let mut old = node("thief", &["10.244.1.128/25"], &["172.18.0.8"]);
    old.created = 1;
    index.apply(NodeEvent::Changed(old));
    assert!(index.assess("thief").peer.is_none());
    assert_eq!(
        told(&index, "thief"),
        [
            "podCIDR 10.244.1.128/25 overlaps 10.244.1.0/24, which is this node's own; delete one of the two Nodes"
        ]
    );
    index.apply(NodeEvent::Gone("thief".into()));
    // An older node with our very podCIDR: it would keep it, and our pods cannot be reached. That is told of us.
    let mut twin = node("twin", &["10.244.1.0/24"], &["172.18.0.9"]);
    twin.created = 1;
    index.apply(NodeEvent::Changed(twin));
    assert!(index.assess("twin").peer.is_none());
    assert!(told(&index, "a")[0].contains("is node twin's as well"));
}

#[test]
fn a_node_without_cidr_or_address_waits_and_is_told() {
    let mut index = three();
    index.apply(NodeEvent::Changed(node("d", &[], &["172.18.0.5"])));
    index.apply(NodeEvent::Changed(node("e", &["10.244.5.0/24"], &[])));
    assert!(told(&index, "d")[0].starts_with("has no podCIDR"));
    assert!(told(&index, "e")[0].starts_with("has no InternalIP of IPv4"));
    let change = index.apply(NodeEvent::Changed(node("d", &["10.244.4.0/24"], &["172.18.0.5"])));
    assert_eq!(change.peers, names(["d"]));
    assert_eq!(index.assess("d").problems, []);
}

#[test]
fn changes_of_this_node_are_told_apart() {
    let mut index = three();
    let mut info = node("a", &["10.244.1.0/24"], &["172.18.0.2"]);
    info.condition.awaits_network = true;
    let change = index.apply(NodeEvent::Changed(info));
    assert_eq!(change, Change { condition: true, ..Change::default() });
    let change = index.apply(NodeEvent::Changed(node("a", &["10.244.1.0/24"], &["172.18.0.5"])));
    assert!(change.own && change.peers.is_empty());
}

#[test]
fn one_change_among_five_thousand_looks_at_one_node() {
    let nodes: Vec<NodeInfo> = (0..5_000u32)
        .map(|n| {
            let (high, low) = (n / 250, n % 250 + 1);
            node(&format!("n{n}"), &[&format!("10.{high}.{low}.0/24")], &[&format!("172.16.{high}.{low}")])
        })
        .collect();
    let mut index = index(&nodes);
    let change = index.apply(NodeEvent::Changed(node("n77", &["10.200.0.0/24"], &["172.16.0.78"])));
    assert_eq!(change.peers, names(["n77"]));
}
