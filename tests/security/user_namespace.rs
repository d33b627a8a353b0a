//! What CAP_NET_ADMIN in a pod is worth: with the node's user namespace it is root on the node's network, under every plugin
//! that joins pod and node by a pair of links. With one of its own (`hostUsers: false`) it ends at the pod.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use kit::ip;
use kit::node::Node;
use kit::pod::Pod;

/// A sandbox with user namespace and network namespace of its own, and root there.
struct Unprivileged(Child);

impl Unprivileged {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c", "echo ready; exec cat"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let sandbox = Self(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        sandbox
    }

    fn netns(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Words before a program that is to run there.
    fn wrapper(&self) -> Vec<String> {
        let target = format!("--target={}", self.0.id());
        ["nsenter", &target, "--user", "--net", "--preserve-credentials"].map(str::to_owned).to_vec()
    }
}

impl Drop for Unprivileged {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes a link on the node's uplink, through the id that the pod's own link names for its other end. Whether it got it.
fn takes_a_link_of_the_node(wrapper: &[String], uplink: u32) -> bool {
    let ip = |words: &str| {
        let mut command = Command::new(&wrapper[0]);
        command.args(&wrapper[1..]).arg("ip").args(words.split(' ')).output().unwrap()
    };
    let shown = String::from_utf8(ip("-d link show eth0").stdout).unwrap();
    // By its number, or the name that this machine has for it.
    assert!(shown.contains(" link-netns"), "{shown}");
    ip(&format!("link add stolen link if{uplink} link-netnsid 0 type macvlan"));
    ip("link show stolen").status.success()
}

#[test]
fn cap_net_admin_ends_at_the_pod_with_a_user_namespace() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = node.conf();
    node.add(&pod, &conf);
    let index = ip::index(node.namespace(), "uplink");
    // No capability but this one, which a container gets by `capabilities.add: [NET_ADMIN]`.
    let namespace = format!("--net={}", pod.namespace().path().display());
    let words =
        ["nsenter", &namespace, "setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin"];
    let privileged = words.map(str::to_owned);
    assert!(
        takes_a_link_of_the_node(&privileged, index),
        "as under every plugin; see docs/security-model.md"
    );

    let sandbox = Unprivileged::new();
    let call = |command: &str| node.call(command, &conf).attachment("unprivileged", sandbox.netns());
    let result = call("ADD").run().result();
    let wrapper = sandbox.wrapper();
    assert!(!takes_a_link_of_the_node(&wrapper, index));
    // In its own namespace it is root.
    let mut own = Command::new(&wrapper[0]);
    own.args(&wrapper[1..]).args(["ip", "link", "set", "eth0", "mtu", "1400"]);
    assert!(own.status().unwrap().success());
    assert_eq!(result["interfaces"][1]["name"], "eth0");
    call("DEL").run().success();
}
