//! Routes.

use std::net::IpAddr;

use ferrule::linux::change::Change;
use ferrule::linux::netlink::Netlink;
use ferrule::linux::netns::Netns;
use ferrule::linux::route::{AddMode, Family, Route, RouteFilter, RouteKind};
use serde_json::{Value, json};

use kit::netns::Namespace;
use kit::{block_on, ip};

/// A route protocol number that nobody has.
const OURS: u8 = 77;
/// Another's.
const FOREIGN: u8 = 78;

const OUR_V4: RouteFilter =
    RouteFilter { family: Family::V4, protocol: Some(OURS), device: None, table: None };
const OUR_V6: RouteFilter = RouteFilter { family: Family::V6, ..OUR_V4 };

/// A node with an uplink that is up, 192.168.9.1/24 and fd09::1/64.
struct Node {
    namespace: Namespace,
    uplink: u32,
}

impl Node {
    fn new() -> Self {
        let namespace = Namespace::with_uplink("node");
        let uplink = ip::index(&namespace, "up0");
        Self { namespace, uplink }
    }

    fn netlink(&self) -> Netlink {
        Netlink::open_in(&Netns::open(self.namespace.path()).unwrap()).unwrap()
    }

    fn route(&self, destination: &str) -> Route {
        Route { device: Some(self.uplink), ..Route::to(destination.parse().unwrap(), OURS) }
    }

