//! What the kernel tells by itself, when `ip`, `nft` and `sysctl` change things.

use std::process::Command;
use std::time::Duration;

use ferrule::linux::change::Change;
use ferrule::linux::monitor::{Event, Monitor, NetconfOf};
use ferrule::linux::netlink::{Netlink, Socket};
use ferrule::linux::netns::Netns;
use ferrule::linux::route::{AddMode, Route};

use kit::block_on;
use kit::ip;
use kit::netns::Namespace;
use kit::nft;

/// How long to wait for what must come: other tests may have the machine.
const PATIENT: Duration = Duration::from_secs(20);

/// A namespace with an uplink, and somebody who listens.
struct Watched {
    namespace: Namespace,
    monitor: Monitor,
}

impl Watched {
    fn new() -> Self {
        let namespace = Namespace::with_uplink("node");
        let monitor = Monitor::open_in(&Netns::open(namespace.path()).unwrap()).unwrap();
        Self { namespace, monitor }
    }

    /// Waits for an event that `is` recognises; panics with what came instead.
    async fn expect(&mut self, what: &str, is: impl Fn(&Event) -> bool) -> Event {
        let mut others = Vec::new();
        let search = async {
            loop {
                match self.monitor.next().await.unwrap() {
                    event if is(&event) => return event,
                    other => others.push(other),
                }
            }
        };
        let found = tokio::time::timeout(PATIENT, search).await;
        found.unwrap_or_else(|_| panic!("{what} was not told of; but {others:?}"))
    }

    fn nft(&self, script: &str) {
        nft::load(&self.namespace, script);
    }
}

fn is_route(event: &Event, to: &str, is_removed: bool, by: u8) -> bool {
    matches!(event, Event::Route { removed, protocol, destination, .. }
        if *destination == to.parse().unwrap() && *removed == is_removed && *protocol == by)
}

#[test]
fn route_events_have_protocol_table_and_metric() {
    block_on(async {
        let mut watched = Watched::new();
        for (to, via) in [("10.244.2.0/24", "192.168.9.2"), ("fd00:2::/64", "fd09::2")] {
            let words = format!("{to} via {via} proto 102 metric 77 table 400");
            watched.namespace.ip(&format!("route add {words}"));
            let event = watched.expect(&words, |event| is_route(event, to, false, 102)).await;
            let Event::Route { table, metric, port, .. } = event else { unreachable!() };
            assert_eq!((table, metric), (400, Some(77)));
            assert_ne!(port, 0);
            watched.namespace.ip(&format!("route delete {words}"));
            watched.expect(&words, |event| is_route(event, to, true, 102)).await;
        }
    });
}

/// An own change can be told from another's.
#[test]
fn the_port_is_that_of_the_socket_that_asked() {
    block_on(async {
        let mut watched = Watched::new();
        let netns = Netns::open(watched.namespace.path()).unwrap();
        let mut socket = netns.run(Socket::open_here).unwrap().unwrap();
        let own = socket.bind().unwrap();
        assert_eq!(socket.bind().unwrap(), own);
        let netlink = Netlink::start(socket);
        let device = Some(ip::index(&watched.namespace, "up0"));
        let destination = "10.244.7.0/24".parse().unwrap();
        let route = Route { device, ..Route::to(destination, 102) };
        let add = Change::AddRoute { route, mode: AddMode::Exclusive };
        assert_eq!(netlink.submit([add]).await, [Ok(())]);
        let event = watched.expect("the route", |event| is_route(event, "10.244.7.0/24", false, 102)).await;
        let Event::Route { port, .. } = event else { unreachable!() };
        assert_eq!(port, own);
    });
}

