//! A store on overlayfs, as in a node that is a container: what was there before is in a layer below, and has other
//! inodes as soon as it is changed. Links between files of that layer come apart.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use kit::mounts::Mounts;
use kit::network::Network;
use kit::pod::addresses_of;
use kit::store::Store;

/// As many as the range has addresses.
const ALL: usize = 5;

struct Layered {
    network: Network,
    mounts: Mounts,
}

impl Layered {
    /// A store with three attachments in the lower layer.
    fn new(options: &str) -> (Self, Vec<Value>) {
        let mut network = Network::for_ipam("layered");
        network.conf["cniVersion"] = json!("1.1.0");
        network.conf["ipam"]["ranges"] =
            json!([[{ "subnet": "10.77.1.0/29" }], [{ "subnet": "fd00:77:1::/64" }]]);
        let netns = network.node.namespace().path().to_owned();
        let add = |container| network.call("ADD").attachment(container, &netns).run().result();
        let given = ["a", "b", "c"].map(add).into();
        let (data, upper) = (network.node.data_dir(), network.node.scratch().path().join("upper"));
        fs::create_dir(&upper).unwrap();
        // The upper layer is in memory: the one below may be on overlayfs itself.
        let mounts = Mounts::new(&format!(
            "mount -t tmpfs none {upper}; mkdir {upper}/dir {upper}/work
             mount -t overlay -o lowerdir={data},upperdir={upper}/dir,workdir={upper}/work{options} none {data}",
            upper = upper.display(),
            data = data.display(),
        ));
        (Self { network, mounts }, given)
    }

    fn run(&self, command: &str, container: &str) -> kit::answer::Answer {
        let call = self.network.call(command).through(self.mounts.wrapper());
        call.attachment(container, self.network.node.namespace().path()).run()
    }

    fn store(&self) -> Store {
        Store::of(&self.mounts.see(&self.network.node.data_dir()), "net")
    }
}

#[test]
fn no_address_is_given_twice_and_none_is_lost() {
    for options in ["", ",index=off,xino=off", ",index=on"] {
        let (layered, given) = Layered::new(options);
        let mut used: BTreeSet<String> = given.iter().flat_map(addresses_of).collect();
        for container in ["d", "e"] {
            for address in addresses_of(&layered.run("ADD", container).result()) {
                assert!(used.insert(address.clone()), "{options}: {address} is another's");
            }
        }
        layered.run("ADD", "f").failure(100);
        layered.run("STATUS", "f").failure(50);
        for container in ["a", "b", "c", "d"] {
            layered.run("DEL", container).success();
        }
        for number in 1..ALL {
            layered.run("ADD", &format!("again-{number}")).success();
        }
        assert_eq!(layered.store().known().len(), ALL, "{options}");
        for name in layered.store().known() {
            layered.run("DEL", name.trim_end_matches("@eth0")).success();
        }
        layered.store().expect_empty();
    }
}
