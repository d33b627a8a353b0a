//! Which addresses are the node's.

use super::{PATIENCE, Scratch, this_boot};
use crate::desired::nftables::node_addresses::NodeAddresses;

#[test]
fn links_and_addresses_are_read_again_and_junk_is_none() {
    let scratch = Scratch::new();
    let (store, file) = (scratch.store(), scratch.root().join("node_addresses"));
    assert_eq!(store.node_addresses().unwrap(), NodeAddresses::default());
    let addresses = ["192.0.2.10", "fd00::10"].map(|text| text.parse().unwrap());
    let node = NodeAddresses::new(vec!["eth0".into(), "br-lan".into()], addresses.to_vec());
    store.lock(&this_boot(), PATIENCE).unwrap().remember_node_addresses(&node).unwrap();
    assert_eq!(store.node_addresses().unwrap(), node);
    let junk =
        "link \nlink sixteen-or-more-bytes\naddress 192.0.2.10/24\naddress fd00::10\nnonsense\n\nlink eth0\n";
    std::fs::write(&file, junk).unwrap();
    let readable = NodeAddresses::new(vec!["eth0".into()], vec![addresses[1]]);
    assert_eq!(store.node_addresses().unwrap(), readable);
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert_eq!(store.node_addresses().unwrap(), NodeAddresses::default(), "no link is followed");
}
