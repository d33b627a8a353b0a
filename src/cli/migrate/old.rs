//! The old network, as the runtime's directory has it: what is in use, where its addresses are, what stands behind it.

use std::fs;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::attachments::conf_file::{conf_files, list};
use crate::cli::migrate::AWAY_SUFFIX;
use crate::cni::error::CniError;
use crate::cni::ids::NetworkName;
use crate::config::role::{LOOPBACK_TYPE, PLUGIN_TYPE};

/// Where host-local keeps its addresses unless its conf says otherwise (`defaultDataDir`, host-local's disk backend).
const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// Hands its pods on to bridge and host-local, with a conf that is in no file.
const FLANNEL: &str = "flannel";

/// The network that the runtime gives to new pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InUse {
    Old,
    Ferrule,
    None,
}

/// What was found.
pub struct Found {
    pub in_use: InUse,
    /// Confs of the old network that the runtime reads, first the one that it uses.
    pub files: Vec<PathBuf>,
    /// ferrule's conflist.
    pub ours: Option<PathBuf>,
    /// What the conf of the old network says, in use or moved away.
    pub old: Option<OldNetwork>,
    /// What keeps the node from moving.
    pub problems: Vec<String>,
}

/// What the old conf says.
#[derive(Debug, PartialEq)]
pub struct OldNetwork {
    /// Type of the main plugin.
    pub plugin: String,
    /// host-local's directory; `None` if the addresses are not host-local's.
    pub host_local: Option<PathBuf>,
    /// Where host-local takes addresses from, where the conf says that.
    pub subnets: Vec<IpNetwork>,
    /// The plugins behind the main one.
    pub behind: Vec<Value>,
}

impl Found {
    /// Looks.
    ///
    /// # Errors
    /// Where the directory cannot be listed.
    pub fn find(conf_dir: &Path, network: &NetworkName) -> Result<Self, CniError> {
        let mut found =
            Self { in_use: InUse::None, files: Vec::new(), ours: None, old: None, problems: Vec::new() };
        for path in conf_files(conf_dir)? {
            found.take_in(path, network);
        }
        if found.old.is_none() {
            let away = list(&keep_dir(conf_dir))?;
            let is_away = |path: &&PathBuf| path.to_str().is_some_and(|path| path.ends_with(AWAY_SUFFIX));
            let lists = away.iter().filter(is_away).filter_map(|path| List::read(path));
            found.old =
                lists.filter(|list| list.name == network.as_str()).map(|list| list.old(network)).next();
        }
        match &found.old {
            Some(OldNetwork { host_local: None, plugin, .. }) => found.problems.push(format!(
                "the old network's plugin {plugin} has its addresses not from host-local: they cannot be taken over"
            )),
            None if found.ours.is_none() && found.problems.is_empty() => found.problems.push(format!(
                "{} has no conf of a network {network}: the old network's name has to be the agents' (FERRULE_NETWORK)",
                conf_dir.display()
            )),
            _ => {}
        }
        Ok(found)
    }

    fn take_in(&mut self, path: PathBuf, network: &NetworkName) {
        let Some(list) = List::read(&path) else {
            return self.problems.push(format!("{} is no conf: remove it", path.display()));
        };
        if list.plugins.iter().all(|plugin| plugin["type"] == LOOPBACK_TYPE) {
            return;
        }
        let is_ours = list.plugins.iter().any(|plugin| plugin["type"] == PLUGIN_TYPE);
        if list.name != network.as_str() {
            let (path, name) = (path.display(), &list.name);
            return self.problems.push(format!(
                "{path} is of a network {name:?}, and the agents' is {network}: if it is the old network, give the agents its \
                 name (FERRULE_NETWORK={name} in the ConfigMap ferrule); else remove the file"
            ));
        }
        if is_ours {
            self.in_use = if self.in_use == InUse::None { InUse::Ferrule } else { self.in_use };
            self.ours.get_or_insert(path);
            return;
        }
        self.in_use = if self.in_use == InUse::None { InUse::Old } else { self.in_use };
        self.old.get_or_insert_with(|| list.old(network));
        self.files.push(path);
    }
}

/// Where confs are kept that the runtime is not to read: beside its directory, so that a rename is enough.
pub fn keep_dir(conf_dir: &Path) -> PathBuf {
    conf_dir.parent().unwrap_or(conf_dir).join("ferrule")
}

/// A conflist, or a conf as a list of one.
struct List {
    name: String,
    plugins: Vec<Value>,
}

impl List {
    fn read(path: &Path) -> Option<Self> {
        let document: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let name = document["name"].as_str()?.to_owned();
        let plugins = match document.get("plugins") {
            Some(plugins) => plugins.as_array()?.clone(),
            None => vec![document],
        };
        Some(Self { name, plugins })
    }

    fn old(&self, network: &NetworkName) -> OldNetwork {
        let main = self.plugins.first().cloned().unwrap_or_default();
        let plugin = main["type"].as_str().unwrap_or("unknown").to_owned();
        let ipam = if plugin == FLANNEL { &main["delegate"]["ipam"] } else { &main["ipam"] };
        let is_host_local = ipam["type"] == "host-local" || plugin == FLANNEL && ipam["type"].is_null();
        let data_dir = ipam["dataDir"].as_str().filter(|path| !path.is_empty()).unwrap_or(DEFAULT_DATA_DIR);
        let ranges = ipam["ranges"].as_array().into_iter().flatten();
        let ranges = ranges.filter_map(Value::as_array).flatten().chain([ipam]);
        OldNetwork {
            host_local: is_host_local.then(|| Path::new(data_dir).join(network.as_str())),
            subnets: ranges.filter_map(|range| range["subnet"].as_str()?.parse().ok()).collect(),
            behind: self.plugins.iter().skip(1).cloned().collect(),
            plugin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn old(plugins: Value) -> OldNetwork {
        let Value::Array(plugins) = plugins else { panic!("no list") };
        List { name: "cbr0".into(), plugins }.old(&NetworkName::parse("cbr0").unwrap())
    }

    #[test]
    fn the_place_of_the_addresses_is_the_confs() {
        let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
        let kindnet = old(json!([
            { "type": "ptp", "ipam": { "type": "host-local", "dataDir": "/run/cni-ipam-state",
                                       "ranges": [[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00::/64" }]] } },
            portmap,
        ]));
        assert_eq!(kindnet.host_local, Some("/run/cni-ipam-state/cbr0".into()));
        assert_eq!(
            kindnet.subnets,
            ["10.244.1.0/24", "fd00::/64"].map(|it| it.parse::<IpNetwork>().unwrap())
        );
        assert_eq!((kindnet.plugin.as_str(), kindnet.behind), ("ptp", vec![portmap]));
        let flannel = old(json!([{ "type": "flannel", "delegate": { "isDefaultGateway": true } }]));
        assert_eq!(flannel.host_local, Some("/var/lib/cni/networks/cbr0".into()));
        let bridge =
            old(json!([{ "type": "bridge", "ipam": { "type": "host-local", "subnet": "10.88.0.0/16" } }]));
        assert_eq!(bridge.subnets, ["10.88.0.0/16".parse::<IpNetwork>().unwrap()]);
        for other in [
            json!([{ "type": "calico", "ipam": { "type": "calico-ipam" } }]),
            json!([{ "type": "cilium-cni" }]),
        ] {
            assert_eq!(old(other).host_local, None);
        }
    }
}
