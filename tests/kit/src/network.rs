//! A network as its runtime sees it: one conf, on one node, with the store that it fills.
//!
//! Not folded into [`Node`] and [`Pod`](crate::pod::Pod), where tests of the datapath hand the conf of their choice to
//! each command and never mind how a pod is called: tests of the protocol and of the IPAM role change one thing of
//! one conf, or one variable of one call, and write the container's id out because it is what they are about.
//! `CNI_PATH` is unset until a test sets it.

use serde_json::{Value, json};

use crate::call::Call;
use crate::netns::Namespace;
use crate::node::Node;
use crate::store::Store;

/// The network `net` on a node of its own.
pub struct Network {
    /// The node, without an uplink.
    pub node: Node,
    /// The conf. A test changes what it is about.
    pub conf: Value,
}

impl Network {
    /// ferrule as main plugin with its own addresses, from one range of each family.
    pub fn new(role: &str) -> Self {
        let node = Node::bare(role);
        let conf = json!({
            "cniVersion": "1.0.0", "name": "net", "type": "ferrule",
            "ipam": {
                "type": "ferrule", "dataDir": node.data_dir(),
                "ranges": [[{"subnet": "10.77.1.0/24"}], [{"subnet": "fd00:77:1::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        });
        Self { node, conf }
    }

    /// The same network where ferrule hands out addresses to another main plugin.
    pub fn for_ipam(role: &str) -> Self {
        let mut network = Self::new(role);
        network.conf["type"] = json!("ptp");
        network
    }

    /// ferrule for `command` on this network's node, without an attachment.
    pub fn call(&self, command: &str) -> Call {
        Call::ferrule(command).on(self.node.namespace()).conf(&self.conf)
    }

    /// ferrule for `command` on the attachment of `container`, whose namespace is `pod`.
    pub fn call_for(&self, command: &str, container: &str, pod: &Namespace) -> Call {
        self.call(command).attachment(container, pod.path())
    }

    /// The network's store.
    pub fn store(&self) -> Store {
        Store::of(&self.node.data_dir(), "net")
    }

    /// The addresses that the store holds, sorted.
    pub fn held(&self) -> Vec<String> {
        self.store().held()
    }

    /// The attachments that the store knows, sorted.
    pub fn known(&self) -> Vec<String> {
        self.store().known()
    }

    /// The links of the node that are not `lo`.
    pub fn links(&self) -> Vec<String> {
        self.node.host_links()
    }

    /// Fails unless nothing is held, known, under way or plumbed.
    pub fn assert_nothing_remains(&self) {
        self.store().expect_empty();
        assert_eq!(self.links(), Vec::<String>::new(), "links");
    }
}
