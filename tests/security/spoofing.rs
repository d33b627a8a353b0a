//! A pod that gives itself another's address: nothing of what it sends with it arrives anywhere, whatever the protocol.
//!
//! Counted by nftables where it would arrive. What is sent last is honest, and goes the same way: once it was counted,
//! all before it was looked at, so nobody waits for what must not come.

use std::net::IpAddr;

use kit::frames::{self, ICMP, ICMP6, Mac, TCP, UDP, echo, mac, packet, syn, udp};
use kit::ip;
use kit::netns::Namespace;
use kit::nft;
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::pod::{Pod, addresses_of, host_link_of};

const PORT: u16 = 9000;

/// Counts what comes into `namespace` from addresses, each by a rule.
fn watch(namespace: &Namespace, sources: &[IpAddr]) {
    let rule = |source: &IpAddr| {
        let family = if source.is_ipv4() { "ip" } else { "ip6" };
        format!("{family} saddr {source} counter comment \"{source}\"\n")
    };
    let rules: String = sources.iter().map(rule).collect();
    let chain = "type filter hook input priority filter;";
    nft::load(namespace, &format!("table inet watch {{\nchain input {{\n{chain}\n{rules}}}\n}}\n"));
}

/// How many packets came from an address.
fn seen(namespace: &Namespace, source: IpAddr) -> u64 {
    let listed = nft::json(namespace, "list table inet watch").unwrap();
    let mut rules = listed["nftables"].as_array().unwrap().iter().filter_map(|it| it.get("rule"));
    let rule = rules.find(|rule| rule["comment"] == source.to_string().as_str()).unwrap();
    let mut words = rule["expr"].as_array().unwrap().iter();
    words.find_map(|word| word["counter"]["packets"].as_u64()).unwrap()
}

/// One packet of each protocol.
fn all_protocols(to: Mac, from: Mac, source: IpAddr, target: IpAddr) -> [Vec<u8>; 3] {
    let icmp = if source.is_ipv4() { ICMP } else { ICMP6 };
    [
        packet(to, from, source, target, UDP, &udp(source, target, PORT, b"?")),
        packet(to, from, source, target, TCP, &syn(source, target, PORT)),
        packet(to, from, source, target, icmp, &echo(source, target)),
    ]
}

#[test]
fn nothing_sent_under_anothers_address_arrives() {
    let (node, attacker, victim, other) =
        (Node::new(), Pod::new("attacker"), Pod::new("victim"), Pod::new("other"));
    let result = node.add(&attacker, &node.conf());
    let parse = |texts: &[String]| texts.iter().map(|it| it.parse().unwrap()).collect::<Vec<IpAddr>>();
    let own = parse(&addresses_of(&result));
    let victims = parse(&addresses_of(&node.add(&victim, &node.conf())));
    let others = parse(&addresses_of(&node.add(&other, &node.conf())));
    let fixed = |text: &str| text.parse::<IpAddr>().unwrap();
    // A free address of the subnet, the node itself, its router, the pods' gateway, the world, loopback, and nobody.
    let fours = ["10.88.0.200", NODE_V4, OUTSIDE_V4, "169.254.1.1", "203.0.113.7", "127.0.0.1", "0.0.0.0"];
    let sixes = ["fd00:88::200", NODE_V6, OUTSIDE_V6, "fe80::1", "2001:db8::7", "::1", "::", "fe80::666"];
    let forged: Vec<IpAddr> =
        fours.iter().chain(&sixes).map(|text| fixed(text)).chain(victims.iter().copied()).collect();
    let all: Vec<IpAddr> = forged.iter().chain(&own).copied().collect();
    let receivers = [
        (node.namespace(), vec![fixed(NODE_V4), fixed(NODE_V6)]),
        (node.outside(), vec![fixed(OUTSIDE_V4), fixed(OUTSIDE_V6)]),
        (other.namespace(), others),
    ];
    receivers.iter().for_each(|(namespace, _)| watch(namespace, &all));
    let link = host_link_of(&result);
    let of = |namespace, name| mac(ip::link(namespace, name).unwrap()["address"].as_str().unwrap());
    let (to, from) = (of(node.namespace(), &link), of(attacker.namespace(), "eth0"));
    let send = |sources: &[IpAddr]| {
        let mut packets = Vec::new();
        for (_, targets) in &receivers {
            for target in targets {
                let of_family = sources.iter().filter(|source| source.is_ipv4() == target.is_ipv4());
                packets.extend(of_family.flat_map(|source| all_protocols(to, from, *source, *target)));
            }
        }
        frames::send(attacker.namespace(), &packets);
    };
    let count = |sources: &[IpAddr]| -> Vec<String> {
        let mut found = Vec::new();
        for (namespace, targets) in &receivers {
            let counted = sources.iter().map(|source| (source, seen(namespace, *source)));
            found.extend(
                counted.filter(|it| it.1 > 0).map(|it| format!("{} at {}: {}", it.0, targets[0], it.1)),
            );
        }
        found
    };
    let honest = || -> Vec<u64> {
        let of =
            |(namespace, _): &(&Namespace, _)| own.iter().map(|it| seen(namespace, *it)).collect::<Vec<_>>();
        receivers.iter().flat_map(of).collect()
    };
    send(&forged);
    // More than once: what waits while node and router, just made, cannot hear each other's solicitations is lost.
    let all_came = (0..20).any(|_| {
        let before = honest();
        send(&own);
        (0..20).any(|_| honest().iter().zip(&before).all(|(now, before)| *now >= before + 3))
    });
    assert!(all_came, "the honest ones arrive: {:?}", count(&own));
    // Node and router speak to each other, for themselves; that a pod did not is seen from where they are silent.
    let talk = [NODE_V4, NODE_V6, OUTSIDE_V4, OUTSIDE_V6].map(fixed);
    let silent: Vec<IpAddr> = forged.iter().copied().filter(|it| !talk.contains(it)).collect();
    assert_eq!(count(&silent), [""; 0]);
    assert!(talk.iter().all(|source| seen(other.namespace(), *source) == 0));
    // The proof that the test can fail.
    nft::run(node.namespace(), "delete table inet ferrule").unwrap();
    for path in ["all".to_owned(), link] {
        node.namespace().set_sysctl(&format!("net/ipv4/conf/{path}/rp_filter"), "0");
    }
    send(&victims);
    // To the node, to the world and to the third pod, in either family.
    assert!((0..200).any(|_| count(&victims).len() == 6), "{:?}", count(&victims));
}