/// IPv4 routes that go with their link go without a word of their own.
#[test]
fn a_link_that_goes_down_is_told_changes_its_mtu_or_is_removed() {
    block_on(async {
        let mut watched = Watched::new();
        watched.namespace.ip("route add 10.244.2.0/24 via 192.168.9.2 proto 102");
        watched.expect("route", |event| is_route(event, "10.244.2.0/24", false, 102)).await;
        let index = ip::index(&watched.namespace, "up0");
        watched.namespace.ip("link set up0 mtu 1400");
        let is_mtu = |event: &Event| matches!(event, Event::Link { name, mtu: 1400, .. } if name == "up0");
        watched.expect("mtu", is_mtu).await;
        watched.namespace.ip("link set up0 down");
        let is_down = |event: &Event| matches!(event, Event::Link { index: it, up: false, removed: false, .. } if *it == index);
        watched.expect("down", is_down).await;
        assert!(ip::routes(&watched.namespace, "-4 proto 102").is_empty());
        watched.namespace.ip("link delete up0");
        let is_gone =
            |event: &Event| matches!(event, Event::Link { name, removed: true, .. } if name == "up0");
        watched.expect("removal", is_gone).await;
    });
}

/// A port that leaves a bridge is told by the same message as a link that is removed.
#[test]
fn a_port_that_leaves_its_bridge_is_no_link_that_is_removed() {
    block_on(async {
        let mut watched = Watched::new();
        watched
            .namespace
            .ip_batch("link add br0 type bridge\nlink set up1 master br0\nlink set up1 nomaster\n");
        watched.namespace.ip("link add last type bridge");
        let is_end = |event: &Event| {
            assert!(!matches!(event, Event::Link { removed: true, .. }), "{event:?}");
            matches!(event, Event::Link { name, .. } if name == "last")
        };
        watched.expect("the last link", is_end).await;
    });
}

#[test]
fn addresses_neighbours_and_rules_are_told() {
    block_on(async {
        let mut watched = Watched::new();
        let index = ip::index(&watched.namespace, "up0");
        for address in ["192.168.9.7/24", "fd09::7/64"] {
            let ip: std::net::IpAddr = address.split('/').next().unwrap().parse().unwrap();
            for (verb, is_removed) in [("add", false), ("delete", true)] {
                watched.namespace.ip(&format!("address {verb} {address} dev up0"));
                let is_it = |event: &Event| {
                    matches!(event, Event::Address { removed, index: at, address, .. }
                    if *removed == is_removed && *at == index && *address == ip)
                };
                watched.expect(address, is_it).await;
            }
        }
        watched.namespace.ip("neighbour add 192.168.9.3 lladdr 02:00:00:00:00:03 dev up0 nud permanent");
        watched.namespace.ip("neighbour delete 192.168.9.3 dev up0");
        let who = Some("192.168.9.3".parse().unwrap());
        let is_gone = |event: &Event| {
            matches!(event, Event::Neighbour { removed: true, index: at, address }
            if *at == index && *address == who)
        };
        watched.expect("neighbour", is_gone).await;
        for (family, is_v4, from) in [("-4", true, "10.244.1.0/24"), ("-6", false, "fd00:1::/64")] {
            for (verb, is_removed) in [("add", false), ("delete", true)] {
                watched
                    .namespace
                    .ip(&format!("{family} rule {verb} from {from} lookup 400 priority 321 protocol 102"));
                let told = Event::Rule { removed: is_removed, ipv4: is_v4, protocol: 102, priority: 321 };
                watched.expect(from, |event| *event == told).await;
            }
        }
    });
}

/// A forwarding entry of VXLAN, which the neighbour of the same link hangs on.
#[test]
fn forwarding_entries_are_told_with_their_other_end() {
    block_on(async {
        let mut watched = Watched::new();
        watched.namespace.ip("link add vx0 type vxlan id 7 dstport 8472 local 192.168.9.1 nolearning");
        let index = ip::index(&watched.namespace, "vx0");
        let bridge = |verb: &str| {
            let words = ["-n", watched.namespace.name(), "fdb", verb, "02:00:00:00:00:09", "dev", "vx0"];
            let run =
                Command::new("bridge").args(words).args(["dst", "192.168.9.9", "self", "permanent"]).status();
            assert!(run.unwrap().success(), "bridge fdb {verb}");
        };
        bridge("add");
        bridge("delete");
        for is_removed in [false, true] {
            let address = Some("192.168.9.9".parse().unwrap());
            let told = Event::Neighbour { removed: is_removed, index, address };
            watched.expect("forwarding entry", |event| *event == told).await;
        }
    });
}

