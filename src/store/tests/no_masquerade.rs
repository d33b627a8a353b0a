//! The list of where pods keep their source address.

use ipnetwork::IpNetwork;

use super::{PATIENCE, Scratch, network, this_boot};
use crate::store::Store;

fn parse(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn what_is_remembered_is_read_again_and_nonsense_is_nothing() {
    let scratch = Scratch::new();
    let store = scratch.store();
    assert_eq!(store.no_masquerade().unwrap(), []);
    let remember = |list: &[&str]| {
        store.lock(&this_boot(), PATIENCE).unwrap().remember_no_masquerade(&parse(list)).unwrap();
    };
    remember(&["10.244.0.0/16", "fd00::/56"]);
    remember(&["10.244.0.0/16"]);
    assert_eq!(store.no_masquerade().unwrap(), parse(&["10.244.0.0/16"]));
    let file = scratch.root().join("no_masquerade");
    std::fs::write(&file, "10.0.0.0/8\nnonsense\n\n10.0.0.0/99\nfd00::/8").unwrap();
    assert_eq!(store.no_masquerade().unwrap(), parse(&["10.0.0.0/8", "fd00::/8"]));
    std::fs::write(scratch.root().join("tmp/no_masquerade"), "left by one that died").unwrap();
    remember(&["10.1.0.0/16"]);
    assert_eq!(store.no_masquerade().unwrap(), parse(&["10.1.0.0/16"]));
    assert!(!scratch.root().join("tmp/no_masquerade").exists());
}

#[test]
fn a_list_that_is_no_file_is_damage_and_is_replaced() {
    let scratch = Scratch::new();
    let (store, file) = (scratch.store(), scratch.root().join("no_masquerade"));
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert!(store.no_masquerade().is_err());
    store.lock(&this_boot(), PATIENCE).unwrap().remember_no_masquerade(&parse(&["10.0.0.0/8"])).unwrap();
    assert_eq!(store.no_masquerade().unwrap(), parse(&["10.0.0.0/8"]));
    assert!(file.symlink_metadata().unwrap().is_file());
}

#[test]
fn the_networks_of_a_data_directory_are_its_directories() {
    let scratch = Scratch::new();
    assert_eq!(Store::networks(&scratch.data_dir()).unwrap(), []);
    scratch.store();
    assert_eq!(Store::networks(&scratch.data_dir()).unwrap(), [network()]);
}
