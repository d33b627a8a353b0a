//! A data directory on a mount that answers nothing, as a network file system whose server is gone. Here it is FUSE
//! without a server: whoever looks at it sleeps in the kernel until it is killed or the mount is aborted.
//!
//! No program can answer while the kernel does not let it. What can be promised: the command holds nothing that others
//! wait for, it dies of the SIGKILL with which a runtime ends a call that takes too long, and afterwards all works.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use kit::call::Running;
use kit::mounts::Mounts;
use kit::node::Node;
use kit::pod::Pod;

/// A mount on the data directory that blocks as long as its guard is there.
fn block(node: &Node) -> Mounts {
    Mounts::new(&format!(
        "exec 3<>/dev/fuse
         mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none {}",
        node.data_dir().display()
    ))
}

/// Waits until the process sleeps in the kernel in a call on a file; it must come to that.
fn wait_until_it_sleeps_in_fuse(running: &mut Running) {
    let stack = format!("/proc/{}/stack", running.id());
    let begun = std::time::Instant::now();
    while !fs::read_to_string(&stack).unwrap_or_default().contains("fuse") {
        assert!(running.is_running(), "it ended");
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not get there");
        std::thread::yield_now();
    }
}

#[test]
fn a_command_on_a_blocked_mount_can_be_killed() {
    let node = Node::new();
    let (stuck, other) = (Pod::new("stuck"), Pod::new("other"));
    let conf: Value = node.conf();
    // Another network, whose store answers.
    let mut elsewhere = node.conf_with(serde_json::json!([[{ "subnet": "10.99.0.0/24" }]]));
    elsewhere["name"] = serde_json::json!("elsewhere");
    elsewhere["ipam"]["dataDir"] = serde_json::json!(node.scratch().path().join("elsewhere"));
    fs::create_dir(node.data_dir()).unwrap();
    let mounts = block(&node);
    let mut running: Vec<Running> = ["ADD", "DEL", "STATUS", "GC", "CHECK"]
        .iter()
        .map(|command| {
            let mut conf = conf.clone();
            conf["cni.dev/valid-attachments"] = serde_json::json!([]);
            conf["prevResult"] = serde_json::json!({ "cniVersion": "1.1.0", "ips": [] });
            node.call_for(command, &stuck, &conf).through(mounts.wrapper()).spawn()
        })
        .collect();
    running.iter_mut().for_each(wait_until_it_sleeps_in_fuse);
    node.add(&other, &elsewhere);
    node.del(&other, &elsewhere);
    for mut running in running {
        running.kill();
        running.wait_for_any_end();
    }
    drop(mounts);
    // The server is there again.
    node.add(&stuck, &conf);
    node.del(&stuck, &conf);
    node.expect_nothing_left();
}

/// A mount that is aborted (`umount --force`, a server that says no at last) answers with an error, and so do we.
#[test]
fn a_command_answers_as_soon_as_its_mount_does() {
    let node = Node::new();
    let pod = Pod::new("pod");
    fs::create_dir(node.data_dir()).unwrap();
    let mounts = block(&node);
    let conf = node.conf();
    let mut running: Vec<Running> = ["ADD", "DEL", "STATUS"]
        .iter()
        .map(|command| node.call_for(command, &pod, &conf).through(mounts.wrapper()).spawn())
        .collect();
    running.iter_mut().for_each(wait_until_it_sleeps_in_fuse);
    drop(mounts);
    for running in running {
        let answer = running.wait();
        assert_eq!(answer.status.code(), Some(1), "{answer:?}");
        let code = answer.document().expect("an error object")["code"].as_u64();
        assert!(matches!(code, Some(5 | 50)), "{answer:?}");
    }
    node.expect_nothing_left();
}
