//! Rot: what a power loss, a disk or a hand leaves of a record, bit by bit, and whatever command comes next.
//!
//! Within the boot an address that may be in use is never given to another; after a reboot nothing is left of it.

use std::fs;

use super::super::StoreError;
use super::*;

/// The one address of [`one`].
const ONLY: &str = "10.1.2.2";

/// A range that has room for one pod: whoever else gets an address, gets that one.
fn one() -> [RangeSet; 1] {
    [set("10.1.2.0/30")]
}

/// What may have become of a file.
struct Damage {
    what: String,
    bytes: Vec<u8>,
}

/// Every cut, every flipped bit, every tail of zeros, and what else a disk makes of `whole`.
fn damages(whole: &[u8]) -> Vec<Damage> {
    let mut found = Vec::new();
    let mut add = |what: String, bytes: Vec<u8>| found.push(Damage { what, bytes });
    for at in 0..whole.len() {
        add(format!("cut at {at}"), whole[..at].to_vec());
        // What a journal has of a file whose length is on the disk and whose content is not.
        let zeros = vec![0; whole.len() - at];
        add(format!("zeros from {at}"), [&whole[..at], &zeros].concat());
        add(format!("{at} zeros before"), [&vec![0; at], &whole[at..]].concat());
        for bit in 0..8 {
            let mut flipped = whole.to_vec();
            flipped[at] ^= 1 << bit;
            add(format!("bit {bit} of byte {at} flipped"), flipped);
        }
    }
    add("doubled".to_owned(), [whole, whole].concat());
    add("doubled without an end".to_owned(), [whole.trim_ascii_end(), whole.trim_ascii_end()].concat());
    add("another file's block".to_owned(), vec![0xff; 4096]);
    add("larger than any record".to_owned(), vec![b' '; (8 << 20) + 1]);
    let text = str::from_utf8(whole).unwrap();
    for version in ["2", "99", "18446744073709551615"] {
        add(format!("version {version}"), text.replacen(": 1,", &format!(": {version},"), 1).into_bytes());
    }
    add("a newer ferrule's".to_owned(), b"{\"version\": 2, \"everything\": \"else\"}".to_vec());
    found
}

/// A store whose one address "a" has, and the bytes of its record.
fn full() -> (Scratch, Vec<u8>) {
    let scratch = Scratch::in_memory();
    add(&scratch.store(), "a", &one());
    let whole = fs::read(scratch.root().join("by-id/a@eth0")).unwrap();
    (scratch, whole)
}

/// Writes into the file itself, whose other names are links to it.
fn write_in_place(scratch: &Scratch, bytes: &[u8]) {
    fs::write(scratch.root().join("by-id/a@eth0"), bytes).unwrap();
}

#[test]
fn a_damaged_record_is_told_or_means_what_it_meant() {
    let (scratch, whole) = full();
    let store = scratch.store();
    let meant = store.find(&key("a")).unwrap();
    let (mut told, mut harmless) = (0, 0);
    for Damage { what, bytes } in damages(&whole) {
        write_in_place(&scratch, &bytes);
        match store.find(&key("a")) {
            Err(StoreError::Damaged(_) | StoreError::NewerFormat { .. }) => told += 1,
            Ok(found) if found == meant => harmless += 1,
            other => panic!("{what}: {other:?}"),
        }
    }
    assert!(told > 10 * whole.len(), "{told}");
    // The last newline, and the four letters of the checksum's name with their quotes: a record without is believed.
    assert!(harmless < 50, "{harmless}");
}

