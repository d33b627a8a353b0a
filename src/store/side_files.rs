//! What the store remembers of a network beside its records:
//!
//! | file             | lines                                        | for                                            |
//! |------------------|----------------------------------------------|------------------------------------------------|
//! | `no_masquerade`  | prefixes                                     | pods keep their source address towards them    |
//! | `node_addresses` | `link NAME` and `address ADDRESS`            | hostPorts answer on the node's addresses       |
//! | `vxlan_peers`    | the UDP port, then addresses of nodes        | who may send to the node's end of the overlay  |
//! | `sysctl_backup`  | the boot id, then `path before after`        | what `uninstall` puts back                     |
//!
//! Whoever finds the nftables table flushed builds it anew from the first three, for every network of the node, although
//! only the conf or the agent knew them. A line that cannot be read counts as none: whoever knows better writes it again.

use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
use crate::desired::nftables::node_addresses::NodeAddresses;
use crate::desired::nftables::vxlan::VxlanPeers;
use crate::store::boot::BootId;
use crate::store::error::{Damaged, StoreError};
use crate::store::guard::StoreGuard;
use crate::store::handle::Store;
use crate::store::layout::Dir;

const NO_MASQUERADE: &str = "no_masquerade";
const NODE_ADDRESSES: &str = "node_addresses";
const VXLAN_PEERS: &str = "vxlan_peers";
const SYSCTL_BACKUP: &str = "sysctl_backup";

/// Longest name that a link may have (`IFNAMSIZ` less the final NUL).
const LINK_NAME_MAX: usize = 15;

/// A sysctl of the node that the network needs, and what it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysctlBackup {
    /// Components below /proc/sys.
    pub path: Vec<String>,
    /// What it was when it was looked at for the first time in this boot; perhaps what it had to be already.
    pub before: String,
    /// What it was set to.
    pub after: String,
}

impl Store {
    /// The prefixes towards which pods keep their source address; none if there never were any.
    ///
    /// # Errors
    /// When the file cannot be read, or is no regular file.
    pub fn no_masquerade(&self) -> Result<Vec<IpNetwork>, StoreError> {
        let Some(content) = self.root.read(NO_MASQUERADE)? else { return Ok(Vec::new()) };
        let text = String::from_utf8_lossy(&content.bytes);
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// The links by which the node is reached, and its addresses; none where nobody asked for a hostPort yet, and where
    /// the file is no such list.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn node_addresses(&self) -> Result<NodeAddresses, StoreError> {
        let content = match self.root.read(NODE_ADDRESSES) {
            Err(StoreError::Damaged(_)) => None,
            content => content?,
        };
        let Some(content) = content else { return Ok(NodeAddresses::default()) };
        let text = String::from_utf8_lossy(&content.bytes);
        let (mut links, mut addresses) = (Vec::new(), Vec::new());
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("link", name)) if (1..=LINK_NAME_MAX).contains(&name.len()) => {
                    links.push(name.to_owned())
                }
                Some(("address", address)) => addresses.extend(address.parse::<IpAddr>().ok()),
                _ => {}
            }
        }
        Ok(NodeAddresses::new(links, addresses))
    }

    /// The overlay's port and the nodes at its other ends. `None` if the network has no overlay, and where the file is
    /// no such list.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn vxlan_peers(&self) -> Result<Option<VxlanPeers>, StoreError> {
        let content = match self.root.read(VXLAN_PEERS) {
            Err(StoreError::Damaged(_)) => None,
            content => content?,
        };
        let Some(content) = content else { return Ok(None) };
        let text = String::from_utf8_lossy(&content.bytes);
        let mut lines = text.lines();
        let port = lines.next().and_then(|line| line.parse().ok());
        let ends: Vec<IpAddr> = lines.filter_map(|line| line.parse().ok()).collect();
        Ok(port.map(|port| VxlanPeers::new(port, ends)))
    }

    /// The sysctls looked at in this boot, in that order. A sysctl does not outlive a boot, and neither does its backup.
    ///
    /// # Errors
    /// When the file cannot be read, or is no regular file.
    pub fn sysctl_backup(&self, boot: &BootId) -> Result<Vec<SysctlBackup>, StoreError> {
        let Some(content) = self.root.read(SYSCTL_BACKUP)? else { return Ok(Vec::new()) };
        let text = String::from_utf8_lossy(&content.bytes);
        let mut lines = text.lines();
        if lines.next() != Some(boot.as_str()) {
            return Ok(Vec::new());
        }
        Ok(lines.filter_map(SysctlBackup::read).collect())
    }

    /// The networks that have a store below `data_dir`, in alphabetical order.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn networks(data_dir: &Path) -> Result<Vec<NetworkName>, StoreError> {
        let entries = match std::fs::read_dir(data_dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| StoreError::io("list", data_dir, error))?,
        };
        let mut networks = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| StoreError::io("list", data_dir, error))?;
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name();
            networks.extend(name.to_str().and_then(|name| NetworkName::parse(name).ok()));
        }
        networks.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        Ok(networks)
    }
}

