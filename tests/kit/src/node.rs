//! A node: a namespace to run the plugin in, and a place for the plugin's store. One that is to have a world around
//! it has an uplink there:
//!
//! ```text
//!   node                                       outside
//!   uplink  198.18.0.2/24 ------------------ 198.18.0.1/24   down
//!           fd00:18::2/64                    fd00:18::1/64
//!   default via outside                      10.88.0.0/16, fd00:88::/32 via node
//! ```

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::binaries::REFERENCE_PLUGINS;
use crate::call::Call;
use crate::files::Scratch;
use crate::netns::Namespace;
use crate::pod::Pod;
use crate::store::Store;

/// The node's own addresses.
pub const NODE_V4: &str = "198.18.0.2";
/// The node's own addresses.
pub const NODE_V6: &str = "fd00:18::2";
/// Addresses of the host on the other side of the uplink.
pub const OUTSIDE_V4: &str = "198.18.0.1";
/// Addresses of the host on the other side of the uplink.
pub const OUTSIDE_V6: &str = "fd00:18::1";
/// The pod subnets of [`Node::conf`].
pub const SUBNET_V4: &str = "10.88.0.0/24";
/// The pod subnets of [`Node::conf`].
pub const SUBNET_V6: &str = "fd00:88::/64";

/// A node and the world around it, gone with the guard.
pub struct Node {
    namespace: Namespace,
    outside: Option<Namespace>,
    scratch: Scratch,
}

impl Node {
    /// One without any link but `lo`. `role` shows in its name.
    pub fn bare(role: &str) -> Self {
        let namespace = Namespace::new(role);
        namespace.ip("link set lo up");
        Self { namespace, outside: None, scratch: Scratch::new(role) }
    }

    /// One with an uplink that has Ethernet's MTU.
    pub fn new() -> Self {
        Self::with_mtu(1500)
    }

    /// One with an uplink that has that MTU.
    pub fn with_mtu(mtu: u32) -> Self {
        let (node, outside) = (Self::bare("node"), Namespace::new("outside"));
        node.namespace.ip_batch(&format!(
            "link add uplink mtu {mtu} type veth peer name down mtu {mtu} netns {}\n\
             address add {NODE_V4}/24 dev uplink\n\
             address add {NODE_V6}/64 dev uplink nodad\n\
             link set uplink up\n",
            outside.name()
        ));
        outside.ip_batch(&format!(
            "link set lo up\n\
             address add {OUTSIDE_V4}/24 dev down\n\
             address add {OUTSIDE_V6}/64 dev down nodad\n\
             link set dev down up\n\
             route add 10.88.0.0/16 via {NODE_V4}\n\
             route add fd00:88::/32 via {NODE_V6}\n"
        ));
        node.namespace.ip_batch(&format!(
            "route add default via {OUTSIDE_V4}\n\
             route add default via {OUTSIDE_V6}\n"
        ));
        Self { outside: Some(outside), ..node }
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The namespace of the host at the other end of the uplink.
    pub fn outside(&self) -> &Namespace {
        self.outside.as_ref().expect("a node with an uplink")
    }

    /// A directory for whatever a test needs.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// `dataDir` of [`Node::conf`]; not made yet.
    pub fn data_dir(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// The store of [`Node::conf`]'s network.
    pub fn store(&self) -> Store {
        Store::of(&self.data_dir(), "podnet")
    }

    /// A conf for both families, to be changed as the test likes.
    pub fn conf(&self) -> Value {
        self.conf_with(json!([[{ "subnet": SUBNET_V4 }], [{ "subnet": SUBNET_V6 }]]))
    }

    /// The same with other ranges.
    pub fn conf_with(&self, ranges: Value) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "name": "podnet",
            "type": "ferrule",
            "ipam": {
                "type": "ferrule",
                "ranges": ranges,
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                "dataDir": self.data_dir(),
            },
        })
    }

    /// A call of ferrule on this node, of no container yet.
    pub fn call(&self, command: &str, conf: &Value) -> Call {
        Call::ferrule(command).on(&self.namespace).env("CNI_PATH", REFERENCE_PLUGINS).conf(conf)
    }

    /// A call of ferrule for `pod`, complete.
    pub fn call_for(&self, command: &str, pod: &Pod, conf: &Value) -> Call {
        self.call(command, conf).attachment(pod.container(), pod.namespace().path())
    }

    /// ADD, which must succeed; its result.
    pub fn add(&self, pod: &Pod, conf: &Value) -> Value {
        self.try_add(pod, conf).result()
    }

    /// ADD.
    pub fn try_add(&self, pod: &Pod, conf: &Value) -> Answer {
        self.call_for("ADD", pod, conf).run()
    }

    /// DEL, which must succeed and say nothing.
    pub fn del(&self, pod: &Pod, conf: &Value) {
        let answer = self.call_for("DEL", pod, conf).run();
        answer.success();
        assert_eq!(answer.document(), None);
    }

    /// CHECK against the result of an ADD.
    pub fn check(&self, pod: &Pod, conf: &Value, result: &Value) -> Answer {
        let mut conf = conf.clone();
        conf["prevResult"] = result.clone();
        self.call_for("CHECK", pod, &conf).run()
    }

    /// GC that leaves only the attachments of `valid` standing.
    pub fn gc(&self, conf: &Value, valid: &[&Pod]) -> Answer {
        let mut conf = conf.clone();
        let attachment = |pod: &&Pod| json!({ "containerID": pod.container(), "ifname": "eth0" });
        conf["cni.dev/valid-attachments"] = valid.iter().map(attachment).collect();
        self.call("GC", &conf).run()
    }

    /// STATUS.
    pub fn status(&self, conf: &Value) -> Answer {
        self.call("STATUS", conf).run()
    }

    /// The record of a pod, as it lies in the store.
    pub fn record_path(&self, pod: &Pod) -> PathBuf {
        self.store().record_path(pod.container())
    }

    /// The addresses that the store holds, sorted.
    pub fn held_addresses(&self) -> Vec<String> {
        self.store().held()
    }

    /// The attachments that the store knows, sorted.
    pub fn known_attachments(&self) -> Vec<String> {
        self.store().known()
    }

    /// The names of the host ends of pods' pairs.
    pub fn host_links(&self) -> Vec<String> {
        let links = crate::ip::links(&self.namespace);
        let names = links.iter().filter_map(|link| link["ifname"].as_str());
        names.filter(|name| !["lo", "uplink"].contains(name)).map(str::to_owned).collect()
    }

    /// Waits until only `count` pods have a link here. A namespace that nobody has any more is taken down by the
    /// kernel in its own time, and the node's end of its pair goes with it.
    pub fn wait_for_host_links(&self, count: usize) {
        let condition = format!("[ $(ip -o link show | grep -c ' alias ferrule:') = {count} ]");
        self.namespace.wait_until(&condition);
    }

    /// Waits until a link is gone that the kernel takes down in its own time.
    pub fn wait_for_end(&self, link: &str) {
        self.namespace.wait_until(&format!("! ip link show dev {link} >/dev/null 2>&1"));
    }

    /// Panics unless nothing of any pod remains on the node: no link, no route to a pod, no record, no
    /// address, nothing in the nftables table, nothing half-done.
    pub fn expect_nothing_left(&self) {
        assert_eq!(self.host_links(), Vec::<String>::new(), "links");
        assert_eq!(crate::nft::pod_elements(&self.namespace), Vec::<String>::new(), "nftables");
        self.store().expect_empty();
    }
}
