//! Which part ferrule plays in a network, and where it keeps that network's store.
//!
//! Read from the conf, never from the program's name, which a packager may change (docs/design.md):
//!
//! | `type`     | `ipam.type` | role                                                            |
//! |------------|-------------|-----------------------------------------------------------------|
//! | `ferrule`  | `ferrule`   | main plugin; addresses from ferrule's own store                 |
//! | `ferrule`  | another     | main plugin; addresses from that plugin, found on `CNI_PATH`    |
//! | `loopback` | any         | sets the pod's `lo` up, and nothing else ([`super::loopback`])  |
//! | another    | `ferrule`   | IPAM plugin for that main plugin                                |
//! | another    | another     | a mistake: ferrule has no part in such a network                |

use std::path::PathBuf;

use super::values::parse_absolute;
use crate::cni::json::Node;
use crate::cni::problem::quote;

/// The `type` by which a conf names ferrule.
pub const PLUGIN_TYPE: &str = "ferrule";

/// The `type` of the plugin that sets a pod's `lo` up.
pub const LOOPBACK_TYPE: &str = "loopback";

/// Where the store is unless the conf's `dataDir` says otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/cni/ferrule";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Makes interfaces.
    Main,
    /// Hands out addresses to another main plugin.
    Ipam,
}

/// The two `type` keys of a conf, as they were written.
#[derive(Clone, Copy)]
pub(super) struct Types<'v> {
    main: Option<&'v str>,
    ipam: Option<&'v str>,
}

impl<'v> Types<'v> {
    pub(super) fn read(root: &Node<'_, 'v>) -> Self {
        Self { main: root.text("type"), ipam: root.object("ipam").and_then(|ipam| ipam.text("type")) }
    }

    /// The role. A conf without `type` is read as if it had ours: it got to us, after all.
    pub(super) fn role(self) -> Role {
        if self.main.is_none_or(|main| main == PLUGIN_TYPE) { Role::Main } else { Role::Ipam }
    }

    /// The addresses are ferrule's to hand out.
    pub(super) fn has_own_ipam(self) -> bool {
        self.ipam == Some(PLUGIN_TYPE)
    }

    /// The IPAM plugin to be executed, if it is another than ferrule.
    pub(super) fn delegate(self) -> Option<&'v str> {
        self.ipam.filter(|ipam| self.role() == Role::Main && *ipam != PLUGIN_TYPE && is_file_name(ipam))
    }

    /// Notes what keeps the two from being a row of the table above.
    pub(super) fn refuse_nonsense(self, root: &Node<'_, '_>) {
        if root.member("type").is_none() {
            root.refuse_member("type", format!("is missing; write {PLUGIN_TYPE:?}"));
        }
        if self.role() == Role::Ipam && !self.has_own_ipam() {
            let main = quote(self.main.unwrap_or_default());
            let text = format!(
                "is {main} and ipam.type is not {PLUGIN_TYPE:?}; one of the two must be {PLUGIN_TYPE:?}"
            );
            return root.refuse_member("type", text);
        }
        let Some(ipam) = root.member("ipam") else {
            let example = r#"{"type": "ferrule", "ranges": [[{"subnet": "10.244.1.0/24"}]]}"#;
            return root
                .refuse_member("ipam", format!("is missing; say where addresses come from: {example}"));
        };
        match self.ipam {
            None if ipam.value().is_object() && ipam.member("type").is_none() => {
                ipam.refuse_member(
                    "type",
                    format!("is missing; write {PLUGIN_TYPE:?} or name another IPAM plugin"),
                );
            }
            Some(name) if !is_file_name(name) => {
                let text = format!(
                    "is {}, which cannot name a program; write the plugin's name without a path",
                    quote(name)
                );
                ipam.refuse_member("type", text);
            }
            _ => {}
        }
    }
}

/// A plugin is looked for in the directories of `CNI_PATH`, and nowhere else.
fn is_file_name(name: &str) -> bool {
    name.len() <= 255 && !name.contains('/') && name != "." && name != ".."
}

/// The directory of the store: `ipam.dataDir` where ipam is ours, and otherwise the `dataDir` beside it, as
/// then the one in ipam is the other plugin's.
pub(super) fn read_data_dir(root: &Node<'_, '_>, types: Types<'_>) -> PathBuf {
    let given = if types.has_own_ipam() {
        root.object("ipam").and_then(|ipam| ipam.parsed("dataDir", parse_absolute))
    } else {
        root.parsed("dataDir", parse_absolute)
    };
    given.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR))
}
