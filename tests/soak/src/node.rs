//! The node: this process's network namespace with an underlay, a network of pods, and the conf of both.

use crate::Failure;
use crate::runtime::Pod;
use crate::system::{NETNS, ip_batch};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The network's name.
pub const NETWORK: &str = "soak";

/// The node's addresses.
pub const NODE_IPS: [&str; 2] = ["192.168.0.1", "fd00:1::1"];

/// Pods that the network has room for: 10.244.0.0/24 less network, gateway and broadcast. IPv6 has no end.
pub const ROOM: usize = 253;

/// A node and the one network on it.
pub struct Node {
    /// The conf of a conflist's only plugin, in the form in which it is executed.
    pub conf: Value,
    /// Where the network's store is.
    pub store: PathBuf,
}

impl Node {
    /// Makes this process's network namespace a node. What it needs of files is below `work`.
    pub fn set_up(work: &Path) -> Result<Self, Failure> {
        prepare_underlay()?;
        let data_dir = work.join("data");
        let peers: Vec<Value> = (1..=4)
            .map(|n| {
                json!({
                    "node": format!("node-{n}"),
                    "podCIDRs": [format!("10.244.{n}.0/24"), format!("fd00:244:0:{n}::/64")],
                    "nodeIPs": [format!("192.168.0.{}", n + 1), format!("fd00:1::{}", n + 1)],
                })
            })
            .collect();
        let conf = json!({
            "cniVersion": "1.1.0",
            "name": NETWORK,
            "type": "ferrule",
            "ipMasq": true,
            "nodeIPs": NODE_IPS,
            "peers": peers,
            "ipam": {
                "type": "ferrule",
                "ranges": [[{ "subnet": "10.244.0.0/24" }], [{ "subnet": "fd00:244::/64" }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                "dataDir": data_dir,
            },
        });
        Ok(Self { conf, store: data_dir.join(NETWORK) })
    }

    /// The conf as the runtime passes it on for this pod.
    pub fn conf_for(&self, pod: &Pod) -> Value {
        let mut conf = self.conf.clone();
        conf["runtimeConfig"] = pod.wishes.clone();
        if !pod.result.is_null() {
            conf["prevResult"] = pod.result.clone();
        }
        conf
    }
}

/// An underlay with an address of each family, in the network namespace of the calling thread.
pub fn prepare_underlay() -> Result<(), Failure> {
    ip_batch(&format!(
        "link set lo up\nlink add up0 type veth peer up1\nlink set up1 up\nlink set up0 up\n\
         address add {}/16 dev up0\naddress add {}/64 dev up0 nodad\n",
        NODE_IPS[0], NODE_IPS[1]
    ))
}

/// Gives this process's mount namespace a place of its own for network namespaces.
pub fn hide_namespaces() -> Result<(), Failure> {
    fs::create_dir_all(NETNS)?;
    let flags = rustix::mount::MountFlags::empty();
    Ok(rustix::mount::mount("tmpfs", NETNS, "tmpfs", flags, None)?)
}
