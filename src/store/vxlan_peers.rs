//! Who may send to the node's end of a tunnel, remembered beside the records for the same reason as
//! [`inside`](super::inside): a table that was flushed must not be made again without it.
//!
//! `<dataDir>/<network>/tunnel`: the port on the first line, then addresses of nodes, one a line. Replaced whole.

use std::net::IpAddr;

use crate::desired::nftables::vxlan::VxlanPeers;
use crate::store::error::StoreError;
use crate::store::guard::StoreGuard;
use crate::store::handle::Store;

const NAME: &str = "tunnel";
const NEW: &str = "tunnel.new";

/// Largest list that is read: 5,000 nodes of two families are 300 KiB.
const MAX: u64 = 4 << 20;

impl Store {
    /// The tunnel remembered last. `None` if there is none, and where what stands there is no such list: who knows it
    /// writes it again.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn tunnel(&self) -> Result<Option<VxlanPeers>, StoreError> {
        let content = match self.root.read_at_most(NAME, MAX) {
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
}

impl StoreGuard<'_> {
    /// Remembers the tunnel, or that there is none, unless that is remembered already.
    ///
    /// # Errors
    /// When the file cannot be written; then the old one stands.
    pub fn remember_tunnel(&mut self, tunnel: Option<&VxlanPeers>) -> Result<(), StoreError> {
        let root = &self.store.root;
        let Some(tunnel) = tunnel else { return root.remove(NAME).map(|_| ()) };
        let mut text = format!("{}\n", tunnel.port());
        tunnel.peers().iter().for_each(|end| text.push_str(&format!("{end}\n")));
        let known = root.read_at_most(NAME, MAX);
        if known.is_ok_and(|known| known.is_some_and(|known| known.bytes == text.as_bytes())) {
            return Ok(());
        }
        // One that did not live to rename it left it.
        root.remove(NEW)?;
        let file = root.create(NEW)?;
        root.write(NEW, &file, text.as_bytes())?;
        root.rename(NEW.as_ref(), root, NAME.as_ref())?;
        Ok(())
    }
}
