//! What ferrule writes is root's alone, whatever umask it was started with. What others have to read or execute, the
//! plugin and directories that it shares with them, nobody but root may write.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::json;

use kit::node::Node;
use kit::pod::Pod;

/// Sets the umask and becomes the program.
fn with_umask(umask: &str) -> [String; 3] {
    ["sh", "-c", &format!("umask {umask}; exec \"$0\" \"$@\"")].map(str::to_owned)
}

/// Every file below `root`, itself included: path below it, mode in octal. All must be root's.
fn modes(root: &Path) -> Vec<(String, String)> {
    fn visit(root: &Path, path: &Path, found: &mut Vec<(String, String)>) {
        let metadata = fs::symlink_metadata(path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{}", path.display());
        let name = path.strip_prefix(root).unwrap().display().to_string();
        found.push((name, format!("{:o}", metadata.permissions().mode() & 0o7777)));
        if metadata.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                visit(root, &entry.unwrap().path(), found);
            }
        }
    }
    let mut found = Vec::new();
    visit(root, root, &mut found);
    found.sort();
    found
}

/// The store of a network that did all that a store is written for, and directories of others above it.
#[test]
fn what_the_plugin_writes_is_its_own_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let (node, pod, gone) = (Node::new(), Pod::new("pod"), Pod::new("gone"));
        let base = node.scratch().path().join("var");
        let mut conf = node.conf();
        conf["ipam"]["dataDir"] = json!(base.join("lib/cni/ferrule"));
        conf["log"] = json!({ "file": node.scratch().path().join("ferrule.log"), "level": "debug" });
        conf["peers"] = json!([{"node": "node-b", "podCIDRs": ["10.88.1.0/24"], "nodeIPs": ["198.18.0.1"]}]);
        let call = |command, pod: &Pod| {
            let call = node.call_for(command, pod, &conf);
            call.through(with_umask(umask)).run().success()
        };
        call("ADD", &pod);
        call("ADD", &gone);
        call("DEL", &gone);
        let found = modes(&base);
        let below = |name: &str| name.starts_with("lib/cni/ferrule");
        for (name, mode) in &found {
            let is_directory = base.join(name).is_dir();
            let allowed: &[&str] = match (below(name), is_directory) {
                (true, true) => &["700"],
                (true, false) => &["600"],
                // Others' too: they may look in, and never write.
                (false, _) => &["755", "700"],
            };
            assert!(allowed.contains(&mode.as_str()), "umask {umask}: {name} has {mode}");
        }
        for name in ["lock", "boot", "sysctl_backup", "no_masquerade", "by-id", "by-ip", "cooldown"] {
            let name = format!("lib/cni/ferrule/podnet/{name}");
            assert!(found.iter().any(|it| it.0 == name), "the test sees too little: no {name}: {found:?}");
        }
        let log = modes(&node.scratch().path().join("ferrule.log"));
        assert_eq!(log, [(String::new(), "600".to_owned())], "umask {umask}");
    }
}

#[cfg(feature = "agent")]
#[test]
fn what_the_agent_writes_is_roots_whatever_the_umask() {
    use crate::agent::node::{AgentNode, other};
    for umask in ["000", "077"] {
        let mut node = AgentNode::new("umask");
        node.through = with_umask(umask).to_vec();
        // With all that is written: a tunnel, and drop-ins for who is there.
        node.words = ["--routing", "vxlan", "--drop-ins"].map(str::to_owned).to_vec();
        node.words.push(node.path("run").display().to_string());
        fs::create_dir_all(node.path("run/NetworkManager")).unwrap();
        node.api.put(other(11));
        node.start_ready();
        node.wait("its memory", || node.has("data/podnet/agent.json"));
        let expect = |path: &str, allowed: &[&str]| {
            let mode = fs::metadata(node.path(path)).unwrap().permissions().mode() & 0o7777;
            assert!(allowed.contains(&format!("{mode:o}").as_str()), "umask {umask}: {path} has {mode:o}");
        };
        for (name, mode) in modes(&node.path("data")) {
            let wanted = if node.path("data").join(&name).is_dir() { "700" } else { "600" };
            assert_eq!(mode, wanted, "umask {umask}: {name}");
        }
        expect("data/podnet/vxlan_peers", &["600"]);
        expect("net.d/10-ferrule.conflist", &["600"]);
        expect("bin/ferrule", &["755"]);
        expect("run/NetworkManager/conf.d/90-ferrule.conf", &["644"]);
        for directory in ["net.d", "bin", "run/NetworkManager/conf.d"] {
            expect(directory, &["755", "700"]);
        }
    }
}