#[test]
fn in_its_boot_only_a_del_frees_a_damaged_records_address() {
    let (scratch, whole) = full();
    let store = scratch.store();
    for Damage { what, bytes } in damages(&whole) {
        write_in_place(&scratch, &bytes);
        let mut locked = store.lock(&this_boot(), PATIENCE).unwrap();
        let another = locked.allocate(claim("b"), &one(), &[]);
        assert!(matches!(another, Err(StoreError::Exhausted { .. })), "{what}: {another:?}");
        let wanted = locked.allocate(claim("b"), &one(), &[ip(ONLY)]);
        assert!(matches!(wanted, Err(StoreError::Taken { .. })), "{what}: {wanted:?}");
        let again = locked.allocate(claim("a"), &one(), &[]);
        assert!(again.is_err(), "{what}: {again:?}");
        assert!(locked.repair().unwrap().freed.is_empty(), "{what}");
        assert_eq!(inodes(&scratch.root().join("by-ip")).into_keys().collect::<Vec<_>>(), [ONLY], "{what}");
        let released = locked.release(&key("a")).unwrap().unwrap();
        assert_eq!(released.addresses, [ip(ONLY)], "{what}");
        locked.allocate(claim("a"), &one(), &[]).unwrap();
    }
    assert_eq!(audit(&scratch.root()).len(), 1);
}

#[test]
fn after_a_reboot_nothing_is_left_of_it() {
    let (scratch, whole) = full();
    let store = scratch.store();
    let mut boots = (0..).map(|number| boot(&format!("boot-{number}")));
    for Damage { what, bytes } in damages(&whole) {
        write_in_place(&scratch, &bytes);
        let boot = boots.next().unwrap();
        let mut locked = store.lock(&boot, PATIENCE).unwrap();
        assert_eq!(audit(&scratch.root()), BTreeMap::new(), "{what}");
        locked.allocate(claim("a"), &one(), &[]).unwrap();
    }
}

/// Both are torn by the same power loss more often than one of them alone; and a file `boot` that only a hand has taken
/// away must not cost the pods of this boot their addresses.
#[test]
fn a_damaged_record_of_this_boot_survives_a_lost_boot_file() {
    let (scratch, whole) = full();
    let store = scratch.store();
    let text = String::from_utf8(whole.clone()).unwrap();
    let end_of_boot = text.find(this_boot().as_str()).unwrap() + this_boot().as_str().len();
    for cut in [0, end_of_boot - 1, end_of_boot, whole.len() / 2, whole.len() - 2] {
        for is_rebooted in [false, true] {
            write_in_place(&scratch, &whole[..cut]);
            fs::remove_file(scratch.root().join("boot")).unwrap();
            let now = if is_rebooted { boot("next-boot") } else { this_boot() };
            let mut locked = store.lock(&now, PATIENCE).unwrap();
            let another = locked.allocate(claim("b"), &one(), &[]).is_ok();
            let is_known_to_be_dead = is_rebooted || cut < end_of_boot;
            assert_eq!(another, is_known_to_be_dead, "cut at {cut}, rebooted: {is_rebooted}");
            drop(locked);
            drop(store.lock(&boot("after-that"), PATIENCE).unwrap());
            add(&store, "a", &one());
        }
    }
}

