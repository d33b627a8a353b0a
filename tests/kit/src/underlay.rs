//! Nodes joined by one layer 2 network, as in a rack.

use crate::netns::Namespace;
use crate::node::Node;

/// A switch, and nodes with one cable each to it: node `n` has 192.168.77.1n/24 and fd77::1n/64 on `up0`.
pub struct Underlay {
    /// The switch. A test may make it a router as well.
    pub switch: Namespace,
    /// The nodes.
    pub nodes: Vec<Node>,
}

impl Underlay {
    /// Makes the network with `count` nodes (below 10).
    pub fn new(count: usize) -> Self {
        let switch = Namespace::new("switch");
        switch.ip_batch("link add br0 type bridge\nlink set br0 up\n");
        let nodes = (0..count).map(|n| Node::bare(&format!("node{n}"))).collect();
        let underlay = Self { switch, nodes };
        for (n, node) in underlay.nodes.iter().enumerate() {
            plug(node.namespace(), &underlay.switch, &format!("port{n}"));
            underlay.switch.ip(&format!("link set port{n} master br0"));
            underlay.give_addresses(n);
        }
        underlay
    }

    /// Gives node `n` the addresses that it has from the start.
    pub fn give_addresses(&self, n: usize) {
        self.nodes[n].namespace().ip_batch(&format!(
            "address replace 192.168.77.1{n}/24 dev up0\n\
             address replace fd77::1{n}/64 dev up0 nodad\n"
        ));
    }
}

/// Lays a cable: `up0` on the node's side, `port` on the other.
pub fn plug(node: &Namespace, switch: &Namespace, port: &str) {
    switch.ip_batch(&format!(
        "link add {port} type veth peer name up0 netns {}\nlink set {port} up\n",
        node.name()
    ));
    node.ip("link set up0 up");
}
