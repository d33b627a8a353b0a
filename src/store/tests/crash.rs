//! Death before each single step, and recovery by whoever comes next: nothing lost, nothing double.

use super::*;

/// What is done by the process that dies.
type Deed = fn(&Store) -> Result<(), super::super::StoreError>;

const ADD: Deed = |store| {
    let mut locked = store.lock(&this_boot(), PATIENCE)?;
    locked.allocate(claim("new"), &dual_stack(), &[]).map(|_| ())
};

const DEL: Deed = |store| {
    let mut locked = store.lock(&this_boot(), PATIENCE)?;
    locked.release(&key("old")).map(|_| ())
};

/// A store in which two attachments live, one has just gone, and one is "old".
fn inhabited() -> Scratch {
    let scratch = Scratch::in_memory();
    let store = scratch.store();
    for container in ["gone", "stays", "too", "old"] {
        add(&store, container, &dual_stack());
    }
    del(&store, "gone");
    scratch
}

/// Takes the lock, as the next command does, and demands that all is well: `subject` is wholly there or
/// wholly not, the others are untouched, and every other address can still be had.
fn demand_recovery(scratch: &Scratch, subject: &str, trial: &str) {
    let store = scratch.store();
    drop(store.lock(&this_boot(), PATIENCE).unwrap());
    let holders = audit(&scratch.root());
    for container in ["stays", "too"] {
        assert_eq!(holders[container].len(), 2, "{trial}: {container}");
    }
    if let Some(addresses) = holders.get(subject) {
        assert_eq!(addresses.len(), 2, "{trial}: {subject}");
    }
    let mut locked = store.lock(&this_boot(), PATIENCE).unwrap();
    for n in holders.len()..5 {
        let filler = format!("filler{n}");
        locked
            .allocate(claim(&filler), &dual_stack(), &[])
            .unwrap_or_else(|error| panic!("{trial}: {error}"));
    }
    drop(locked);
    assert_eq!(audit(&scratch.root()).len(), 5, "{trial}");
}

/// Runs `deed` in a process that dies before its `n`th change. `false` if it got to its end.
fn dies(scratch: &Scratch, n: usize, deed: Deed) -> bool {
    let env = TestEnv::dying_at(n);
    let store = scratch.store_in(&env);
    let outcome = deed(&store);
    // A death in the housekeeping after a DEL leaves its answer as it is.
    assert!(outcome.is_ok() || env.is_dead(), "{outcome:?}");
    env.is_dead()
}

/// Every point of death, until there is none: then the deed was done.
fn try_each_death(deed: Deed, subject: &str, is_there_after: bool, prepare: fn(&Scratch)) {
    let mut deaths = 0;
    for n in 0.. {
        let scratch = inhabited();
        prepare(&scratch);
        if !dies(&scratch, n, deed) {
            assert_eq!(audit(&scratch.root()).contains_key(subject), is_there_after);
            break;
        }
        demand_recovery(&scratch, subject, &format!("death at {n}"));
        deaths += 1;
        // And whoever recovers dies as well, at each of its steps.
        for m in 0.. {
            let scratch = inhabited();
            prepare(&scratch);
            dies(&scratch, n, deed);
            if !dies(&scratch, m, |store| store.lock(&this_boot(), PATIENCE).map(|_| ())) {
                break;
            }
            demand_recovery(&scratch, subject, &format!("death at {n}, then at {m}"));
        }
    }
    assert!(deaths >= 5, "only {deaths} steps: the test no longer reaches what it is about");
}

#[test]
fn an_add_that_dies_anywhere_leaves_all_or_nothing() {
    try_each_death(ADD, "new", true, |_| {});
}

#[test]
fn a_del_that_dies_anywhere_leaves_no_address_lost() {
    try_each_death(DEL, "old", false, |_| {});
}

#[test]
fn a_del_of_a_damaged_record_may_die_anywhere() {
    try_each_death(DEL, "old", false, |scratch| {
        // Undone for the audit below, which reads records: no record is left to read if DEL works.
        let path = scratch.root().join("by-id/old@eth0");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes.len() as u64 / 2).unwrap();
        // Death before the first step would leave the damaged record in place: take that step here.
        std::fs::rename(&path, scratch.root().join("tmp/old@eth0")).unwrap();
    });
}

#[test]
fn a_first_add_that_dies_anywhere_leaves_a_store_that_works() {
    for n in 0.. {
        let scratch = Scratch::in_memory();
        let env = TestEnv::dying_at(n);
        let opened = Store::open_in(Arc::clone(&env) as Arc<dyn Env>, &scratch.data_dir(), &network());
        let done = opened.and_then(|store| ADD(&store));
        assert_eq!(add(&scratch.store(), "next", &dual_stack()).len(), 2, "death at {n}");
        audit(&scratch.root());
        if done.is_ok() {
            assert!(n > 8);
            break;
        }
    }
}

#[test]
fn a_sweep_that_dies_anywhere_is_begun_again() {
    let rebooted: Deed = |store| store.lock(&boot("next-boot"), PATIENCE).map(|_| ());
    for n in 0.. {
        let scratch = inhabited();
        let died = dies(&scratch, n, rebooted);
        rebooted(&scratch.store()).unwrap();
        assert_eq!(audit(&scratch.root()), BTreeMap::new(), "death at {n}");
        assert_eq!(std::fs::read_to_string(scratch.root().join("boot")).unwrap(), "next-boot\n");
        if !died {
            assert!(n > 8);
            break;
        }
    }
}

#[test]
fn an_add_for_which_there_is_no_space_takes_itself_back_at_once() {
    for n in 0.. {
        let scratch = inhabited();
        let before = audit(&scratch.root());
        let env = TestEnv::failing_at(n);
        let outcome = ADD(&scratch.store_in(&env));
        if env.changes.load(Ordering::Relaxed) <= n {
            outcome.unwrap();
            break;
        }
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("make room"), "{error}");
        assert_eq!(audit(&scratch.root()), before, "no space at {n}");
    }
}

#[test]
fn a_del_works_on_a_full_disk() {
    for n in 0.. {
        let scratch = inhabited();
        let env = TestEnv::failing_at(n);
        let outcome = DEL(&scratch.store_in(&env));
        let is_over = env.changes.load(Ordering::Relaxed) <= n;
        // Whatever it answered, a repetition is content and the address is free.
        DEL(&scratch.store()).unwrap();
        assert!(!audit(&scratch.root()).contains_key("old"), "no space at {n}: {outcome:?}");
        demand_recovery(&scratch, "old", &format!("no space at {n}"));
        if is_over {
            break;
        }
    }
}
