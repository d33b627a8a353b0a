//! Where the pods of a network keep their source address, remembered beside their records: what a flushed nftables
//! table had, any later ADD can then make again, for every network of the node and whoever knew it (the conf, or the
//! agent).
//!
//! `<dataDir>/<network>/inside`: prefixes, one a line. Replaced whole, so a reader never sees half a list. A line that
//! is no prefix counts as none: the worst that follows is an address that is masqueraded without need, until the one
//! who knows better looks.

use std::path::Path;

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
use crate::store::error::StoreError;
use crate::store::guard::StoreGuard;
use crate::store::handle::Store;

const NAME: &str = "inside";
const NEW: &str = "inside.new";

/// Largest list that is read: 5,000 nodes of two families are 400 KiB.
const MAX: u64 = 4 << 20;

impl Store {
    /// The prefixes remembered last; none if there never were any.
    ///
    /// # Errors
    /// When the file cannot be read, or is none.
    pub fn inside(&self) -> Result<Vec<IpNetwork>, StoreError> {
        let Some(content) = self.root.read_at_most(NAME, MAX)? else { return Ok(Vec::new()) };
        let text = String::from_utf8_lossy(&content.bytes);
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
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
    pub fn remember_inside(&mut self, inside: &[IpNetwork]) -> Result<(), StoreError> {
        let root = &self.store.root;
        let text: String = inside.iter().map(|network| format!("{network}\n")).collect();
        match root.read_at_most(NAME, MAX) {
            Ok(Some(known)) if known.bytes == text.as_bytes() => return Ok(()),
            // The rename below replaces a file or a link of any kind, but no directory.
            Err(StoreError::Damaged(_)) => drop(root.remove(NAME)?),
            _ => {}
        }
        // One that did not live to rename it left it.
        root.remove(NEW)?;
        let file = root.create(NEW)?;
        let written = root.write(NEW, &file, text.as_bytes());
        let replaced = written.and_then(|()| root.rename(NEW.as_ref(), root, NAME.as_ref()));
        if replaced.is_err() {
            // Best effort: the next one that has something to remember removes it as well.
            let _ = root.remove(NEW);
        }
        replaced.map(|_| ())
    }
}
