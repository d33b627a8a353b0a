//! What an earlier version has left on a node, used by this one, as docs/versions.md promises. `tests/formats/` has the
//! files that each version wrote.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kit::files::names_in;
use kit::nft;
use kit::node::{Node, OUTSIDE_V4};
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::traffic::{Server, reply, tcp};
use serde_json::{Value, json};

use crate::policy::binding::{call, led};
use crate::policy::scene::{denied, uid};

fn formats() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/formats"))
}

/// Puts records and policies of that version into the node's store, with the facts of this node and of a pod that runs
/// here in place of those of the node where they were written. So their checksums go; unit tests read the files whole.
fn lay_down(version: &str, node: &Node, pod: &Pod, result: &Value) {
    let (from, to) = (formats().join(version), node.store().path().to_owned());
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let changed = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut document: Value = serde_json::from_slice(&fs::read(from.join(name)).unwrap()).unwrap();
        document["bootId"] = json!(boot.trim_end());
        document.as_object_mut().unwrap().remove("sum");
        change(&mut document);
        document.to_string()
    };
    let netns = pod.namespace().path();
    let file = fs::metadata(netns).unwrap();
    let record = changed("record", &|record| {
        record["container"] = json!(pod.container());
        record["netns"] = json!({ "path": netns, "dev": file.dev(), "ino": file.ino() });
        record["hostLink"] = json!(host_link_of(result));
    });
    for directory in ["by-id", "by-ip"].map(|name| to.join(name)) {
        fs::remove_dir_all(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
    }
    fs::write(node.record_path(pod), &record).unwrap();
    for address in addresses_of(result) {
        fs::hard_link(node.record_path(pod), to.join("by-ip").join(address)).unwrap();
    }
    fs::write(to.join("policy"), changed("policy", &|_| ())).unwrap();
    fs::write(to.join("boot"), boot).unwrap();
}

/// A pod that the earlier version has added runs on; the node lost its nftables tables. This version's first ADD makes
/// both again from what is on the disk.
#[test]
fn a_store_of_each_earlier_version_is_used_as_it_is() {
    let versions = names_in(formats());
    assert!(!versions.is_empty());
    for version in versions {
        let (node, old, new) = (Node::new(), Pod::new("old"), Pod::new("new"));
        let mut conf = node.conf();
        conf["ipMasq"] = json!(true);
        conf["runtimeConfig"] = json!({
            "mac": "0a:58:0a:f4:01:05",
            "portMappings": [{ "hostPort": 30080, "containerPort": 80, "protocol": "tcp" }],
            "bandwidth": { "ingressRate": 100_000_000, "ingressBurst": 8_000_000 },
        });
        let result = call(&node, "ADD", &old, &conf, "a").run().result();
        lay_down(&version, &node, &old, &result);
        nft::run(node.namespace(), "flush ruleset").unwrap();

        let other = call(&node, "ADD", &new, &node.conf(), "b").run().result();
        let mut given = [addresses_of(&result), addresses_of(&other)].concat();
        given.sort();
        assert_eq!(node.held_addresses(), given, "{version}");
        node.check(&old, &conf, &result).success();
        let chains: Vec<String> = led(node.namespace()).into_values().collect();
        assert!(chains.contains(&format!("in-{}", uid("a"))), "{version}: {chains:?}");

        let _servers = [80, 81].map(|port| Server::tcp(old.namespace(), port, "old"));
        let address = &addresses_of(&result)[0];
        assert_eq!(tcp(node.outside(), kit::node::NODE_V4, 30_080), reply(OUTSIDE_V4, "old"), "{version}");
        assert!(denied(node.outside(), address, 81), "{version}: its policies allow port 80 alone");

        call(&node, "DEL", &old, &conf, "a").run().success();
        call(&node, "DEL", &new, &node.conf(), "b").run().success();
        node.expect_nothing_left();
    }
}
