//! What the kernel has, as `ip -j` and `nft -j` read it.

use kit::netns::Namespace;
use kit::{ip, nft};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Links of the underlay, which are nobody's.
const UNDERLAY: [&str; 3] = ["lo", "up0", "up1"];

/// Sets whose elements are the network's and not a pod's.
const OF_THE_NETWORK: [&str; 5] =
    ["no_masquerade4", "no_masquerade6", "node_addresses4", "node_addresses6", "uplinks"];

/// A link made for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The text that says whose it is; none if it has no alias.
    pub alias: String,
    /// Link group.
    pub group: String,
    /// Whether it is up.
    pub is_up: bool,
    /// Whether its other end is gone, or has no carrier.
    pub is_carrying: bool,
}

/// What one moment showed of the node's namespace.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    /// Links that are not of the underlay, by name.
    pub links: BTreeMap<String, Link>,
    /// "destination link source", of ferrule's routes that lead to pods.
    pub pod_routes: BTreeSet<String>,
    /// "address link", permanent ones.
    pub neighbours: BTreeSet<String>,
    /// "set: key" or "map: key -> data", of pods.
    pub elements: BTreeSet<String>,
    /// Elements of the network, its other routes, the table's rules, forwarding: what does not depend on pods.
    pub standing: BTreeSet<String>,
}

impl Kernel {
    /// Reads all of it.
    pub fn read() -> Self {
        let (here, mut found) = (Namespace::here(), Self::default());
        for link in ip::links(&here) {
            let name = text(&link["ifname"]);
            if !UNDERLAY.contains(&name.as_str()) {
                let has_flag = |flag: &str| list(&link["flags"]).iter().any(|it| it == flag);
                let link = Link {
                    alias: text(&link["ifalias"]),
                    group: text(&link["group"]),
                    is_up: has_flag("UP"),
                    is_carrying: has_flag("LOWER_UP"),
                };
                found.links.insert(name, link);
            }
        }
        for family in ["-4", "-6"] {
            for route in ip::routes(&here, &format!("{family} table all proto 102")) {
                let words = ["type", "dst", "gateway", "dev", "prefsrc", "metric"];
                let words: Vec<String> =
                    words.iter().map(|key| text(&route[*key])).filter(|word| !word.is_empty()).collect();
                if text(&route["dev"]).starts_with("veth") {
                    let (destination, link, source) = (&route["dst"], &route["dev"], &route["prefsrc"]);
                    found.pod_routes.insert(format!("{} {} {}", text(destination), text(link), text(source)));
                } else {
                    found.standing.insert(format!("route {}", words.join(" ")));
                }
            }
        }
        for neighbour in ip::neighbours(&here).iter().filter(|it| it["state"][0] == "PERMANENT") {
            found.neighbours.insert(format!("{} {}", text(&neighbour["dst"]), text(&neighbour["dev"])));
        }
        for (name, element) in nft::elements(&here) {
            let line = match element.as_array().map(Vec::as_slice) {
                Some([key, data]) => format!("{name}: {} -> {}", text(key), text(data)),
                _ => format!("{name}: {}", text(&element)),
            };
            let is_of_pod = !OF_THE_NETWORK.contains(&name.as_str());
            let place = if is_of_pod { &mut found.elements } else { &mut found.standing };
            place.insert(line);
        }
        found.standing.extend(nft::run(&here, "--terse --stateless list table inet ferrule"));
        for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            found.standing.insert(format!("{setting} = {}", here.sysctl(setting)));
        }
        found
    }
}

/// The global addresses of a pod's `eth0`, sorted, as its namespace has them.
pub fn addresses_in(netns: &Path) -> Vec<String> {
    let addresses = ip::addresses(&Namespace::at(netns), "eth0").into_iter();
    let mut found: Vec<String> =
        addresses.filter(|address| address["scope"] == "global").map(|it| text(&it["local"])).collect();
    found.sort();
    found
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// A value in words: what `nft` puts around it falls off.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Object(object) => match (object.get("elem"), object.get("concat"), object.get("prefix")) {
            (Some(element), ..) => text(&element["val"]),
            (_, Some(parts), _) => text(parts),
            (.., Some(prefix)) => format!("{}/{}", text(&prefix["addr"]), text(&prefix["len"])),
            _ => value.to_string(),
        },
        other => other.to_string(),
    }
}