/// What repairs the store.
type Repair = (&'static str, fn(&Store));

const REPAIRS: [Repair; 3] = [
    ("GC", |store| drop(store.lock(&this_boot(), PATIENCE).unwrap().repair().unwrap())),
    ("reclaim after a look", |store| {
        store.audit().unwrap();
        store.lock(&this_boot(), PATIENCE).unwrap().repair().unwrap();
    }),
    ("GC after an ADD and a DEL of others", |store| {
        add(store, "other", &dual_stack());
        assert!(del(store, "other"));
        store.lock(&this_boot(), PATIENCE).unwrap().repair().unwrap();
    }),
];

/// The names of the victim's file; any of them can be lost.
const NAMES: [&str; 3] = ["by-id/victim@eth0", "by-ip/10.1.2.2", "by-ip/fd00:1::2"];

/// A store with a victim, which has the first addresses, and a witness.
fn with_victim() -> Scratch {
    let scratch = Scratch::in_memory();
    for container in ["victim", "witness"] {
        add(&scratch.store(), container, &dual_stack());
    }
    scratch
}

/// host-local's users free an address with `rm`.
#[test]
fn a_repair_gives_a_record_its_lost_names_again() {
    // Every choice but all of them: then nothing is left that could tell.
    for choice in 1..7_usize {
        let lost: Vec<&str> = (0..3).filter(|at| choice & (1 << at) != 0).map(|at| NAMES[at]).collect();
        for (what, repair) in REPAIRS {
            let scratch = with_victim();
            lost.iter().for_each(|name| fs::remove_file(scratch.root().join(name)).unwrap());
            repair(&scratch.store());
            let holders = audit(&scratch.root());
            let theirs = [ip("10.1.2.2"), ip("fd00:1::2")].into();
            assert_eq!(holders.get("victim"), Some(&theirs), "{lost:?} lost, then {what}");
        }
        let scratch = with_victim();
        lost.iter().for_each(|name| fs::remove_file(scratch.root().join(name)).unwrap());
        let is_listed = !lost.contains(&NAMES[0]);
        assert_eq!(del(&scratch.store(), "victim"), is_listed, "{lost:?} lost, then its DEL");
        if !is_listed {
            // A DEL knows an attachment by its name in by-id. What is left is found by GC, which then removes it.
            let store = scratch.store();
            let repairs = store.lock(&this_boot(), PATIENCE).unwrap().repair().unwrap();
            assert_eq!(repairs.relisted, [key("victim")], "{lost:?}");
            assert!(del(&store, "victim"), "{lost:?}");
        }
        assert_eq!(audit(&scratch.root()).into_keys().collect::<Vec<_>>(), ["witness"], "{lost:?}");
    }
}

/// Without its name in by-id an attachment is unknown, but its addresses stay held.
#[test]
fn an_address_whose_record_lost_its_name_is_not_handed_out() {
    let (scratch, _) = full();
    let store = scratch.store();
    fs::remove_file(scratch.root().join("by-id/a@eth0")).unwrap();
    for requested in [vec![], vec![ip(ONLY)]] {
        let refused = store.lock(&this_boot(), PATIENCE).unwrap().allocate(claim("b"), &one(), &requested);
        assert!(
            matches!(refused, Err(StoreError::Exhausted { .. } | StoreError::Taken { .. })),
            "{refused:?}"
        );
    }
}

/// A directory that somebody moved away, or replaced by something else: the names in the other one bring it back.
#[test]
fn a_whole_directory_of_names_comes_back_from_the_other() {
    for directory in ["by-id", "by-ip"] {
        for is_replaced in [false, true] {
            let scratch = with_victim();
            fs::rename(scratch.root().join(directory), scratch.0.join("aside")).unwrap();
            if is_replaced {
                fs::write(scratch.root().join(directory), "a file").unwrap();
            }
            scratch.store().lock(&this_boot(), PATIENCE).unwrap().repair().unwrap();
            let holders = audit(&scratch.root());
            let theirs = [ip("10.1.2.2"), ip("fd00:1::2")].into();
            assert_eq!(holders.get("victim"), Some(&theirs), "{directory} lost, replaced: {is_replaced}");
        }
    }
}

/// The first holder of the lock in a boot repairs. That the boot file is gone is the sign of one.
#[test]
fn the_first_holder_of_the_lock_in_a_boot_repairs() {
    let scratch = with_victim();
    fs::remove_file(scratch.root().join("boot")).unwrap();
    fs::remove_file(scratch.root().join(NAMES[1])).unwrap();
    drop(scratch.store().lock(&this_boot(), PATIENCE).unwrap());
    assert_eq!(audit(&scratch.root()).get("victim"), Some(&[ip("10.1.2.2"), ip("fd00:1::2")].into()));
}

#[test]
fn gc_frees_what_an_attachment_had_before_it_was_made_anew() {
    let (scratch, _) = full();
    let store = scratch.store();
    // The names that an old file of the same key has kept.
    let aside = scratch.0.join("aside");
    let root = scratch.root();
    fs::hard_link(root.join("by-ip").join(ONLY), &aside).unwrap();
    fs::remove_file(root.join("by-id/a@eth0")).unwrap();
    fs::remove_file(root.join("by-ip").join(ONLY)).unwrap();
    let wide = [set("10.1.2.0/29")];
    assert_eq!(add(&store, "a", &wide), [ip("10.1.2.3")]);
    fs::rename(&aside, root.join("by-ip").join(ONLY)).unwrap();
    let refused = store.lock(&this_boot(), PATIENCE).unwrap().allocate(claim("b"), &one(), &[]);
    assert!(matches!(refused, Err(StoreError::Exhausted { .. })), "{refused:?}");
    assert_eq!(store.lock(&this_boot(), PATIENCE).unwrap().repair().unwrap().freed, [ip(ONLY)]);
    assert_eq!(add(&store, "b", &one()), [ip(ONLY)]);
    assert_eq!(audit(&scratch.root()).len(), 2);
}

/// GC removes what stands in `by-ip` and is nobody's. If the name was a record's, that has it again at once.
#[test]
fn what_stands_in_the_place_of_an_address_is_replaced() {
    let (scratch, _) = full();
    let store = scratch.store();
    let root = scratch.root();
    fs::remove_file(root.join("by-ip").join(ONLY)).unwrap();
    fs::write(root.join("by-ip").join(ONLY), "mine").unwrap();
    let repairs = store.lock(&this_boot(), PATIENCE).unwrap().repair().unwrap();
    assert_eq!((repairs.freed, repairs.restored), (vec![], vec![ip(ONLY)]));
    let another = store.lock(&this_boot(), PATIENCE).unwrap().allocate(claim("b"), &one(), &[]);
    assert!(matches!(another, Err(StoreError::Exhausted { .. })), "{another:?}");
    assert_eq!(audit(&scratch.root()).len(), 1);
}

/// `sed -i`, and most editors, write a new file and give it the name.
#[test]
fn a_record_that_an_editor_wrote_anew_keeps_its_addresses() {
    for is_repaired in [false, true] {
        let scratch = with_victim();
        let root = scratch.root();
        let text = fs::read_to_string(root.join(NAMES[0])).unwrap();
        let (before, _) = text.split_once(",\n  \"sum\"").unwrap();
        fs::write(root.join("edited"), format!("{before}\n}}\n")).unwrap();
        fs::rename(root.join("edited"), root.join(NAMES[0])).unwrap();
        let store = scratch.store();
        for container in ["b", "c", "d"] {
            add(&store, container, &dual_stack());
        }
        let refused = store.lock(&this_boot(), PATIENCE).unwrap().allocate(claim("e"), &dual_stack(), &[]);
        assert!(matches!(refused, Err(StoreError::Exhausted { .. })), "{refused:?}");
        if is_repaired {
            let repairs = store.lock(&this_boot(), PATIENCE).unwrap().repair().unwrap();
            assert_eq!((repairs.restored.len(), repairs.freed.len()), (2, 0), "{repairs:?}");
            assert_eq!(audit(&root).get("victim"), Some(&[ip("10.1.2.2"), ip("fd00:1::2")].into()));
        }
        assert!(del(&store, "victim"));
        assert_eq!(audit(&root).len(), 4, "repaired: {is_repaired}");
    }
}

/// Something in `tmp` by the name of an attachment that lives costs it nothing.
#[test]
fn a_trap_in_tmp_costs_a_listed_attachment_no_address() {
    let (scratch, _) = full();
    for trap in ["nothing of ours", ""] {
        fs::write(scratch.root().join("tmp/a@eth0"), trap).unwrap();
        let store = scratch.store();
        let another = store.lock(&this_boot(), PATIENCE).unwrap().allocate(claim("b"), &one(), &[]);
        assert!(matches!(another, Err(StoreError::Exhausted { .. })), "{another:?}");
        assert_eq!(audit(&scratch.root()).len(), 1);
    }
}

/// A file of which nobody can tell whose it was keeps its address from others, until somebody says that it may go.
#[test]
fn an_unreadable_name_is_freed_by_reclaim_or_a_reboot_only() {
    let (scratch, _) = full();
    let store = scratch.store();
    let lose = || {
        let root = scratch.root();
        fs::write(root.join("by-id/a@eth0"), "torn").unwrap();
        fs::remove_file(root.join("by-id/a@eth0")).unwrap();
    };
    lose();
    for requested in [vec![], vec![ip(ONLY)]] {
        let refused = store.lock(&this_boot(), PATIENCE).unwrap().allocate(claim("b"), &one(), &requested);
        assert!(refused.is_err(), "{refused:?}");
    }
    assert_eq!(store.audit().unwrap().orphans, [ip(ONLY)]);
    assert_eq!(store.lock(&this_boot(), PATIENCE).unwrap().repair().unwrap().freed, [ip(ONLY)]);
    add(&store, "a", &one());
    lose();
    drop(store.lock(&boot("next-boot"), PATIENCE).unwrap());
    assert_eq!(audit(&scratch.root()), BTreeMap::new());
}

/// A file system on which nothing can be made any more; what is there can be removed and renamed.
struct FullDisk;

impl Env for FullDisk {
    fn unix_seconds(&self) -> u64 {
        1_800_000_000
    }

    fn admit(&self, step: FaultPoint) -> io::Result<()> {
        let needs_room = ["create", "write", "link", "make directory"].contains(&step.operation);
        if needs_room { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

/// Pods that stay Terminating because a log has filled the disk.
#[test]
fn a_del_works_on_a_full_disk_in_this_boot_and_after_a_reboot() {
    for is_rebooted in [false, true] {
        let scratch = with_victim();
        let full = Store::open_in(Arc::new(FullDisk), &scratch.data_dir(), &network()).unwrap();
        let now = if is_rebooted { boot("next-boot") } else { this_boot() };
        for container in ["victim", "never-added"] {
            full.lock(&now, PATIENCE).unwrap().release(&key(container)).unwrap();
        }
        let refused = full.lock(&now, PATIENCE).unwrap().allocate(claim("b"), &dual_stack(), &[]);
        assert!(refused.unwrap_err().to_string().contains("make room"));
        let left = audit(&scratch.root()).into_keys().collect::<Vec<_>>();
        assert_eq!(left, if is_rebooted { vec![] } else { vec!["witness"] });
        // With room again all is as ever.
        let store = scratch.store();
        let mut locked = store.lock(&now, PATIENCE).unwrap();
        locked.allocate(claim("b"), &dual_stack(), &[]).unwrap();
        drop(locked);
        assert_eq!(fs::read_to_string(scratch.root().join("boot")).unwrap(), format!("{now}\n"));
    }
}

/// The record of a pod that runs, with something else in the place of its name in `by-id`.
#[test]
fn a_trap_in_the_place_of_a_record_keeps_its_address_until_del() {
    let (scratch, _) = full();
    let store = scratch.store();
    let root = scratch.root();
    fs::remove_file(root.join("by-id/a@eth0")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("by-id/a@eth0")).unwrap();
    let mut locked = store.lock(&this_boot(), PATIENCE).unwrap();
    let another = locked.allocate(claim("b"), &one(), &[]);
    assert!(matches!(another, Err(StoreError::Exhausted { .. })), "{another:?}");
    assert_eq!(locked.repair().unwrap().freed, Vec::<IpAddr>::new());
    assert_eq!(locked.release(&key("a")).unwrap().unwrap().addresses, [ip(ONLY)]);
    drop(locked);
    assert_eq!(audit(&scratch.root()), BTreeMap::new());
}
