//! A pod speaks for itself only, and teaches its node nothing.

use std::process::Command;

use crate::harness::ip;
use crate::harness::netns::Namespace;
use crate::harness::nft;
use crate::harness::node::{Node, OUTSIDE_V6};
use crate::harness::packets::{answers_ping, first_sender};
use crate::harness::pod::{Pod, addresses_of, host_link_of};

/// IPv6 has no rp_filter.
#[test]
fn a_pod_cannot_send_with_an_ipv6_address_that_is_not_its_own() {
    let (node, pod, victim) = (Node::new(), Pod::new("pod"), Pod::new("victim"));
    let own = addresses_of(&node.add(&pod, &node.conf())).remove(1);
    let victims = addresses_of(&node.add(&victim, &node.conf())).remove(1);
    let send = |forged: &str| first_sender(pod.namespace(), node.outside(), OUTSIDE_V6, forged, &own);
    for forged in [victims.as_str(), "fd00:88::99", "2001:db8::5"] {
        pod.namespace().ip(&format!("address add {forged}/128 dev eth0 nodad"));
        assert_eq!(send(forged), own, "a packet from {forged} got through");
    }
    // The proof that the test can fail.
    nft::run(node.namespace(), "delete table inet ferrule").unwrap();
    assert_eq!(send("2001:db8::5"), "2001:db8::5");
}

/// What a pod says of itself by neighbour discovery or ARP, and what it advertises or redirects, changes neither the
/// node's neighbours nor its routes.
#[test]
fn router_advertisements_redirects_and_claims_of_a_pod_change_nothing_on_the_node() {
    let (node, pod, victim) = (Node::new(), Pod::new("pod"), Pod::new("victim"));
    let link = host_link_of(&node.add(&pod, &node.conf()));
    let victims = addresses_of(&node.add(&victim, &node.conf()));
    let state = || {
        let mut neighbours: Vec<String> = ip::neighbours(node.namespace())
            .iter()
            .filter(|it| it["dev"] != "uplink" && !it["dst"].as_str().is_some_and(|to| to.starts_with("ff0")))
            .map(|it| format!("{} {} {} {}", it["dst"], it["dev"], it["lladdr"], it["state"]))
            .collect();
        neighbours.sort();
        let routes = |family| node.namespace().ip(&format!("{family} route show table all proto ra"));
        let redirected = node.namespace().ip("-6 route show cache");
        let addresses = ip::addresses(node.namespace(), &link);
        (neighbours, routes("-6"), redirected, addresses)
    };
    let before = state();
    assert_eq!(before.0.len(), 4, "{before:?}");
    let eth0 = ip::link(pod.namespace(), "eth0").unwrap();
    let ours = eth0["address"].as_str().unwrap().to_owned();
    for packet in [
        router_advertisement(&ours),
        neighbour_advertisement(&victims[1], &ours),
        neighbour_solicitation(&victims[1], &ours),
        redirect(&victims[1], &ours),
        gratuitous_arp(&victims[0], &ours),
    ] {
        send_frame(pod.namespace(), &packet);
    }
    // Behind them in the same queue: when it is answered, they were looked at.
    assert!(answers_ping(pod.namespace(), OUTSIDE_V6));
    assert_eq!(state(), before);
    assert!(answers_ping(node.namespace(), &victims[0]) && answers_ping(node.namespace(), &victims[1]));
}

/// Writes a frame to the pod's `eth0`, as a privileged process in it could.
fn send_frame(pod: &Namespace, frame: &[u8]) {
    let script = "import socket, sys\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
                  s.bind(('eth0', 0))\ns.send(bytes.fromhex(sys.argv[1]))\n";
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let net = format!("--net={}", pod.path().display());
    let sent = Command::new("nsenter")
        .args([&net, "timeout", "10", "python3", "-c", script, &hex])
        .output()
        .unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
}

fn mac(text: &str) -> Vec<u8> {
    text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// An Ethernet frame with an ICMPv6 message (RFC 4443) from `fe80::666` to all nodes, hop limit 255 as RFC 4861 wants.
fn icmp6(source_mac: &str, message: &[u8]) -> Vec<u8> {
    let source: std::net::Ipv6Addr = "fe80::666".parse().unwrap();
    let destination: std::net::Ipv6Addr = "ff02::1".parse().unwrap();
    let mut message = message.to_vec();
    let mut sum: u32 = 58 + message.len() as u32;
    for chunk in source.octets().chunks(2).chain(destination.octets().chunks(2)).chain(message.chunks(2)) {
        sum += u32::from(chunk[0]) << 8 | u32::from(*chunk.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let mut frame = mac("33:33:00:00:00:01");
    frame.extend(mac(source_mac));
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(message);
    frame
}

/// RFC 4861, section 4.2: a router with the highest preference, for half an hour.
fn router_advertisement(source_mac: &str) -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0x08, 0x07, 0x08];
    message.extend([0; 8]);
    message.extend([1, 1]);
    message.extend(mac(source_mac));
    icmp6(source_mac, &message)
}

/// RFC 4861, section 4.4, with the override flag.
fn neighbour_advertisement(target: &str, source_mac: &str) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(target.parse::<std::net::Ipv6Addr>().unwrap().octets());
    message.extend([2, 1]);
    message.extend(mac(source_mac));
    icmp6(source_mac, &message)
}

/// RFC 4861, section 4.3, which teaches the sender's own hardware address.
fn neighbour_solicitation(target: &str, source_mac: &str) -> Vec<u8> {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.parse::<std::net::Ipv6Addr>().unwrap().octets());
    message.extend([1, 1]);
    message.extend(mac(source_mac));
    icmp6(source_mac, &message)
}

/// RFC 4861, section 4.5: the victim is better reached by the sender.
fn redirect(destination: &str, source_mac: &str) -> Vec<u8> {
    let mut message = vec![137, 0, 0, 0, 0, 0, 0, 0];
    message.extend("fe80::666".parse::<std::net::Ipv6Addr>().unwrap().octets());
    message.extend(destination.parse::<std::net::Ipv6Addr>().unwrap().octets());
    icmp6(source_mac, &message)
}

/// RFC 826, RFC 5227: "that address is mine".
fn gratuitous_arp(address: &str, source_mac: &str) -> Vec<u8> {
    let octets = address.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let mut frame = mac("ff:ff:ff:ff:ff:ff");
    frame.extend(mac(source_mac));
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac(source_mac));
    frame.extend(octets);
    frame.extend(mac("ff:ff:ff:ff:ff:ff"));
    frame.extend(octets);
    frame
}
