//! What the node was like before.

use super::{PATIENCE, Scratch, boot, this_boot};
use crate::store::SysctlBackup;

fn changed(path: &str, before: &str, after: &str) -> SysctlBackup {
    SysctlBackup {
        path: path.split('/').map(str::to_owned).collect(),
        before: before.into(),
        after: after.into(),
    }
}

#[test]
fn the_first_value_is_remembered_as_long_as_the_boot_lasts() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let forward = |before| changed("net/ipv4/ip_forward", before, "1");
    let uplink = changed("net/ipv6/conf/eth0.100/accept_ra", "0", "2");
    assert_eq!(store.sysctl_backup(&this_boot()).unwrap(), []);
    for changes in [vec![forward("0")], vec![forward("2"), uplink.clone()]] {
        store.lock(&this_boot(), PATIENCE).unwrap().back_up_sysctls(&changes).unwrap();
    }
    assert_eq!(store.sysctl_backup(&this_boot()).unwrap(), [forward("0"), uplink]);
    let later = boot("later");
    assert_eq!(store.sysctl_backup(&later).unwrap(), []);
    store.lock(&later, PATIENCE).unwrap().back_up_sysctls(&[forward("0")]).unwrap();
    assert_eq!(store.sysctl_backup(&later).unwrap(), [forward("0")]);
    std::fs::write(scratch.root().join("sysctl_backup"), "later\nnonsense\na b c d\nnet/x 0 1\n").unwrap();
    assert_eq!(store.sysctl_backup(&later).unwrap(), [changed("net/x", "0", "1")]);
}
