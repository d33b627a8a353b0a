//! What must hold in the kernel, read by `ip -j` and `nft -j`: a pod has what its ADD said, its node has what leads to
//! it, and of any other pod there is nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use super::law::{Held, Life};
use super::step::{Conf, Pod};
use kit::ip;
use kit::netns::Namespace;
use kit::nft;
use kit::node::Node;

/// A destination to which only some confs have a route.
pub const ONE_MORE_ROUTE: &str = "203.0.113.0/24";

/// An attachment that has a record.
pub struct Attached {
    pub pod: Pod,
    pub held: Held,
    /// The node's end of its pair.
    pub host_link: String,
}

type Verdict = Result<(), String>;

/// A pod's container id.
pub fn container(pod: Pod) -> String {
    format!("pod-{pod}")
}

/// The port of the node that leads to a pod; every other pod has one.
pub fn host_port(pod: Pod) -> Option<u16> {
    pod.0.is_multiple_of(2).then_some(8000 + u16::from(pod.0))
}

/// Whether the node's end of a pod's pair is there, with the alias, which an ADD gives it last.
pub fn is_whole(links: &[Value], host_link: &str, pod: Pod) -> bool {
    let alias = format!("ferrule:podnet/{}/eth0", container(pod));
    links.iter().any(|link| link["ifname"] == host_link && link["ifalias"] == alias.as_str())
}

/// A pod without an attachment has no interface.
pub fn is_bare(pod: Pod, namespace: Option<&Namespace>) -> Verdict {
    let link = namespace.and_then(|namespace| ip::link(namespace, "eth0"));
    demand(link.is_none(), || format!("{pod} holds nothing, and has an eth0"))
}

/// A pod that stands has what the result of its ADD said, and what its conf asked for. There is no result if its ADD
/// was killed between its last step and its answer.
pub fn is_as_told(pod: Pod, namespace: &Namespace, conf: Conf, result: Option<&Value>) -> Verdict {
    let eth0 = ip::link(namespace, "eth0").ok_or_else(|| format!("{pod} has no eth0"))?;
    demand(eth0["mtu"] == conf.mtu, || format!("{pod} has mtu {}", eth0["mtu"]))?;
    for (family, gateway) in [("-4", "169.254.1.1"), ("-6", "fe80::1")] {
        let routes = ip::routes(namespace, family);
        let leads = |dst: &str| routes.iter().any(|it| it["dst"] == dst && it["gateway"] == gateway);
        demand(leads("default"), || format!("{pod} has no default route by {gateway}: {routes:?}"))?;
        let (must, is) = (conf.has_route && family == "-4", leads(ONE_MORE_ROUTE));
        demand(must == is, || format!("{pod} has the other route: {is}"))?;
    }
    let Some(result) = result else { return Ok(()) };
    let told = &result["interfaces"][1];
    demand(told["mac"] == eth0["address"], || format!("{pod} has {}, and was told {told}", eth0["address"]))?;
    let addresses = ip::addresses(namespace, "eth0").into_iter().filter(|it| it["scope"] == "global");
    let is: BTreeSet<String> =
        addresses.map(|it| format!("{}/{}", it["local"].as_str().unwrap(), it["prefixlen"])).collect();
    let ips = result["ips"].as_array().unwrap().iter();
    let must: BTreeSet<String> = ips.map(|it| it["address"].as_str().unwrap().to_owned()).collect();
    demand(must == is, || format!("{pod} has {is:?}, and was told {must:?}"))
}

/// The node has all that leads to the pods that stand, and nothing for a pod that holds nothing. What is left of one
/// that was cut short may be any part of that.
pub fn has_these_alone(node: &Namespace, links: &[Value], attached: &[Attached]) -> Verdict {
    let is_ours = |name: &Value| ["lo", "uplink"].iter().all(|it| name != it);
    let mut there: BTreeSet<String> = BTreeSet::new();
    for link in links.iter().filter(|link| is_ours(&link["ifname"])) {
        there.insert(format!("link {}", text(&link["ifname"])));
    }
    for family in ["-4", "-6"] {
        let routes = ip::routes(node, &format!("{family} table all proto 102"));
        for route in routes.iter().filter(|route| route["type"] != "unreachable") {
            there.insert(format!("route {} dev {}", text(&route["dst"]), text(&route["dev"])));
        }
    }
    for neighbour in
        ip::neighbours(node).iter().filter(|it| is_ours(&it["dev"]) && it["state"][0] == "PERMANENT")
    {
        there.insert(format!("neighbour {} dev {}", text(&neighbour["dst"]), text(&neighbour["dev"])));
    }
    there.extend(nft::pod_elements(node));
    let (mut may, mut must) = (BTreeSet::new(), BTreeSet::new());
    for it in attached {
        let objects = objects(it);
        if it.held.life == Life::Whole {
            must.extend(objects.iter().cloned());
        }
        may.extend(objects);
    }
    let missing: Vec<&String> = must.difference(&there).collect();
    demand(missing.is_empty(), || format!("the node lacks {missing:?}"))?;
    let leftovers: Vec<&String> = there.difference(&may).collect();
    demand(leftovers.is_empty(), || format!("the node has {leftovers:?}, of a pod that holds nothing"))
}

/// What the node has of one pod.
fn objects(attached: &Attached) -> Vec<String> {
    let Attached { pod, held, host_link } = attached;
    let mut objects = vec![format!("link {host_link}")];
    for address in &held.addresses {
        objects.push(format!("route {address} dev {host_link}"));
        objects.push(format!("neighbour {address} dev {host_link}"));
    }
    let sets = ["pods", "sources4", "sources6", "masquerade4", "masquerade6"];
    let ports = ["any_hostports4", "any_hostports6"].iter().filter(|_| host_port(*pod).is_some());
    objects.extend(sets.iter().chain(ports).map(|set| format!("{set}: podnet {}", container(*pod))));
    objects
}

/// Takes from a node all that no boot outlives.
pub fn forget(node: &Node) {
    for link in ip::links(node.namespace()) {
        let name = text(&link["ifname"]);
        if name.starts_with("veth") {
            // It may be going already, with its pod's namespace.
            node.namespace().sh(&format!("ip link delete {name} || true"));
            node.wait_for_end(name);
        }
    }
    for family in ["-4", "-6"] {
        node.namespace().ip(&format!("{family} route flush table all proto 102"));
    }
    nft::run(node.namespace(), "flush ruleset").unwrap();
    node.namespace().set_sysctl("net/ipv4/ip_forward", "0");
    node.namespace().set_sysctl("net/ipv6/conf/all/forwarding", "0");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn demand(holds: bool, why: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(why()) }
}
