//! What stood behind the old plugin in its list, and has to stand behind ferrule.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::cli::migrate::refuse;
use crate::cni::error::{CniError, Code};

/// What ferrule does itself. firewall's rules are for single addresses, and go with the next reboot.
const OWN: [&str; 2] = ["bandwidth", "firewall"];

/// What ferrule does itself as well; but nobody else removes the rules that it made for old pods.
const PORTS: &str = "portmap";

/// Puts them behind ferrule's entry, those that are not there. Returns their types. The agent leaves them where they are.
///
/// # Errors
/// Where the file cannot be read or written.
pub fn carry(ours: &Path, behind: &[Value], has_ports: bool) -> Result<Vec<String>, CniError> {
    let text = fs::read(ours).map_err(|error| refuse("read", ours, &error))?;
    let mut list: Value = serde_json::from_slice(&text)
        .map_err(|error| CniError::new(Code::Decode, format!("cannot read {}: {error}", ours.display())))?;
    let carried = merge(&mut list, behind, has_ports);
    if !carried.is_empty() {
        let text = serde_json::to_string_pretty(&list).unwrap_or_default() + "\n";
        // A name that no runtime reads.
        let new = ours.with_extension("migrate");
        let mode = fs::metadata(ours).map_err(|error| refuse("read", ours, &error))?.permissions().mode();
        fs::write(&new, text).map_err(|error| refuse("write", &new, &error))?;
        let done = fs::set_permissions(&new, fs::Permissions::from_mode(mode & 0o777));
        done.and_then(|()| fs::rename(&new, ours)).map_err(|error| refuse("write", ours, &error))?;
    }
    Ok(carried)
}

fn merge(list: &mut Value, behind: &[Value], has_ports: bool) -> Vec<String> {
    let mut carried = Vec::new();
    let Some(plugins) = list["plugins"].as_array_mut() else { return carried };
    for entry in behind {
        let Some(kind) = entry["type"].as_str() else { continue };
        let is_there = plugins.iter().any(|it| it["type"] == kind);
        if is_there || OWN.contains(&kind) || kind == PORTS && !has_ports {
            continue;
        }
        plugins.push(entry.clone());
        carried.push(kind.to_owned());
    }
    carried
}

#[cfg(test)]
mod tests {
    use super::merge;
    use serde_json::json;

    #[test]
    fn what_ferrule_does_itself_stays_behind() {
        let ours = json!({ "name": "cbr0", "plugins": [{ "type": "ferrule" }] });
        let entry = |kind: &str| json!({ "type": kind, "of": "old" });
        let behind = ["portmap", "bandwidth", "firewall", "istio-cni"].map(entry);
        let mut list = ours.clone();
        assert_eq!(merge(&mut list, &behind, false), ["istio-cni"]);
        assert_eq!(list["plugins"], json!([{ "type": "ferrule" }, entry("istio-cni")]));
        assert_eq!(merge(&mut list, &behind, true), ["portmap"]);
        assert_eq!(merge(&mut list, &behind, true), [""; 0]);
        assert_eq!(list["plugins"].as_array().unwrap().len(), 3);
    }
}
