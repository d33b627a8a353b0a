//! Reboots: nothing of an earlier boot needs anybody's help, and nothing of this one is swept away.

use super::*;

#[test]
fn after_a_reboot_every_address_is_free() {
    let scratch = Scratch::new();
    let store = scratch.store();
    for container in ["a", "b", "c", "d", "e"] {
        add(&store, container, &dual_stack());
    }
    // Power was lost: some records are torn.
    std::fs::write(scratch.root().join("by-id/b@eth0"), b"").unwrap();
    std::fs::write(scratch.root().join("by-id/c@eth0"), b"{\"version\": 1, \"netw").unwrap();
    std::fs::write(scratch.root().join("tmp/x@eth0"), b"{").unwrap();
    let mut locked = store.lock(&boot("next-boot"), PATIENCE).unwrap();
    assert_eq!(audit(&scratch.root()), BTreeMap::new());
    assert_eq!(inodes(&scratch.root().join("cooldown")), BTreeMap::new());
    for container in ["a", "b", "c", "d", "e"] {
        locked.allocate(claim(container), &dual_stack(), &[]).unwrap();
    }
    drop(locked);
    assert_eq!(audit(&scratch.root()).len(), 5);
}

#[test]
fn a_lost_boot_file_frees_no_address_that_is_in_use() {
    for content in [None, Some("not this boot\n")] {
        let scratch = Scratch::new();
        let store = scratch.store();
        add(&store, "a", &dual_stack());
        add(&store, "b", &dual_stack());
        let before = audit(&scratch.root());
        match content {
            None => std::fs::remove_file(scratch.root().join("boot")).unwrap(),
            Some(content) => std::fs::write(scratch.root().join("boot"), content).unwrap(),
        }
        drop(store.lock(&this_boot(), PATIENCE).unwrap());
        assert_eq!(audit(&scratch.root()), before);
    }
}

#[test]
fn the_boot_id_of_this_machine_can_be_read() {
    let id = super::super::current_boot_id().unwrap();
    assert_eq!(id.as_str().len(), 36);
    for text in ["", "a b", "a\n", "../x", &"a".repeat(65)] {
        assert_eq!(BootId::parse(text), None, "{text:?}");
    }
}
