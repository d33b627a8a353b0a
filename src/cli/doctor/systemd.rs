//! Whether systemd-networkd removes routes that it did not make (cilium#18706, kops#17438).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Where its configuration is, the strongest first (networkd.conf(5)).
const DIRECTORIES: [&str; 4] = ["etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd"];

/// It writes this file as long as it runs.
const STATE: &str = "run/systemd/netif/state";

/// Whether `root` is the node's file system, and not that of a container: every distribution says what it is.
pub fn is_a_nodes(root: &Path) -> bool {
    ["etc/os-release", "usr/lib/os-release"].iter().any(|path| root.join(path).exists())
}

/// Whether systemd-networkd runs, and nobody told it to leave the routes of others alone. `root` is `/`.
pub fn takes_foreign_routes_away(root: &Path) -> bool {
    root.join(STATE).exists() && manages_foreign_routes(root)
}

/// `ManageForeignRoutes`, as networkd reads it: the strongest main file, then all drop-ins by name, the last word
/// counts. It is on unless switched off.
fn manages_foreign_routes(root: &Path) -> bool {
    let main = DIRECTORIES.iter().map(|directory| root.join(directory).join("networkd.conf"));
    let mut files: Vec<PathBuf> = main.into_iter().find(|path| path.is_file()).into_iter().collect();
    let mut drop_ins: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in DIRECTORIES {
        let Ok(entries) = fs::read_dir(root.join(directory).join("networkd.conf.d")) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(|it| it == "conf")) {
                drop_ins.entry(name.to_owned()).or_insert(path);
            }
        }
    }
    files.extend(drop_ins.into_values());
    let texts = files.iter().filter_map(|path| fs::read_to_string(path).ok());
    texts.rev().find_map(|text| read_setting(&text)).unwrap_or(true)
}

/// The setting in one file, if it says.
fn read_setting(text: &str) -> Option<bool> {
    let mut is_in_network = false;
    let mut setting = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            is_in_network = line == "[Network]";
        } else if let Some((key, value)) = line.split_once('=')
            && is_in_network
            && key.trim() == "ManageForeignRoutes"
        {
            match value.trim().to_ascii_lowercase().as_str() {
                "1" | "yes" | "y" | "true" | "t" | "on" => setting = Some(true),
                "0" | "no" | "n" | "false" | "f" | "off" => setting = Some(false),
                _ => {}
            }
        }
    }
    setting
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root directory with these files, judged and removed.
    fn judge(test: &str, files: &[(&str, &str)]) -> bool {
        let root = std::env::temp_dir().join(format!("ferrule-networkd-{}-{test}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let verdict = takes_foreign_routes_away(&root);
        let _ = fs::remove_dir_all(&root);
        verdict
    }

    const RUNS: (&str, &str) = (STATE, "");
    const NO: &str = "# mine\n[Network]\nManageForeignRoutes = no\n";
    const YES: &str = "[Network]\nManageForeignRoutes=yes\n";

    #[test]
    fn it_does_unless_it_is_told_not_to() {
        assert!(judge("default", &[RUNS]));
        assert!(!judge("not-there", &[("etc/systemd/networkd.conf", YES)]));
        assert!(!judge("main", &[RUNS, ("etc/systemd/networkd.conf", NO)]));
        assert!(!judge("vendor", &[RUNS, ("usr/lib/systemd/networkd.conf", NO)]));
        let commented = "[Network]\n#ManageForeignRoutes=no\n[DHCPv4]\nManageForeignRoutes=no\n";
        assert!(judge("elsewhere", &[RUNS, ("etc/systemd/networkd.conf", commented)]));
    }

    #[test]
    fn the_agents_image_is_no_nodes_file_system() {
        let root = std::env::temp_dir().join(format!("ferrule-root-{}", std::process::id()));
        fs::create_dir_all(root.join("etc")).unwrap();
        assert!(!is_a_nodes(&root));
        fs::write(root.join("etc/os-release"), "ID=debian\n").unwrap();
        assert!(is_a_nodes(&root));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn the_last_word_counts_and_etc_is_stronger() {
        let drop_in = "etc/systemd/networkd.conf.d/50-ferrule.conf";
        assert!(!judge("drop-in", &[RUNS, ("etc/systemd/networkd.conf", YES), (drop_in, NO)]));
        let later = "usr/lib/systemd/networkd.conf.d/60-vendor.conf";
        assert!(judge("later", &[RUNS, (drop_in, NO), (later, YES)]));
        let masked = "usr/lib/systemd/networkd.conf.d/50-ferrule.conf";
        assert!(!judge("masked", &[RUNS, (drop_in, NO), (masked, YES)]));
        let ignored = "etc/systemd/networkd.conf.d/50-ferrule.conf.bak";
        assert!(judge("ignored", &[RUNS, (ignored, NO)]));
    }
}