    fn via(&self, destination: &str, gateway: &str) -> Route {
        Route { gateway: Some(address(gateway)), ..self.route(destination) }
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn add(route: &Route) -> Change {
    Change::AddRoute { route: route.clone(), mode: AddMode::Exclusive }
}

fn replace(route: &Route) -> Change {
    Change::AddRoute { route: route.clone(), mode: AddMode::Replace }
}

/// The routes of protocol 77, each as "type destination" and the named fields.
fn listed(node: &Node, family: &str, fields: &[&str]) -> Vec<Vec<Value>> {
    let routes = ip::routes(&node.namespace, &format!("{family} table all proto {OURS}"));
    routes.iter().map(|route| fields.iter().map(|field| route[field].clone()).collect()).collect()
}

#[test]
fn every_kind_of_route_reads_back_as_it_was_added() {
    let node = Node::new();
    let routes = [
        // to a pod, as the host has it
        Route { source: Some(address("192.168.9.1")), ..node.route("10.244.1.7/32") },
        // to a peer's pods
        node.via("10.244.2.0/24", "192.168.9.2"),
        // the pod's default, through a gateway that no route leads to
        Route { onlink: true, ..node.via("0.0.0.0/0", "169.254.1.1") },
        // the catch-all of the node's own subnet
        Route { kind: RouteKind::Unreachable, device: None, ..node.route("10.244.1.0/24") },
        // all the rest
        Route { metric: Some(50), mtu: Some(1380), advmss: Some(1340), ..node.route("10.9.0.0/16") },
        Route { table: Some(200), ..node.route("10.10.0.0/16") },
        Route { table: Some(70_000), ..node.route("10.11.0.0/16") },
        Route { scope: Some(0), ..node.route("10.12.0.0/16") },
        // IPv4 by an IPv6 next hop
        node.via("10.13.0.0/16", "fd09::2"),
    ];
    let routes6 = [
        Route { source: Some(address("fd09::1")), ..node.route("fd00:10:244:1::7/128") },
        node.via("fd00:10:244:2::/64", "fd09::2"),
        node.via("::/0", "fe80::1"),
        Route { kind: RouteKind::Unreachable, device: None, ..node.route("fd00:10:244:1::/64") },
        Route { metric: Some(50), mtu: Some(1380), advmss: Some(1340), ..node.route("fd01::/64") },
        Route { table: Some(200), ..node.route("fd02::/64") },
    ];
    block_on(async {
        let netlink = node.netlink();
        let verdicts = netlink.submit(routes.iter().chain(&routes6).map(add)).await;
        assert_eq!(verdicts, vec![Ok(()); routes.len() + routes6.len()]);
        for (filter, added) in [(OUR_V4, routes.as_slice()), (OUR_V6, routes6.as_slice())] {
            let found = netlink.routes(filter).await.unwrap();
            for route in added {
                assert!(found.contains(route), "{route:?} is not among {found:#?}");
            }
            assert_eq!(found.len(), added.len());
        }
        assert!(netlink.submit([add(&routes[0])]).await[0].as_ref().unwrap_err().is_exists());
    });
    let mut found = listed(&node, "-4", &["type", "dst", "gateway", "prefsrc", "metric", "flags"]);
    found.retain(|fields| fields[1] == "10.244.1.7" || fields[1] == "default" || fields[0] == "unreachable");
    assert_eq!(
        found,
        [
            json!(["unicast", "default", "169.254.1.1", null, null, ["onlink"]]),
            json!(["unreachable", "10.244.1.0/24", null, null, null, []]),
            json!(["unicast", "10.244.1.7", null, "192.168.9.1", null, []]),
        ]
        .map(|row| row.as_array().unwrap().clone())
    );
    let metrics = ip::routes(&node.namespace, "-4 10.9.0.0/16").remove(0)["metrics"].clone();
    assert_eq!(metrics, json!([{ "mtu": 1380, "advmss": 1340 }]));
    assert_eq!(listed(&node, "-6", &["dst"]).len(), routes6.len());

    block_on(async {
        let netlink = node.netlink();
        let delete = routes.iter().chain(&routes6).cloned().map(Change::DeleteRoute);
        assert_eq!(netlink.submit(delete).await, vec![Ok(()); routes.len() + routes6.len()]);
        let again = netlink.submit([Change::DeleteRoute(routes[0].clone())]).await.remove(0);
        assert!(again.unwrap_err().is_not_found());
    });
    assert!(listed(&node, "-4", &["dst"]).is_empty() && listed(&node, "-6", &["dst"]).is_empty());
}

#[test]
fn a_route_of_another_protocol_is_not_deleted_for_ours() {
    let node = Node::new();
    node.namespace.ip(&format!("route add 10.244.2.0/24 via 192.168.9.2 proto {FOREIGN}"));
    node.namespace.ip(&format!("route add fd00:10:244:2::/64 via fd09::2 proto {FOREIGN}"));
    let ours = [node.via("10.244.2.0/24", "192.168.9.2"), node.via("fd00:10:244:2::/64", "fd09::2")];
    block_on(async {
        for verdict in node.netlink().submit(ours.map(Change::DeleteRoute)).await {
            assert!(verdict.unwrap_err().is_not_found());
        }
    });
    assert_eq!(ip::routes(&node.namespace, &format!("-4 proto {FOREIGN}")).len(), 1);
    assert_eq!(ip::routes(&node.namespace, &format!("-6 proto {FOREIGN}")).len(), 1);
}

#[test]
fn replacing_changes_the_next_hop_or_adds_the_route() {
    let node = Node::new();
    block_on(async {
        let netlink = node.netlink();
        for gateway in ["192.168.9.2", "192.168.9.3", "192.168.9.3"] {
            let verdicts = netlink.submit([replace(&node.via("10.244.2.0/24", gateway))]).await;
            assert_eq!(verdicts, [Ok(())], "{gateway}");
        }
    });
    assert_eq!(listed(&node, "-4", &["dst", "gateway"]), [["10.244.2.0/24", "192.168.9.3"]]);
}

#[test]
fn a_next_hop_off_the_link_is_refused() {
    let node = Node::new();
    block_on(async {
        let far = node.via("10.244.2.0/24", "172.16.0.1");
        let refusal = node.netlink().submit([add(&far)]).await.remove(0).unwrap_err();
        let words = refusal.to_string();
        let begin = format!("add route 10.244.2.0/24 via 172.16.0.1 dev {} proto 77: ", node.uplink);
        assert!(words.starts_with(&begin), "{words}");
        assert!(words.ends_with(": Nexthop has invalid gateway"), "{words}");
    });
}

#[test]
fn where_a_packet_would_go_is_told_as_ip_route_get_tells_it() {
    let node = Node::new();
    node.namespace.ip("route add 10.244.2.0/24 via 192.168.9.2 mtu 1380");
    node.namespace.ip("route add unreachable 10.244.1.0/24");
    node.namespace.ip("route add unreachable fd00:10:244:1::/64");
    block_on(async {
        let netlink = node.netlink();
        let to = async |text| netlink.route_to(address(text)).await.unwrap();
        let remote = to("10.244.2.9").await.unwrap();
        assert_eq!((remote.device, remote.mtu, remote.local), (node.uplink, Some(1380), false));
        assert_eq!(remote.gateway, Some(address("192.168.9.2")));
        assert_eq!(remote.source, Some(address("192.168.9.1")));
        let neighbour = to("fd09::2").await.unwrap();
        assert_eq!((neighbour.device, neighbour.gateway), (node.uplink, None));
        assert_eq!(neighbour.source, Some(address("fd09::1")));
        assert!(to("192.168.9.1").await.unwrap().local);
        for nowhere in ["8.8.8.8", "2001:db8::1", "10.244.1.3", "fd00:10:244:1::3"] {
            assert_eq!(to(nowhere).await, None, "{nowhere}");
        }
    });
}

#[test]
fn a_route_is_found_by_its_destination_without_listing_all() {
    let node = Node::new();
    let ours = [node.via("10.244.2.0/24", "192.168.9.2"), node.via("fd00:10:244:2::/64", "fd09::2")];
    block_on(async {
        let netlink = node.netlink();
        let missing = ours.clone().map(|route| netlink.find_route(route.destination));
        for found in missing {
            assert_eq!(found.await, Ok(None));
        }
        // Asked for before the answers are awaited: the look-ups see what was submitted before them.
        let added = netlink.submit(ours.iter().map(add));
        let found = ours.clone().map(|route| netlink.find_route(route.destination));
        assert_eq!(added.await, [Ok(()), Ok(())]);
        for (found, route) in found.into_iter().zip(&ours) {
            assert_eq!(found.await.unwrap().as_ref(), Some(route));
        }
        // The longest match, which the caller tells from what it looked for.
        let within = netlink.find_route("10.244.2.128/25".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(within.destination, ours[0].destination);
    });
}

#[test]
fn among_five_thousand_routes_only_ours_are_listed() {
    let node = Node::new();
    let mut foreign = String::new();
    for n in 0..5_000 {
        let (b, c) = (n / 250, n % 250);
        foreign += &format!("route add 10.{b}.{c}.0/24 via 192.168.9.2 proto {FOREIGN}\n");
    }
    node.namespace.ip_batch(&foreign);
    let ours = ["10.100.1.0/24", "10.0.1.5/32", "10.101.0.0/16"].map(|text| node.via(text, "192.168.9.3"));
    block_on(async {
        let netlink = node.netlink();
        assert_eq!(netlink.submit(ours.iter().map(add)).await, [Ok(()), Ok(()), Ok(())]);
        let found = netlink.routes(OUR_V4).await.unwrap();
        assert_eq!(found.len(), 3);
        assert!(ours.iter().all(|route| found.contains(route)));
        let of_foreign = RouteFilter { protocol: Some(FOREIGN), ..OUR_V4 };
        assert_eq!(netlink.routes(of_foreign).await.unwrap().len(), 5_000);
        for filter in [
            RouteFilter { device: Some(4711), ..OUR_V4 },
            RouteFilter { table: Some(4711), ..OUR_V4 },
            RouteFilter { table: Some(4711), ..OUR_V6 },
            RouteFilter { device: Some(1), ..of_foreign },
        ] {
            assert_eq!(netlink.routes(filter).await.unwrap(), [], "{filter:?}");
        }
        let by_uplink = RouteFilter { device: Some(node.uplink), table: Some(254), ..OUR_V4 };
        assert_eq!(netlink.routes(by_uplink).await.unwrap().len(), 3);
    });
}

#[test]
fn that_a_packet_would_be_turned_away_is_an_answer() {
    let node = Node::new();
    for kind in ["blackhole", "unreachable", "prohibit", "throw"] {
        node.namespace.ip(&format!("route replace {kind} 203.0.113.0/24"));
        node.namespace.ip(&format!("-6 route add {kind} 2001:db8:7::/48"));
        block_on(async {
            let netlink = node.netlink();
            for away in ["203.0.113.9", "2001:db8:7::9"] {
                assert_eq!(netlink.route_to(address(away)).await, Ok(None), "{kind} {away}");
                assert_eq!(netlink.find_route(address(away).into()).await, Ok(None), "{kind} {away}");
            }
        });
        node.namespace.ip("-6 route delete 2001:db8:7::/48");
    }
    for kind in ["blackhole", "unreachable", "prohibit"] {
        node.namespace.ip(&format!("rule add pref 9 to 203.0.113.0/24 {kind}"));
        node.namespace.ip(&format!("-6 rule add pref 9 to 2001:db8:7::/48 {kind}"));
        block_on(async {
            let netlink = node.netlink();
            for away in ["203.0.113.9", "2001:db8:7::9"] {
                assert_eq!(netlink.route_to(address(away)).await, Ok(None), "{kind} {away}");
            }
        });
        node.namespace.ip("rule delete pref 9");
        node.namespace.ip("-6 rule delete pref 9");
    }
}

#[test]
fn a_way_out_is_told_for_each_of_its_next_hops() {
    let node = Node::new();
    node.namespace.ip("route add blackhole 10.0.0.0/8");
    node.namespace.ip("route add default proto 77 nexthop via 192.168.9.2 nexthop via 192.168.9.3");
    node.namespace.ip("-6 route add default proto 77 nexthop via fd09::2 nexthop via fd09::3");
    block_on(async {
        let netlink = node.netlink();
        for (family, default, hops) in [
            (Family::V4, "0.0.0.0/0", ["192.168.9.2", "192.168.9.3"]),
            (Family::V6, "::/0", ["fd09::2", "fd09::3"]),
        ] {
            let mut found = netlink.ways_out(family).await.unwrap();
            found.retain(|route| route.protocol == OURS);
            assert_eq!(found, hops.map(|hop| node.via(default, hop)));
        }
        let kinds = netlink.ways_out(Family::V4).await.unwrap();
        assert!(kinds.iter().all(|route| route.kind == RouteKind::Unicast), "{kinds:?}");
    });
}
