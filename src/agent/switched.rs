//! Which forwarding the agent switched on, so that it can be switched off when ferrule goes: `switched-on` in the
//! network's directory, a sysctl a line after the boot in which that was. An earlier boot's says nothing: at each boot
//! the node's own settings come first.

use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::install;
use crate::cni::ids::NetworkName;
use crate::ipam::{BootId, current_boot_id};
use crate::kernel::sysctl;

fn path(data_dir: &Path, network: &NetworkName) -> PathBuf {
    data_dir.join(network.as_str()).join("switched-on")
}

/// What was switched on in this boot, as `net.ipv4.ip_forward`.
pub fn read(data_dir: &Path, network: &NetworkName) -> Vec<String> {
    let text = std::fs::read_to_string(path(data_dir, network)).unwrap_or_default();
    let mut lines = text.lines();
    let boot = current_boot_id().ok();
    if lines.next() != boot.as_ref().map(BootId::as_str) {
        return Vec::new();
    }
    lines.map(str::to_owned).collect()
}

/// Remembers what was switched on now, with what was before.
pub fn remember(data_dir: &Path, network: &NetworkName, boot: &BootId, switched_on: &[String]) {
    let mut all = read(data_dir, network);
    let new: Vec<&String> = switched_on.iter().filter(|it| !all.contains(it)).collect();
    if new.is_empty() {
        return;
    }
    all.extend(new.into_iter().cloned().collect::<Vec<_>>());
    let text = format!("{boot}\n{}\n", all.join("\n"));
    if let Err(reason) = install::replace(&path(data_dir, network), text.as_bytes(), 0o600) {
        warn!(%reason, "what was switched on cannot be remembered for when ferrule is uninstalled");
    }
}

/// Switches it off again.
pub fn switch_off(switched: &[String]) {
    for name in switched {
        let key: Vec<&str> = name.split('.').collect();
        match sysctl::write_if_different(&key, "0") {
            Ok(_) => info!(sysctl = name, "forwarding switched off, as it was before ferrule"),
            Err(reason) => warn!(%reason, "forwarding stays switched on"),
        }
    }
}
