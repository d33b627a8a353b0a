//! Files that are not what they should be: torn, foreign, or traps.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use rustix::fs::{CWD, Mode, mkfifoat};

use super::super::{Damaged, StoreError};
use super::*;

/// What may stand where a file of ours belongs.
const TRAPS: [&str; 6] = ["symlink", "dangling", "fifo", "socket", "directory", "full directory"];

/// Sets a trap at `path`, in the place of what was there. The links lead to `outside`.
fn set_trap(trap: &str, path: &Path, outside: &Path) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
    match trap {
        "symlink" => symlink(outside, path).unwrap(),
        "dangling" => symlink(outside.with_extension("absent"), path).unwrap(),
        "fifo" => mkfifoat(CWD, path, Mode::RWXU).unwrap(),
        "socket" => drop(UnixListener::bind(path).unwrap()),
        "directory" => fs::create_dir(path).unwrap(),
        "full directory" => fs::create_dir_all(path.join("within")).unwrap(),
        _ => unreachable!(),
    }
}

/// Runs `work` on a thread, so that an open of a FIFO fails the test instead of hanging it.
fn must_end<T: Send + 'static>(trial: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(work()));
    receive.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{trial}: {error}"))
}

/// Everything that can be done to a store, whatever comes of it.
fn do_everything(data_dir: PathBuf) {
    let sets = dual_stack();
    drop(Store::open_existing(&data_dir, &network()));
    let Some(store) = unless_stuck(Store::open(&data_dir, &network())) else { return };
    unless_stuck(store.find(&key("victim")));
    unless_stuck(store.attachments());
    unless_stuck(store.usage(&this_boot(), &sets));
    unless_stuck(store.audit());
    unless_stuck(store.try_hold(&key("victim")));
    let Some(mut locked) = unless_stuck(store.lock(&this_boot(), PATIENCE)) else { return };
    unless_stuck(locked.allocate(claim("other"), &sets, &[]));
    unless_stuck(locked.allocate(claim("third"), &sets, &[ip("10.1.2.2")]));
    unless_stuck(locked.repair());
    unless_stuck(locked.release(&key("victim")));
    unless_stuck(locked.allocate(claim("victim"), &sets, &[]));
    unless_stuck(locked.release(&key("other")));
    drop(locked);
    // And after a reboot.
    unless_stuck(store.lock(&boot("next-boot"), PATIENCE).map(|_| ()));
}

/// Any error may come of a trap, but nothing may wait.
fn unless_stuck<T>(outcome: Result<T, StoreError>) -> Option<T> {
    assert!(!matches!(outcome, Err(StoreError::LockTimeout { .. })), "waited for a lock");
    outcome.ok()
}

#[test]
fn no_trap_in_the_store_reaches_outside_or_hangs() {
    for trap in TRAPS {
        for place in [
            "lock",
            "boot",
            "next",
            "by-id",
            "by-ip",
            "tmp",
            "cooldown",
            "by-id/victim@eth0",
            "by-ip/10.1.2.2",
            "by-ip/10.1.2.3",
            "tmp/victim@eth0",
            "tmp/boot",
            "cooldown/60000000",
            "cooldown/1/10.1.2.2",
            "",
        ] {
            // Links to a file, and links to a directory with a file in it.
            for target in ["outside/file", "outside"] {
                let scratch = Scratch::in_memory();
                let outside = scratch.0.join("outside");
                fs::create_dir(&outside).unwrap();
                fs::write(outside.join("file"), "precious").unwrap();
                add(&scratch.store(), "victim", &dual_stack());
                fs::create_dir_all(scratch.root().join("cooldown/1")).unwrap();
                // Collected anew: joined with "", a path ends in a slash, which no link can.
                let path: PathBuf = scratch.root().join(place).components().collect();
                set_trap(trap, &path, &scratch.0.join(target));
                let (trial, data_dir) = (format!("{trap} at {place:?}"), scratch.data_dir());
                must_end(&trial, || do_everything(data_dir));
                assert_eq!(inodes(&outside).into_keys().collect::<Vec<_>>(), ["file"], "{trial}");
                assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "precious", "{trial}");
            }
        }
    }
}

#[test]
fn a_trap_in_the_place_of_a_record_can_be_released() {
    for trap in TRAPS {
        let scratch = Scratch::in_memory();
        let store = scratch.store();
        add(&store, "victim", &dual_stack());
        let path = scratch.root().join("by-id/victim@eth0");
        set_trap(trap, &path, &scratch.0);
        let error = store.find(&key("victim")).unwrap_err();
        assert!(matches!(&error, StoreError::Damaged(damage) if damage.path == path), "{trap}: {error}");
        let entries = store.attachments().unwrap();
        assert!(entries.len() == 1 && entries[0].record.is_err(), "{trap}: {entries:?}");
        assert!(del(&store, "victim"), "{trap}");
        assert!(store.find(&key("victim")).unwrap().is_none(), "{trap}");
    }
}

