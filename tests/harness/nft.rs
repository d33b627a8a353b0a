//! What a namespace's nftables hold, as `nft` reads them.

use std::process::Command;

use serde_json::Value;

use super::netns::Namespace;

/// Runs `nft` in `namespace`; the words of `words` are its arguments.
pub fn run(namespace: &Namespace, words: &str) -> Result<String, String> {
    let net = format!("--net={}", namespace.path().display());
    let mut command = Command::new("nsenter");
    command.arg(net).args(["timeout", "10", "nft"]).args(words.split(' '));
    let output = command.output().expect("nsenter is installed");
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).expect("nft speaks UTF-8")),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// What the sets and maps of ferrule's table have, but for what belongs to networks as a whole: set and comment of each
/// element, sorted. Empty where there is no table.
pub fn pod_elements(namespace: &Namespace) -> Vec<String> {
    let Ok(json) = run(namespace, "-j list table inet ferrule") else { return Vec::new() };
    let listed: Value = serde_json::from_str(&json).expect("nft -j");
    let mut found = Vec::new();
    for object in listed["nftables"].as_array().expect("a list") {
        let Some(set) = object.get("set").or(object.get("map")) else { continue };
        let name = set["name"].as_str().expect("a name");
        let is_of_pods = !["no_masquerade", "vxlan"].iter().any(|prefix| name.starts_with(prefix));
        for element in set["elem"].as_array().into_iter().flatten().filter(|_| is_of_pods) {
            // Of a map, key and data.
            let key = element.get(0).unwrap_or(element);
            found.push(format!("{name}: {}", key["elem"]["comment"].as_str().unwrap_or_default()));
        }
    }
    found.sort();
    found
}
