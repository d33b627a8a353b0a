//! Policies that change under load: nothing that is forbidden passes, nothing that is allowed is lost.

use std::io::Read;
use std::net::SocketAddr;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use ferrule::policy::plan::PortRules;

use super::scene::{Planning, Scene, TCP, anyone, peers, port, range};
use kit::netns::{Namespace, inside};
use kit::traffic::PATIENT;

const SWITCHES: usize = 200;

/// The pod `b` gets port 80 from `a` by one of two policies, and nothing from `c`.
fn plan(first: bool) -> Planning {
    let (set, chain, other) = if first { ("peers-1", "pi-1", 81) } else { ("peers-2", "pi-2", 82) };
    let ports = [port(TCP, 80, &[peers(set)]), port(TCP, other, &[anyone()])];
    with_ports(first, set, chain, &ports)
}

/// The same by ranges of ports: the maps are of another kind.
fn plan_of_ranges(first: bool) -> Planning {
    let (set, chain, from) = if first { ("peers-1", "pi-1", 70) } else { ("peers-2", "pi-2", 80) };
    let ports = [range(TCP, from, from + 15, &[peers(set)]), range(TCP, 100 + from, 120 + from, &[anyone()])];
    with_ports(first, set, chain, &ports)
}

fn with_ports(first: bool, set: &str, chain: &str, ports: &[PortRules]) -> Planning {
    Planning::default()
        .pods(set, &["10.244.1.10", "fd00:1::10", "10.244.2.5"])
        .chain(chain, ports, &[])
        .pod("a", "", if first { "none" } else { "" })
        .pod("b", chain, "")
        .hold(chain, if first { "none" } else { "closed" })
}

#[test]
fn a_switch_under_load_opens_and_cuts_nothing() {
    switch_under_load(plan);
}

#[test]
fn a_switch_of_port_ranges_under_load_opens_and_cuts_nothing() {
    switch_under_load(plan_of_ranges);
}

fn switch_under_load(plan: fn(bool) -> Planning) {
    let mut scene = Scene::new();
    scene.apply(&plan(true).0);
    let Scene { a, b, c, .. } = &scene;
    let listener = inside(&b.namespace, || TcpListener::bind("[::]:80").unwrap());
    let _accepting = thread::spawn(move || listener.incoming().for_each(drop));
    let done = AtomicBool::new(false);
    let (allowed, lost, forbidden, passed) = <(AtomicU32, AtomicU32, AtomicU32, AtomicU32)>::default();
    let (from_a, from_c) = (a.namespace.path().to_owned(), c.namespace.path().to_owned());
    let before = retransmitted(&a.namespace);
    let connecting = |from: &std::path::Path, patience: Duration, made: &AtomicU32, not: &AtomicU32| {
        inside(from, || {
            while !done.load(Ordering::Relaxed) {
                for address in ["10.244.1.11:80", "[fd00:1::11]:80"] {
                    let to: SocketAddr = address.parse().unwrap();
                    // Until the server has closed it: no more wait for that than it takes in.
                    let stream = TcpStream::connect_timeout(&to, patience);
                    let is_made = stream.and_then(|mut stream| stream.read(&mut [0])).is_ok();
                    if is_made { made } else { not }.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    };
    let (node, attached) = (scene.world.nft(), scene.attached());
    thread::scope(|scope| {
        scope.spawn(|| connecting(&from_a, PATIENT, &allowed, &lost));
        scope.spawn(|| connecting(&from_c, Duration::from_millis(2), &passed, &forbidden));
        let mut mirror = kit::block_on(ferrule::datapath::policy::read(&node)).unwrap();
        let all = super::scene::all();
        for round in 0..SWITCHES {
            let plan = plan(round % 2 == 1).0;
            let applied = ferrule::datapath::policy::apply(
                &node,
                &mut mirror,
                &plan,
                &all,
                &attached,
                ferrule::datapath::policy::Unknown::Open,
            );
            let applied = kit::block_on(applied);
            if applied.is_err() {
                done.store(true, Ordering::Relaxed);
            }
            assert!(applied.unwrap().transactions > 1);
        }
        done.store(true, Ordering::Relaxed);
    });
    let [allowed, lost, forbidden, passed] = [allowed, lost, forbidden, passed].map(AtomicU32::into_inner);
    assert_eq!((lost, passed), (0, 0), "of {allowed} and {forbidden}");
    assert!(allowed > 100 && forbidden > 100, "{allowed} {forbidden}");
    assert_eq!(retransmitted(&a.namespace), before, "a first packet of {allowed} was lost");
    let wanted = plan(true).0;
    assert_eq!(scene.differences(&wanted), [""; 0]);
}

/// How many first packets of connections had to be sent again.
fn retransmitted(namespace: &Namespace) -> String {
    namespace.sh(
        "awk '/^TcpExt/ { if (!n) { for (i = 2; i <= NF; i++) if ($i == \"TCPSynRetrans\") n = i } else print $n }' \
         /proc/net/netstat",
    )
}