impl StoreGuard<'_> {
    /// Remembers the prefixes, unless they are remembered already.
    ///
    /// # Errors
    /// When the file cannot be written; then the old one stands.
    pub fn remember_no_masquerade(&mut self, prefixes: &[IpNetwork]) -> Result<(), StoreError> {
        let text: String = prefixes.iter().map(|prefix| format!("{prefix}\n")).collect();
        replace_list(&self.tmp, &self.store.root, NO_MASQUERADE, &text)
    }

    /// Remembers the node's addresses, unless they are remembered already.
    ///
    /// # Errors
    /// When the file cannot be written; then the old one stands.
    pub fn remember_node_addresses(&mut self, node: &NodeAddresses) -> Result<(), StoreError> {
        let mut text: String = node.links().iter().map(|name| format!("link {name}\n")).collect();
        text.extend(node.addresses().iter().map(|address| format!("address {address}\n")));
        replace_list(&self.tmp, &self.store.root, NODE_ADDRESSES, &text)
    }

    /// Remembers the overlay's other ends, or that there is no overlay, unless that is remembered already.
    ///
    /// # Errors
    /// When the file cannot be written; then the old one stands.
    pub fn remember_vxlan_peers(&mut self, tunnel: Option<&VxlanPeers>) -> Result<(), StoreError> {
        let root = &self.store.root;
        let Some(tunnel) = tunnel else { return root.remove(VXLAN_PEERS).map(|_| ()) };
        let ends: String = tunnel.peers().iter().map(|end| format!("{end}\n")).collect();
        replace_list(&self.tmp, root, VXLAN_PEERS, &format!("{}\n{ends}", tunnel.port()))
    }

    /// Remembers what sysctls were. Call it before they are changed: whoever dies in between leaves a backup that is
    /// still true. Of a sysctl that is known in this boot the first value stays.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn back_up_sysctls(&mut self, changes: &[SysctlBackup]) -> Result<(), StoreError> {
        // What cannot be read is written anew.
        let mut known = self.store.sysctl_backup(&self.boot).unwrap_or_default();
        for change in changes {
            match known.iter_mut().find(|it| it.path == change.path) {
                Some(it) => it.after.clone_from(&change.after),
                None => known.push(change.clone()),
            }
        }
        let mut text = format!("{}\n", self.boot);
        known.iter().for_each(|it| text.push_str(&it.write()));
        let root = &self.store.root;
        match root.read_to_replace(SYSCTL_BACKUP)? {
            Some(old) => root.overwrite(SYSCTL_BACKUP, &old, text.as_bytes()),
            None => Err(Damaged::new(root.path_of(SYSCTL_BACKUP), "it is a directory").into()),
        }
    }
}

impl SysctlBackup {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (path, before, after) = (words.next()?, words.next()?, words.next()?);
        let path: Vec<String> = path.split('/').map(str::to_owned).collect();
        (words.next().is_none()).then(|| Self { path, before: before.to_owned(), after: after.to_owned() })
    }

    fn write(&self) -> String {
        format!("{} {} {}\n", self.path.join("/"), self.before, self.after)
    }
}

/// Writes a list that others read without the lock: to a new file, which then gets the name, so that they never see
/// half of one. Does nothing where the file says the same already.
///
/// The new file is in `tmp`: where its writer dies before the rename, the next holder of the lock removes it.
pub(super) fn replace_list(tmp: &Dir, root: &Dir, name: &str, text: &str) -> Result<(), StoreError> {
    match root.read(name) {
        Ok(Some(known)) if known.bytes == text.as_bytes() => return Ok(()),
        // The rename below replaces a file or a link of any kind, but no directory.
        Err(StoreError::Damaged(_)) => drop(root.remove(name)?),
        _ => {}
    }
    let file = tmp.create(name)?;
    let written = tmp.write(name, &file, text.as_bytes());
    let replaced = written.and_then(|()| tmp.rename(name.as_ref(), root, name.as_ref()));
    if replaced.is_err() {
        // Best effort: the next holder of the lock removes it as well.
        let _ = tmp.remove(name);
    }
    replaced.map(|_| ())
}
