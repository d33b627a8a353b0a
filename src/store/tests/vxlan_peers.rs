//! Who may send to the node's end of a tunnel.

use super::{PATIENCE, Scratch, this_boot};
use crate::desired::nftables::vxlan::VxlanPeers;

#[test]
fn the_list_is_read_again_until_removed_and_junk_is_none() {
    let scratch = Scratch::new();
    let (store, file) = (scratch.store(), scratch.root().join("vxlan_peers"));
    assert_eq!(store.vxlan_peers().unwrap(), None);
    let tunnel =
        |ends: &[&str]| VxlanPeers::new(8472, ends.iter().map(|text| text.parse().unwrap()).collect());
    let remember = |tunnel: Option<&VxlanPeers>| {
        store.lock(&this_boot(), PATIENCE).unwrap().remember_vxlan_peers(tunnel).unwrap();
    };
    let two = tunnel(&["192.0.2.10", "fd00::10"]);
    remember(None);
    std::fs::write(scratch.root().join("tmp/vxlan_peers"), "left by one that died").unwrap();
    remember(Some(&two));
    remember(Some(&two));
    assert_eq!(store.vxlan_peers().unwrap(), Some(two));
    assert!(!scratch.root().join("tmp/vxlan_peers").exists());
    remember(Some(&tunnel(&[])));
    assert_eq!(store.vxlan_peers().unwrap(), Some(tunnel(&[])), "nobody may");
    remember(None);
    assert_eq!(store.vxlan_peers().unwrap(), None);
    std::fs::write(&file, "8472\n192.0.2.10\nnonsense\n10.0.0.0/8\n").unwrap();
    assert_eq!(store.vxlan_peers().unwrap(), Some(tunnel(&["192.0.2.10"])));
    std::fs::write(&file, "nonsense\n192.0.2.10\n").unwrap();
    assert_eq!(store.vxlan_peers().unwrap(), None);
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert_eq!(store.vxlan_peers().unwrap(), None, "no link is followed");
}
