//! A pod that sends under the address of another one.

use std::net::IpAddr;

use lab::{Lab, Node, Result};

use crate::pods::Pod;
use crate::screen::Screen;

type Shown<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How many packets are sent under each address.
const PACKETS: u64 = 3;

/// Counts echo requests as they arrive in the victim's pod, before anything looks at them.
const COUNTERS: &str = "add table inet demo
add chain inet demo arriving { type filter hook prerouting priority -400; }";

/// The first pod pings one of another node as itself, and then as its neighbour. Says what did not go as promised.
pub fn show(screen: &Screen, lab: &Lab, pods: &[Pod]) -> Shown<Vec<String>> {
    let on = |node: usize| pods.iter().filter(move |pod| pod.node == node);
    let (mut here, mut there) = (on(0), on(1));
    let (Some(liar), Some(neighbour), Some(target)) = (here.next(), here.next(), there.next()) else {
        return Err("too small a lab to lie in".into());
    };
    let [node, far, ..] = lab.nodes() else { return Err("too small a lab to lie in".into()) };
    screen.heading(&format!(
        "{} pings {} as itself, and as {}: what arrives there, counted by nft in {}",
        liar.name, target.name, neighbour.name, target.name
    ))?;
    let mut faults = Vec::new();
    for &to in &target.addresses {
        let of_family = |pod: &Pod| pod.addresses.iter().copied().find(|it| it.is_ipv4() == to.is_ipv4());
        for (source, expected) in [(of_family(liar), PACKETS), (of_family(neighbour), 0)] {
            let source = source.ok_or("a pod with one family")?;
            let arrived = count_arrivals(node, liar, far, target, source, to)?;
            let text = format!("{PACKETS} packets from {source}: {arrived} arrived");
            screen.verdict(arrived == expected, &text)?;
            if arrived != expected {
                faults.push(format!("of {text} instead of {expected}"));
            }
        }
    }
    Ok(faults)
}

/// Pings from inside `sender`, and counts inside `target`.
fn count_arrivals(
    node: &Node,
    sender: &Pod,
    far: &Node,
    target: &Pod,
    source: IpAddr,
    to: IpAddr,
) -> Shown<u64> {
    let (family, echo) = if to.is_ipv4() { ("ip", "icmp type") } else { ("ip6", "icmpv6 type") };
    let rule = format!("add rule inet demo arriving {family} saddr {source} {echo} echo-request counter");
    inside(far, target, &["nft", &format!("{COUNTERS}\n{rule}")])?;
    // One that is its own already stays as it is.
    let is_own = sender.addresses.contains(&source);
    if !is_own {
        inside(node, sender, &["ip", "address", "add", &source.to_string(), "dev", "lo", "nodad"])?;
    }
    let count = PACKETS.to_string();
    let (source, to) = (source.to_string(), to.to_string());
    // Its exit status tells of answers, which to a forged address nobody expects.
    let _ = inside(node, sender, &["busybox", "ping", "-c", &count, "-W", "1", "-I", &source, &to]);
    if !is_own {
        inside(node, sender, &["ip", "address", "delete", &source, "dev", "lo"])?;
    }
    let listed = inside(far, target, &["nft", "--json", "list", "table", "inet", "demo"])?;
    inside(far, target, &["nft", "delete", "table", "inet", "demo"])?;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    let packets = listed.pointer("/nftables").and_then(serde_json::Value::as_array).into_iter().flatten();
    let expressions = packets.filter_map(|object| object.pointer("/rule/expr")?.as_array()).flatten();
    let mut counters = expressions.filter_map(|expression| expression.pointer("/counter/packets")?.as_u64());
    counters.next().ok_or_else(|| "nft lists no counter".into())
}

/// A program of the node's, in the network namespace of a pod.
fn inside(node: &Node, pod: &Pod, words: &[&str]) -> Result<String> {
    let pid = pod.pid.to_string();
    node.run("nsenter", &[&["--target", &pid, "--net"], words].concat())
}
