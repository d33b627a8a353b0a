//! The conflist as it is on the node: our entry in it, and what others put beside it (istio-cni, linkerd-cni, portmap).
//!
//! The agent owns its own entry and the list's name and version. Everything else in a list of ours stays as it is.

use std::path::Path;

use serde_json::Value;

use crate::agent::install::files;
use crate::config::role::PLUGIN_TYPE;

/// Members of the list that are the agent's.
const OWNED: [&str; 3] = ["cniVersion", "cniVersions", "name"];

/// A conflist that is on the node.
#[derive(Debug)]
pub struct Found {
    text: String,
    list: Value,
}

impl Found {
    /// Whether the list is the agent's: it has our entry, or the network's name.
    pub fn is_of(&self, network: &str) -> bool {
        let Some(plugins) = self.list["plugins"].as_array() else { return false };
        plugins.iter().any(is_own_entry) || self.list["name"] == network
    }
}

/// Reads the conflist; `None` if there is none, or no JSON object. What is damaged is written anew.
pub fn read(path: &Path) -> Option<Found> {
    let text = String::from_utf8(files::read(path).ok()?).ok()?;
    let list: Value = serde_json::from_str(&text).ok()?;
    list.is_object().then_some(Found { text, list })
}

/// What is to be in the file: `ours`, with what others put into the list of ours that was found. The same bytes as were
/// found where they mean the same, whoever formatted them: two programs must not write a file in turns.
pub fn merge(ours: &Value, found: Option<Found>) -> Merged {
    let whole = |list: Value| Merged { text: to_text(&list), list };
    let Some(Found { text, list }) =
        found.filter(|found| found.is_of(ours["name"].as_str().unwrap_or_default()))
    else {
        return whole(ours.clone());
    };
    let mut merged = list.clone();
    let Some(members) = merged.as_object_mut() else { return whole(ours.clone()) };
    for name in OWNED {
        members.insert(name.to_owned(), ours[name].clone());
    }
    let mut plugins = match members.remove("plugins") {
        Some(Value::Array(plugins)) => plugins,
        _ => Vec::new(),
    };
    let own = ours["plugins"][0].clone();
    match plugins.iter().position(is_own_entry) {
        Some(place) => plugins[place] = own,
        // Whoever took it out did not mean to leave pods without a main plugin.
        None => plugins.insert(0, own),
    }
    members.insert("plugins".to_owned(), plugins.into());
    if merged == list { Merged { text, list } } else { whole(merged) }
}

/// The content of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Merged {
    /// As bytes.
    pub text: String,
    list: Value,
}

impl Merged {
    /// Types of the plugins that stand before ours, and of those behind it.
    pub fn others(&self) -> (Vec<String>, Vec<String>) {
        let plugins = self.list["plugins"].as_array().map(Vec::as_slice).unwrap_or_default();
        let types = |plugins: &[Value]| {
            plugins.iter().map(|it| it["type"].as_str().unwrap_or("unknown").to_owned()).collect()
        };
        let place = plugins.iter().position(is_own_entry).unwrap_or_default();
        (types(plugins.get(..place).unwrap_or_default()), types(plugins.get(place + 1..).unwrap_or_default()))
    }
}

/// Not a plugin that only has its addresses from ferrule.
fn is_own_entry(plugin: &Value) -> bool {
    plugin["type"] == PLUGIN_TYPE
}

fn to_text(list: &Value) -> String {
    // Serialising strings, numbers and lists cannot fail.
    serde_json::to_string_pretty(list).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ours() -> Value {
        json!({ "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "podnet",
                "plugins": [{ "type": "ferrule", "mtu": 1400 }] })
    }

    fn merged(found: &Value) -> Merged {
        merge(&ours(), Some(Found { text: found.to_string(), list: found.clone() }))
    }

    #[test]
    fn what_others_put_into_the_list_stays() {
        let istio = json!({ "type": "istio-cni", "kubernetes": { "interval": 1.0, "names": [] } });
        let bridge = json!({ "type": "bridge", "ipam": { "type": "ferrule" } });
        let found = json!({ "cniVersion": "0.3.1", "name": "renamed", "disableCheck": true, "plugins":
            [bridge, { "type": "ferrule", "mtu": 1, "stale": true }, istio, "odd", { "type": "ferrule", "mtu": 9 }] });
        let merged = merged(&found);
        let expected = json!({ "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "podnet",
            "disableCheck": true,
            "plugins": [bridge, { "type": "ferrule", "mtu": 1400 }, istio, "odd", { "type": "ferrule", "mtu": 9 }] });
        assert_eq!(merged.list, expected);
        assert_eq!(serde_json::from_str::<Value>(&merged.text).unwrap(), expected);
        let (before, behind) = merged.others();
        assert_eq!(
            (before, behind),
            (vec!["bridge".into()], vec!["istio-cni".into(), "unknown".into(), "ferrule".into()])
        );
    }

    #[test]
    fn the_same_in_another_form_is_left_alone() {
        let mut found = ours();
        found["plugins"].as_array_mut().unwrap().push(json!({ "type": "linkerd-cni" }));
        // On one line, as jq -c writes it.
        assert_eq!(merged(&found).text, found.to_string());
        assert_eq!(merge(&ours(), None).text, to_text(&ours()));
    }

    #[test]
    fn an_entry_that_was_taken_out_comes_back_in_front() {
        let list = merged(&json!({ "name": "podnet", "plugins": [{ "type": "istio-cni" }] })).list;
        assert_eq!(list["plugins"], json!([{ "type": "ferrule", "mtu": 1400 }, { "type": "istio-cni" }]));
    }

    #[test]
    fn a_list_of_somebody_else_is_not_continued() {
        for found in [
            json!({ "name": "cbr0", "plugins": [{ "type": "bridge", "ipam": { "type": "ferrule" } }] }),
            json!({ "name": "podnet", "type": "ferrule" }),
            json!({ "name": "podnet", "plugins": "none" }),
            json!({}),
        ] {
            assert_eq!(merged(&found).list, ours(), "{found}");
        }
    }
}