#[test]
fn forwarding_that_is_switched_off_and_rp_filter_are_told() {
    block_on(async {
        let mut watched = Watched::new();
        let index = ip::index(&watched.namespace, "up0");
        for (path, is_v4) in [("net/ipv4/ip_forward", true), ("net/ipv6/conf/all/forwarding", false)] {
            let now = watched.namespace.sysctl(path) == "1";
            for value in [!now, now] {
                watched.namespace.set_sysctl(path, if value { "1" } else { "0" });
                let is_it = |event: &Event| {
                    matches!(event, Event::Netconf { ipv4, of: NetconfOf::All, forwarding: Some(it), .. }
                    if *ipv4 == is_v4 && *it == value)
                };
                watched.expect(path, is_it).await;
            }
        }
        let now = watched.namespace.sysctl("net/ipv4/conf/up0/rp_filter");
        let other = if now == "1" { 2 } else { 1 };
        watched.namespace.set_sysctl("net/ipv4/conf/up0/rp_filter", &other.to_string());
        let is_it = |event: &Event| {
            matches!(event, Event::Netconf { ipv4: true, of, rp_filter: Some(it), .. }
            if *of == NetconfOf::Link(index) && *it == other)
        };
        watched.expect("rp_filter", is_it).await;
    });
}

#[test]
fn what_happens_to_a_table_is_told_with_its_name() {
    block_on(async {
        let mut watched = Watched::new();
        let steps = [
            ("add table inet ferrule", false),
            ("add set inet ferrule s { type ipv4_addr; }", false),
            ("add element inet ferrule s { 10.0.0.1 }", false),
            ("delete element inet ferrule s { 10.0.0.1 }", true),
            ("flush ruleset", true),
        ];
        for (script, is_removed) in steps {
            watched.nft(script);
            let is_it = |event: &Event| {
                matches!(event, Event::Nftables { family: 1, table: Some(name), removed, port, .. }
                if name == "ferrule" && *removed == is_removed && *port != 0)
            };
            watched.expect(script, is_it).await;
        }
    });
}

/// The kernel drops what does not fit, and says so once.
#[test]
fn a_flood_that_nobody_reads_is_reported_as_missed() {
    block_on(async {
        let mut watched = Watched::new();
        // Each takes some 800 bytes of a buffer of 16 MiB.
        let flood: String = (0..40_000_u32)
            .map(|n| format!("route add 10.{}.{}.{}/32 dev up0\n", 1 + n / 65536, n / 256 % 256, n % 256))
            .collect();
        watched.namespace.ip_batch(&flood);
        watched.expect("the loss", |event| *event == Event::Missed).await;
        watched.namespace.ip("route add 10.244.9.0/24 dev up0 proto 102");
        watched.expect("what came after", |event| is_route(event, "10.244.9.0/24", false, 102)).await;
    });
}

/// The agent waits for the monitor and for other things at once, and drops whichever wait is not the first.
#[test]
fn nothing_is_lost_by_a_wait_that_is_given_up() {
    block_on(async {
        let mut watched = Watched::new();
        let batch: String =
            (0..200).map(|n| format!("route add 10.9.{n}.0/24 dev up0 proto 102\n")).collect();
        watched.namespace.ip_batch(&batch);
        let mut heard = 0;
        while heard < 200 {
            let given_up = tokio::time::timeout(Duration::ZERO, watched.monitor.next()).await;
            let event = match given_up {
                Ok(event) => event.unwrap(),
                Err(_) => {
                    let next = tokio::time::timeout(PATIENT, watched.monitor.next()).await;
                    next.unwrap_or_else(|_| panic!("{heard} of 200 were told")).unwrap()
                }
            };
            if matches!(event, Event::Route { protocol: 102, .. }) {
                heard += 1;
            }
        }
    });
}
