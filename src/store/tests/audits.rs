//! An audit finds what a repair would, and takes nothing that is under way for a fault.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::Audit;
use super::*;

#[test]
fn it_finds_what_a_repair_would_and_changes_nothing() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let sets = dual_stack();
    for name in ["a", "b", "c"] {
        store.lock(&this_boot(), PATIENCE).unwrap().allocate(claim(name), &sets, &[]).unwrap();
    }
    assert_eq!(store.audit().unwrap(), Audit::default());
    let address = |name: &str, at: usize| store.find(&key(name)).unwrap().unwrap().addresses[at];
    let (lost, foreign, unlisted) = (address("a", 0), address("b", 0), address("c", 1));
    let by_ip = scratch.root().join("by-ip");
    fs::remove_file(by_ip.join(lost.to_string())).unwrap();
    fs::rename(by_ip.join(address("c", 0).to_string()), by_ip.join(foreign.to_string())).unwrap();
    fs::remove_file(scratch.root().join("by-id/c@eth0")).unwrap();
    fs::write(scratch.root().join("by-id/notes.txt"), "mine").unwrap();
    let found = store.audit().unwrap();
    let mut unheld = found.unheld.clone();
    unheld.sort();
    assert_eq!(unheld, [(lost, key("a")), (foreign, key("b"))]);
    assert_eq!(found.contested, []);
    assert_eq!(found.orphans, [foreign]);
    assert_eq!(found.unlisted, [(unlisted, key("c"))]);
    assert_eq!(found.strangers, [scratch.root().join("by-id/notes.txt")]);
    assert_eq!(store.audit().unwrap(), found);
    store.lock(&this_boot(), PATIENCE).unwrap().repair().unwrap();
    let after = store.audit().unwrap();
    assert_eq!(after, Audit { strangers: found.strangers, ..Audit::default() });
}

#[test]
fn what_others_are_in_the_middle_of_is_no_fault() {
    let scratch = Scratch::in_memory();
    let sets = dual_stack();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let store = scratch.store();
            for n in 0..300 {
                let name = format!("c{}", n % 7);
                let mut locked = store.lock(&this_boot(), PATIENCE).unwrap();
                locked.allocate(claim(&name), &sets, &[]).unwrap();
                drop(locked);
                store.lock(&this_boot(), PATIENCE).unwrap().release(&key(&name)).unwrap();
            }
            is_over.store(true, Ordering::Release);
        });
        let store = scratch.store();
        while !is_over.load(Ordering::Acquire) {
            assert_eq!(store.audit().unwrap(), Audit::default());
        }
    });
}
