//! The plugin `loopback`, which runtimes want beside ferrule: brought where nobody has it, and no more.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::process::Signal;

use super::node::AgentNode;
use kit::binaries::{FERRULE, REFERENCE_PLUGINS};
use kit::call::Call;
use kit::pod::Pod;

/// Whether `lo` of a new pod is up after the node's `loopback` was executed as containerd does it.
fn brings_lo_up(node: &AgentNode) -> bool {
    let pod = Pod::new("pod");
    let conf = serde_json::json!({ "cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback" });
    let call =
        Call::of(node.path("bin/loopback")).env("CNI_COMMAND", "ADD").env("CNI_PATH", node.path("bin"));
    call.on(&node.namespace)
        .container(pod.container())
        .netns(pod.namespace().path())
        .ifname("lo")
        .conf(&conf)
        .run()
        .result();
    kit::packets::answers_ping(pod.namespace(), "127.0.0.1")
}

#[test]
fn it_is_installed_where_there_is_none_and_goes_with_ferrule() {
    let mut node = AgentNode::new("loopback");
    node.start_ready();
    assert!(node.has("bin/loopback") && brings_lo_up(&node));
    node.end(Signal::TERM);
    // Of an earlier version, as an upgrade finds it.
    let mut older = fs::read(&*FERRULE).unwrap();
    older.extend(b"an older version");
    fs::remove_file(node.path("bin/loopback")).unwrap();
    fs::write(node.path("bin/loopback"), &older).unwrap();
    node.start_ready();
    assert_eq!(fs::read(node.path("bin/loopback")).unwrap(), fs::read(&*FERRULE).unwrap());
    let mode = fs::metadata(node.path("bin/loopback")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert!(brings_lo_up(&node));
    node.end(Signal::TERM);
    assert!(node.uninstall(&[]));
    assert_eq!(kit::files::names_in(&node.path("bin")), [""; 0]);
}

/// A distribution's own, a script, a link to k3s' one program for all plugins, and one that leads nowhere.
#[test]
fn anothers_is_left_alone() {
    let reference = Path::new(REFERENCE_PLUGINS).join("loopback");
    let copy = |place: &Path| fs::copy(&reference, place).map(drop).unwrap();
    let link = |place: &Path| symlink(&reference, place).unwrap();
    let dangling = |place: &Path| symlink("/nonexistent/loopback", place).unwrap();
    let script = |place: &Path| fs::write(place, "#!/bin/sh\n").unwrap();
    let directory = |place: &Path| fs::create_dir(place).unwrap();
    let ways: [&dyn Fn(&Path); 5] = [&copy, &link, &dangling, &script, &directory];
    for (number, put) in ways.iter().enumerate() {
        let mut node = AgentNode::new("theirs");
        let place = node.path("bin/loopback");
        fs::create_dir(node.path("bin")).unwrap();
        put(&place);
        let before = fs::symlink_metadata(&place).unwrap().modified().unwrap();
        node.start_ready();
        node.end(Signal::TERM);
        assert!(node.uninstall(&[]), "{number}");
        assert_eq!(fs::symlink_metadata(&place).unwrap().modified().unwrap(), before, "{number}");
        assert_eq!(kit::files::names_in(&node.path("bin")), ["loopback"]);
    }
}

/// On a read-only /opt/cni/bin that has ferrule and no loopback, the node is Ready all the same: not every runtime wants
/// one.
#[test]
fn where_it_cannot_be_installed_the_conf_is() {
    let mut node = AgentNode::new("readonly");
    fs::create_dir(node.path("bin")).unwrap();
    fs::copy(&*FERRULE, node.path("bin/ferrule")).unwrap();
    let bin = node.path("bin").display().to_string();
    node.through = ["unshare", "--mount", "--", "sh", "-c"].map(str::to_owned).to_vec();
    node.through.push(format!("mount --bind -o ro {bin} {bin} && exec \"$0\" \"$@\""));
    node.start_ready();
    assert!(node.has("net.d/10-ferrule.conflist") && !node.has("bin/loopback"));
    let log = node.log();
    assert!(log.contains("loopback") && log.contains("read-only"), "{log}");
    assert_eq!(node.metric("ferrule_errors_total{step=\"loopback\"}").map(|count| count >= 1.0), Some(true));
}
