//! What a namespace's nftables hold, as `nft` reads them.

use serde_json::Value;

use crate::netns::Namespace;
use crate::process::run_in;

/// Runs `nft` in `namespace`; the words of `words` are its arguments.
pub fn run(namespace: &Namespace, words: &str) -> Result<String, String> {
    run_in(namespace, "nft", words.split(' '), "").map_err(|failed| failed.to_string())
}

/// Has `nft` read `script` in `namespace`. Panics unless it takes all of it.
pub fn load(namespace: &Namespace, script: &str) {
    run_in(namespace, "nft", ["-f", "-"], script).unwrap_or_else(|said| panic!("{script}: {said}"));
}

/// What `nft -j` prints.
pub fn json(namespace: &Namespace, words: &str) -> Result<Value, String> {
    let text = run(namespace, &format!("-j {words}"))?;
    Ok(serde_json::from_str(&text).expect("nft -j"))
}

/// The name of each set and map of ferrule's table, and each of its elements. Empty where there is no table.
pub fn elements(namespace: &Namespace) -> Vec<(String, Value)> {
    let Ok(listed) = json(namespace, "list table inet ferrule") else { return Vec::new() };
    let mut found = Vec::new();
    for object in listed["nftables"].as_array().expect("a list") {
        let Some(set) = object.get("set").or(object.get("map")) else { continue };
        let name = set["name"].as_str().expect("a name");
        let elements = set["elem"].as_array().into_iter().flatten();
        found.extend(elements.map(|element| (name.to_owned(), element.clone())));
    }
    found
}

/// What the sets and maps of ferrule's table have, but for what belongs to networks as a whole: set and comment of each
/// element, sorted.
pub fn pod_elements(namespace: &Namespace) -> Vec<String> {
    let is_of_pods = |(name, _): &(String, Value)| {
        !["no_masquerade", "node_addresses", "uplinks", "vxlan"].iter().any(|it| name.starts_with(it))
    };
    let mut found: Vec<String> = elements(namespace)
        .into_iter()
        .filter(is_of_pods)
        .map(|(name, element)| {
            // Of a map, key and data.
            let key = element.get(0).unwrap_or(&element);
            format!("{name}: {}", key["elem"]["comment"].as_str().unwrap_or_default())
        })
        .collect();
    found.sort();
    found
}
