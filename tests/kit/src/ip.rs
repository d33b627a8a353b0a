//! What the kernel has, as `ip -j` reads it.

use serde_json::Value;

use crate::netns::Namespace;

/// All links of `namespace`, in detail.
pub fn links(namespace: &Namespace) -> Vec<Value> {
    list(namespace, "link show")
}

/// The link `name` of `namespace`, or `None`.
pub fn link(namespace: &Namespace, name: &str) -> Option<Value> {
    links(namespace).into_iter().find(|link| link["ifname"] == name)
}

/// The index of the link `name`, which must exist.
pub fn index(namespace: &Namespace, name: &str) -> u32 {
    let link = link(namespace, name).unwrap_or_else(|| panic!("no link {name}"));
    link["ifindex"].as_u64().and_then(|index| index.try_into().ok()).expect("ifindex")
}

/// The addresses of the link `name`.
pub fn addresses(namespace: &Namespace, name: &str) -> Vec<Value> {
    let found = list(namespace, &format!("address show dev {name}"));
    found.iter().flat_map(|link| link["addr_info"].as_array().cloned().unwrap_or_default()).collect()
}

/// The neighbours of `namespace`.
pub fn neighbours(namespace: &Namespace) -> Vec<Value> {
    list(namespace, "neighbour show nud all")
}

/// The routes of `namespace`. `filter` begins with the family: "-4 proto 77".
pub fn routes(namespace: &Namespace, filter: &str) -> Vec<Value> {
    let (family, filter) = filter.split_once(' ').unwrap_or((filter, ""));
    list(namespace, format!("{family} route show {filter}").trim_end())
}

fn list(namespace: &Namespace, words: &str) -> Vec<Value> {
    let json = namespace.ip(&format!("-j -d {words}"));
    if json.trim().is_empty() { Vec::new() } else { serde_json::from_str(&json).expect("ip -j") }
}
