//! Whatever the agent replaces keeps its SELinux label. Labels are attributes of files, whether or not SELinux is there.

use std::fs;
use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use rustix::process::Signal;

use super::node::AgentNode;

const LABEL: &str = "security.selinux";

fn label(path: &Path) -> Option<String> {
    let mut text = [0_u8; 256];
    let length = lgetxattr(path, LABEL, &mut text).ok()?;
    Some(String::from_utf8_lossy(&text[..length]).into_owned())
}

#[test]
fn what_is_installed_again_keeps_its_label() {
    let mut node = AgentNode::new("labels");
    node.start_ready();
    let files = [
        ("bin/ferrule", "system_u:object_r:container_runtime_exec_t:s0\0"),
        ("net.d/10-ferrule.conflist", "system_u:object_r:etc_t:s0\0"),
        ("data/podnet/agent.json", "system_u:object_r:container_var_lib_t:s0\0"),
    ];
    node.wait("the state file", || node.has("data/podnet/agent.json"));
    node.end(Signal::TERM);
    for (name, wanted) in files {
        lsetxattr(node.path(name), LABEL, wanted.as_bytes(), XattrFlags::empty()).unwrap();
        fs::write(node.path(name), "of an earlier version").unwrap();
    }
    node.start_ready();
    node.wait("the state file", || fs::read_to_string(node.path(files[2].0)).unwrap().contains("10.244"));
    for (name, wanted) in files {
        assert_ne!(fs::read(node.path(name)).unwrap(), b"of an earlier version", "{name}");
        assert_eq!(label(&node.path(name)).as_deref(), Some(wanted), "{name}");
    }
}

/// The image's own label is of no use on the node.
#[test]
fn what_is_installed_first_has_the_label_of_its_place() {
    let mut node = AgentNode::new("first-label");
    node.start_ready();
    let beside = node.path("bin/beside");
    fs::write(&beside, "").unwrap();
    assert_eq!(label(&node.path("bin/ferrule")), label(&beside));
}
