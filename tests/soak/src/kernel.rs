//! What the kernel has, as `ip -j` and `nft -j` read it.

use crate::Failure;
use crate::system::{read_json, run};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Links of the underlay, which are nobody's.
const UNDERLAY: [&str; 3] = ["lo", "up0", "up1"];

/// Sets whose elements are the network's and not a pod's.
const OF_THE_NETWORK: [&str; 2] = ["no_masquerade4", "no_masquerade6"];

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
    pub fn read() -> Result<Self, Failure> {
        let mut found = Self::default();
        for link in list(&read_json("ip -j -d link show")?) {
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
            for route in list(&read_json(&format!("ip -j {family} route show table all proto 102"))?) {
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
        for neighbour in list(&read_json("ip -j neighbour show nud permanent")?) {
            found.neighbours.insert(format!("{} {}", text(&neighbour["dst"]), text(&neighbour["dev"])));
        }
        found.read_table()?;
        for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            let value = std::fs::read_to_string(Path::new("/proc/sys").join(setting))?;
            found.standing.insert(format!("{setting} = {}", value.trim()));
        }
        Ok(found)
    }

    fn read_table(&mut self) -> Result<(), Failure> {
        if !run("nft", &["list", "tables"])?.lines().any(|line| line == "table inet ferrule") {
            return Ok(());
        }
        let listed = read_json("nft -j list table inet ferrule")?;
        for object in list(&listed["nftables"]) {
            if let Some(set) = object.get("set").or_else(|| object.get("map")) {
                let name = text(&set["name"]);
                for element in list(&set["elem"]) {
                    let line = match element.as_array().map(Vec::as_slice) {
                        Some([key, data]) => format!("{name}: {} -> {}", text(key), text(data)),
                        _ => format!("{name}: {}", text(&element)),
                    };
                    let is_of_pod = !OF_THE_NETWORK.contains(&name.as_str());
                    let place = if is_of_pod { &mut self.elements } else { &mut self.standing };
                    place.insert(line);
                }
            }
        }
        let rules = run("nft", &["--terse", "list", "table", "inet", "ferrule"])?;
        self.standing.insert(rules);
        Ok(())
    }
}

/// The global addresses of a pod's `eth0`, sorted, as its namespace has them.
pub fn addresses_in(netns: &Path) -> Result<Vec<String>, Failure> {
    let name = netns.file_name().unwrap_or_default().to_string_lossy();
    let mut found = Vec::new();
    for link in list(&read_json(&format!("ip -j -n {name} address show dev eth0"))?) {
        let global = list(&link["addr_info"]).into_iter().filter(|address| address["scope"] == "global");
        found.extend(global.map(|address| text(&address["local"])));
    }
    found.sort();
    Ok(found)
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
