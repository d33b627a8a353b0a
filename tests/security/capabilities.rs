//! Without CAP_NET_ADMIN no command of the protocol does what it should; each says so at once, and says what is missing.

use serde_json::{Value, json};

use kit::node::Node;
use kit::pod::Pod;

/// Words before a program that is to run as root without that capability.
const WITHOUT_NET_ADMIN: [&str; 3] = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];

fn said(node: &Node, command: &str, pod: &Pod, conf: &Value, code: u64) {
    let said = node.call_for(command, pod, conf).through(WITHOUT_NET_ADMIN).run().complaint(code);
    assert!(said.contains("CAP_NET_ADMIN"), "{command}: {said}");
    assert!(!said.contains("did not finish"), "{command} waited: {said}");
}

#[test]
fn each_command_says_that_cap_net_admin_is_missing() {
    let (node, pod, new) = (Node::new(), Pod::new("pod"), Pod::new("new"));
    let mut conf = node.conf();
    let result = node.add(&pod, &conf);
    said(&node, "STATUS", &pod, &conf, 50);
    said(&node, "ADD", &new, &conf, 103);
    said(&node, "DEL", &pod, &conf, 103);
    let mut with_result = conf.clone();
    with_result["prevResult"] = result;
    said(&node, "CHECK", &pod, &with_result, 103);
    let with_it = conf.clone();
    conf["cni.dev/valid-attachments"] = json!([]);
    said(&node, "GC", &pod, &conf, 103);
    // Nothing of the pod was released, and nothing of the other stays.
    assert!(node.record_path(&pod).exists());
    node.del(&new, &with_it);
    node.del(&pod, &with_it);
    node.expect_nothing_left();
}