#[test]
fn an_address_with_a_trap_in_its_place_is_not_handed_out() {
    for trap in TRAPS {
        let scratch = Scratch::in_memory();
        let store = scratch.store();
        add(&store, "a", &dual_stack());
        set_trap(trap, &scratch.root().join("by-ip/10.1.2.3"), &scratch.0);
        assert_eq!(add(&store, "b", &dual_stack())[0], ip("10.1.2.4"), "{trap}");
    }
}

#[test]
fn a_record_torn_anywhere_keeps_its_address_until_released() {
    let scratch = Scratch::in_memory();
    let store = scratch.store();
    let sets = [set("10.1.2.0/30")];
    let path = scratch.root().join("by-id/a@eth0");
    let mut cut = 0;
    loop {
        add(&store, "a", &sets);
        let whole = fs::metadata(&path).unwrap().len();
        // Without its last newline it is whole still.
        if cut + 1 >= whole {
            break;
        }
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
        let error = store.find(&key("a")).unwrap_err();
        assert!(matches!(error, StoreError::Damaged(Damaged { .. })), "cut at {cut}: {error}");
        let mut locked = store.lock(&this_boot(), PATIENCE).unwrap();
        let twice = locked.allocate(claim("b"), &sets, &[]);
        assert!(matches!(twice, Err(StoreError::Exhausted { .. })), "cut at {cut}: {twice:?}");
        assert!(matches!(locked.allocate(claim("a"), &sets, &[]), Err(StoreError::Damaged(_))));
        let released = locked.release(&key("a")).unwrap().unwrap();
        assert_eq!(released.addresses, [ip("10.1.2.2")], "cut at {cut}");
        cut += 1;
    }
    assert!(cut > 200);
}

#[test]
fn a_record_of_another_attachment_or_of_a_newer_ferrule_says_so() {
    let scratch = Scratch::in_memory();
    let store = scratch.store();
    add(&store, "a", &dual_stack());
    let (a, b) = (scratch.root().join("by-id/a@eth0"), scratch.root().join("by-id/b@eth0"));
    fs::copy(&a, &b).unwrap();
    let error = store.find(&key("b")).unwrap_err().to_string();
    assert!(error.contains("record of another attachment, podnet/a/eth0"), "{error}");
    // Releasing the copy does not free what belongs to the original.
    let released = store.lock(&this_boot(), PATIENCE).unwrap().release(&key("b")).unwrap().unwrap();
    assert!(released.addresses.is_empty(), "{released:?}");
    let json = fs::read_to_string(&a).unwrap();
    let with_more = json.replacen('{', "{ \"colour\": [\"blue\"],", 1);
    fs::write(&a, &with_more).unwrap();
    let error = store.find(&key("a")).unwrap_err().to_string();
    assert!(error.contains("checksum"), "{error}");
    let (before, _) = with_more.split_once(",\n  \"sum\"").unwrap();
    fs::write(&a, format!("{before}\n}}\n")).unwrap();
    assert!(
        store.find(&key("a")).unwrap().is_some(),
        "a field more is no damage, nor is one without a checksum"
    );
    fs::write(&a, "{\"version\": 2, \"everything\": \"else\"}").unwrap();
    let error = store.find(&key("a")).unwrap_err();
    assert!(matches!(error, StoreError::NewerFormat { version: 2, .. }), "{error}");
    let released = store.lock(&this_boot(), PATIENCE).unwrap().release(&key("a")).unwrap().unwrap();
    assert_eq!(released.addresses.len(), 2);
    audit(&scratch.root());
}

#[test]
fn names_removed_by_hand_are_repaired_and_told() {
    let scratch = Scratch::in_memory();
    let store = scratch.store();
    for container in ["a", "b", "c", "d", "e"] {
        add(&store, container, &dual_stack());
    }
    fs::remove_file(scratch.root().join("by-ip/10.1.2.3")).unwrap();
    fs::remove_file(scratch.root().join("by-id/c@eth0")).unwrap();
    fs::write(scratch.root().join("by-id/notes.txt"), "").unwrap();
    fs::write(scratch.root().join("by-ip/10.1.2.60"), "").unwrap();
    let repairs = store.lock(&this_boot(), PATIENCE).unwrap().repair().unwrap();
    assert_eq!((repairs.restored, repairs.relisted), (vec![ip("10.1.2.3")], vec![key("c")]));
    assert_eq!((repairs.freed, repairs.contested.len()), (vec![ip("10.1.2.60")], 0));
    assert_eq!(repairs.strangers, [scratch.root().join("by-id/notes.txt")]);
    fs::remove_file(scratch.root().join("by-id/notes.txt")).unwrap();
    assert_eq!(audit(&scratch.root()).len(), 5);
}
