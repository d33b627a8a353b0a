//! The state file: what the agent last knew. After a reboot, or without the API server, it applies that at once, and
//! corrects it when the API server answers.
//!
//! One file, `<dataDir>/<network>/agent.json`, written as a whole and renamed. Only the node of the same name uses it:
//! the disk may have been copied to another machine.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::agent::cluster::desired_state::{Desired, OwnNode};
use crate::agent::install::files::{self, InstallError};
use crate::cni::ids::NetworkName;
use crate::config::peer::Peer;

/// The format written here.
const VERSION: u32 = 1;

/// Where it is.
pub fn path(data_dir: &Path, network: &NetworkName) -> PathBuf {
    data_dir.join(network.as_str()).join("agent.json")
}

/// What is remembered for the node `node`, and the podCIDRs of it with whose routes the API server was not heard; `None`
/// if there is nothing of use.
///
/// # Errors
/// Why a file that is there cannot be used, in words.
pub fn load(path: &Path, node: &str) -> Result<Option<(Desired, Vec<IpNetwork>)>, String> {
    let text = match files::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let file: File = serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    if file.version != VERSION {
        return Err(format!("{}: it has version {}, not {VERSION}", path.display(), file.version));
    }
    if file.node != node {
        return Err(format!("{}: it is node {}'s, not {node}'s", path.display(), file.node));
    }
    let on_trial =
        read_networks(file.on_trial.clone()).map_err(|what| format!("{}: {what}", path.display()))?;
    file.into_desired()
        .map(|desired| Some((desired, on_trial)))
        .map_err(|what| format!("{}: {what}", path.display()))
}

/// Remembers. Synced: it is for after a power loss.
///
/// # Errors
/// When it cannot be written.
pub fn save(
    path: &Path,
    node: &str,
    desired: &Desired,
    on_trial: &BTreeSet<IpNetwork>,
) -> Result<(), InstallError> {
    // Strings and numbers: serialising them cannot fail.
    let json = serde_json::to_vec(&File::of(node, desired, on_trial)).unwrap_or_default();
    files::replace(path, &json, 0o600)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    version: u32,
    node: String,
    pod_cidrs: Vec<String>,
    node_ips: Vec<IpAddr>,
    peers: Vec<WrittenPeer>,
    no_masquerade: Vec<String>,
    #[serde(default)]
    on_trial: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenPeer {
    node: String,
    pod_cidrs: Vec<String>,
    node_ips: Vec<IpAddr>,
}

impl File {
    fn of(node: &str, desired: &Desired, on_trial: &BTreeSet<IpNetwork>) -> Self {
        let texts = |networks: &[IpNetwork]| networks.iter().map(ToString::to_string).collect();
        let peer = |peer: &Peer| WrittenPeer {
            node: peer.node.clone(),
            pod_cidrs: texts(&peer.pod_cidrs),
            node_ips: peer.node_ips.clone(),
        };
        Self {
            version: VERSION,
            node: node.to_owned(),
            pod_cidrs: texts(&desired.own.pod_cidrs),
            node_ips: desired.own.node_ips.clone(),
            peers: desired.peers.iter().map(peer).collect(),
            no_masquerade: texts(&desired.no_masquerade),
            on_trial: on_trial.iter().map(ToString::to_string).collect(),
        }
    }

    fn into_desired(self) -> Result<Desired, String> {
        let own = OwnNode { pod_cidrs: read_networks(self.pod_cidrs)?, node_ips: self.node_ips };
        if own.pod_cidrs.is_empty() {
            return Err("it has no podCIDR".to_owned());
        }
        let mut peers = Vec::with_capacity(self.peers.len());
        for peer in self.peers {
            let pod_cidrs = read_networks(peer.pod_cidrs)?;
            peers.push(Peer { node: peer.node, pod_cidrs, node_ips: peer.node_ips });
        }
        peers.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(Desired { own, peers, no_masquerade: read_networks(self.no_masquerade)? })
    }
}

fn read_networks(texts: Vec<String>) -> Result<Vec<IpNetwork>, String> {
    texts.into_iter().map(|text| text.parse().map_err(|_| format!("{text:?} is no subnet"))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_saved_is_loaded_by_the_same_node_only() {
        let directory = std::env::temp_dir().join(format!("ferruled-persisted-{}", std::process::id()));
        let path = path(&directory, &NetworkName::parse("podnet").unwrap());
        let desired = Desired {
            own: OwnNode {
                pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
                node_ips: vec!["172.18.0.2".parse().unwrap()],
            },
            peers: vec![Peer {
                node: "b".into(),
                pod_cidrs: vec!["10.244.2.0/24".parse().unwrap()],
                node_ips: vec!["172.18.0.3".parse().unwrap()],
            }],
            no_masquerade: vec!["10.244.2.0/24".parse().unwrap(), "172.18.0.3/32".parse().unwrap()],
        };
        assert_eq!(load(&path, "a"), Ok(None));
        let on_trial = desired.peers[0].pod_cidrs.clone();
        save(&path, "a", &desired, &on_trial.iter().copied().collect()).unwrap();
        assert_eq!(load(&path, "a"), Ok(Some((desired.clone(), on_trial.clone()))));
        assert!(load(&path, "b").unwrap_err().ends_with("it is node a's, not b's"));
        // The same as version 0.1 wrote it.
        fs::write(&path, include_str!("../../../tests/formats/0.1/agent.json")).unwrap();
        assert_eq!(load(&path, "a"), Ok(Some((desired, on_trial))));
        fs::write(&path, "{\"version\": 1").unwrap();
        assert!(load(&path, "a").is_err());
        // What nobody ever writes to is not waited for, and what a link leads to is not read.
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        assert!(load(&path, "a").unwrap_err().ends_with("it is no regular file"));
        fs::rename(&path, path.with_extension("fifo")).unwrap();
        std::os::unix::fs::symlink(path.with_extension("fifo"), &path).unwrap();
        assert!(load(&path, "a").unwrap_err().contains("symbolic link"));
        fs::remove_dir_all(&directory).unwrap();
    }
}
