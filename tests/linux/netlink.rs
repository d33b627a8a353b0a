//! The socket itself: order, large batches, several dumps at once, what is left when it is dropped.

use ferrule::linux::change::Change;
use ferrule::linux::link::{LinkRef, LinkSettings};
use ferrule::linux::netlink::{Netlink, Socket};
use ferrule::linux::netns::Netns;
use ferrule::linux::route::{AddMode, Family, Route, RouteFilter};
use ferrule::linux::sysctl;

use kit::netns::Namespace;
use kit::{block_on, ip};

const ALL_V4: RouteFilter = RouteFilter { family: Family::V4, protocol: None, device: None, table: None };

fn open(namespace: &Namespace) -> Netlink {
    Netlink::open_in(&Netns::open(namespace.path()).unwrap()).unwrap()
}

fn alias(text: String) -> Change {
    let settings = LinkSettings { alias: Some(text), ..LinkSettings::default() };
    Change::SetLink { link: LinkRef::Name("lo".to_owned()), settings }
}

#[test]
fn changes_take_effect_in_their_order() {
    let namespace = Namespace::new("order");
    block_on(async {
        let netlink = open(&namespace);
        let changes = (0..1_000).map(|n| alias(format!("first {n}")));
        assert_eq!(netlink.submit(changes).await, vec![Ok(()); 1_000]);
        let seen = netlink.link(LinkRef::Index(1)).await.unwrap().unwrap();
        assert_eq!(seen.alias.as_deref(), Some("first 999"));
        assert_eq!(netlink.submit([alias("second".to_owned())]).await, [Ok(())]);
    });
    assert_eq!(ip::link(&namespace, "lo").unwrap()["ifalias"], "second");
}

#[test]
fn no_verdict_of_thousands_is_lost_and_each_stands_in_its_place() {
    let namespace = Namespace::new("batch");
    namespace.ip("link set lo up");
    let route = |n: u32, device| Route {
        device: Some(device),
        ..Route::to(format!("10.{}.{}.0/24", n / 250, n % 250).parse().unwrap(), 77)
    };
    // Every third names a link that does not exist; the kernel says so at length.
    let changes = (0..5_000).map(|n| Change::AddRoute {
        route: route(n, if n % 3 == 0 { 4711 } else { 1 }),
        mode: AddMode::Exclusive,
    });
    block_on(async {
        let netlink = open(&namespace);
        let verdicts = netlink.submit(changes).await;
        assert_eq!(verdicts.len(), 5_000);
        for (n, verdict) in verdicts.iter().enumerate() {
            assert_eq!(verdict.is_err(), n % 3 == 0, "{n}: {verdict:?}");
        }
        let refusal = verdicts[3].as_ref().unwrap_err();
        assert!(refusal.operation.starts_with("add route 10.0.3.0/24 dev 4711"), "{refusal}");
        assert!(refusal.is_not_found(), "{refusal}");
    });
    assert_eq!(ip::routes(&namespace, "-4 proto 77").len(), 3_333);
}

#[test]
fn a_long_list_is_read_whole_and_the_next_one_after_it() {
    let namespace = Namespace::new("dumps");
    namespace.ip("link set lo up");
    let routes: String =
        (0..2_000).map(|n| format!("route add 10.0.{}.{}/32 dev lo\n", n / 250, n % 250)).collect();
    namespace.ip_batch(&routes);
    block_on(async {
        let netlink = open(&namespace);
        assert!(netlink.routes(ALL_V4).await.unwrap().len() >= 2_000);
        assert_eq!(netlink.links().await.unwrap().len(), 1);
        assert_eq!(netlink.addresses(None).await.unwrap().len(), 2, "127.0.0.1 and ::1");
    });
}

#[test]
fn threads_that_share_a_socket_get_their_own_answers() {
    let namespace = Namespace::new("shared");
    namespace.ip("link set lo up");
    namespace.ip_batch(&(0..200).map(|n| format!("route add 10.0.0.{n}/32 dev lo\n")).collect::<String>());
    let netlink = block_on(async { open(&namespace) });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                block_on(async {
                    for _ in 0..50 {
                        assert!(netlink.routes(ALL_V4).await.unwrap().len() >= 200);
                        let link = netlink.link(LinkRef::Name("lo".to_owned())).await.unwrap().unwrap();
                        assert_eq!(link.name, "lo");
                    }
                });
            });
        }
    });
}

#[test]
fn one_visit_opens_the_socket_and_writes_the_sysctls() {
    let namespace = Namespace::new("visit");
    let netns = Netns::open(namespace.path()).unwrap();
    block_on(async {
        let visit = || {
            sysctl::write(&["net", "ipv4", "ip_forward"], "0").unwrap();
            Socket::open_here()
        };
        let netlink = Netlink::start(netns.run(visit).unwrap().unwrap());
        assert_eq!(netlink.submit([alias("inside".to_owned())]).await, [Ok(())]);
    });
    assert_eq!(ip::link(&namespace, "lo").unwrap()["ifalias"], "inside");
    assert_eq!(namespace.sysctl("net/ipv4/ip_forward"), "0");
}
