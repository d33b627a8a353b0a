//! Drop-ins that keep systemd-networkd and NetworkManager off ferrule's routes and links (`--drop-ins`).
//!
//! networkd removes routes and rules that it does not know when it starts, which it does with each upgrade
//! (aws#1600, cilium#18706, systemd#29716). NetworkManager may configure a pod's link. The agent repairs that
//! within milliseconds; with the drop-ins it does not happen. They are below /run, so a reboot removes them, and both
//! programs read them when they start.

use std::path::{Path, PathBuf};

use crate::agent::install::files;
use crate::agent::install::files::{InstallError, Installed};

/// A drop-in of one program.
struct DropIn {
    /// Below the node's /run: exists while the program is in use.
    presence: &'static str,
    /// Below the node's /run.
    path: &'static str,
    content: &'static str,
}

const ALL: [DropIn; 2] = [
    DropIn {
        presence: "systemd/netif",
        path: "systemd/networkd.conf.d/90-ferrule.conf",
        content: "# Written by ferruled: routes to pods and to other nodes are not networkd's to remove.\n\
                  [Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n",
    },
    DropIn {
        presence: "NetworkManager",
        path: "NetworkManager/conf.d/90-ferrule.conf",
        content: "# Written by ferruled: the nodes' ends of pods' links, and the tunnel.\n[keyfile]\n\
                  unmanaged-devices+=interface-name:veth*;interface-name:ifb*;interface-name:ferrule-vxlan\n",
    },
];

/// Writes the drop-ins of the programs that are in use; `run` is the node's /run. Returns those that were written now:
/// none if all of them exist.
///
/// # Errors
/// Names the file and the reason.
pub fn write(run: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let mut written = Vec::new();
    for it in ALL.iter().filter(|it| run.join(it.presence).is_dir()) {
        let path = run.join(it.path);
        if files::install(&path, it.content.as_bytes(), 0o644)? == Installed::Written {
            written.push(path);
        }
    }
    Ok(written)
}

/// Removes them. Not there is a success.
///
/// # Errors
/// Names the file and the reason.
pub fn remove(run: &Path) -> Result<(), InstallError> {
    ALL.iter().try_for_each(|it| files::remove(&run.join(it.path)).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_programs_that_are_in_use_get_one_and_all_of_them_go() {
        let run = std::env::temp_dir().join(format!("ferrule-drop-ins-{}", std::process::id()));
        fs::create_dir_all(run.join("systemd/netif")).unwrap();
        let networkd = run.join("systemd/networkd.conf.d/90-ferrule.conf");
        assert_eq!(write(&run).unwrap(), std::slice::from_ref(&networkd));
        assert!(fs::read_to_string(&networkd).unwrap().contains("\nManageForeignRoutes=no\n"));
        assert!(!run.join("NetworkManager").exists());
        assert!(write(&run).unwrap().is_empty(), "they exist");
        fs::create_dir(run.join("NetworkManager")).unwrap();
        assert_eq!(write(&run).unwrap(), [run.join("NetworkManager/conf.d/90-ferrule.conf")]);
        remove(&run).unwrap();
        remove(&run).unwrap();
        assert!(!networkd.exists());
        fs::remove_dir_all(&run).unwrap();
    }
}
