//! Many at once: threads, processes, and processes that are killed.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use super::super::StoreError;
use super::*;

/// Tells the worker below where its store is, and its name.
const WORKER: &str = "FERRULE_TEST_STORE_WORKER";

#[test]
fn sixteen_at_once_never_get_an_address_that_another_has() {
    let scratch = Scratch::new();
    let sets = [set("10.1.2.0/27"), set("fd00:1::/64")];
    let in_use: Mutex<HashSet<IpAddr>> = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (scratch, sets, in_use) = (&scratch, &sets, &in_use);
            scope.spawn(move || {
                for round in 0..40 {
                    let container = format!("c{thread}-{round}");
                    let addresses = add(&scratch.store(), &container, sets);
                    for address in &addresses {
                        assert!(in_use.lock().unwrap().insert(*address), "{address} is in use twice");
                    }
                    let store = scratch.store();
                    let hold = store.hold(&key(&container), PATIENCE).unwrap().unwrap();
                    for address in &addresses {
                        in_use.lock().unwrap().remove(address);
                    }
                    assert!(del(&store, &container));
                    drop(hold);
                }
            });
        }
    });
    assert_eq!(audit(&scratch.root()), BTreeMap::new());
}

/// As when another thread forks: until its child calls execve(2), it has all our files open.
#[test]
fn a_released_lock_is_free_even_if_a_child_has_its_file() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let mut locked = store.lock(&this_boot(), PATIENCE).unwrap();
    let (_, hold) = locked.allocate(claim("a"), &dual_stack(), &[]).unwrap();
    let forked = [&locked._lock, hold.file()].map(|file| file.try_clone().unwrap());
    assert!(store.try_hold(&key("a")).unwrap().is_none());
    assert!(matches!(store.lock(&this_boot(), Duration::ZERO), Err(StoreError::LockTimeout { .. })));
    drop(locked);
    drop(store.lock(&this_boot(), Duration::ZERO).unwrap());
    drop(hold);
    assert!(store.try_hold(&key("a")).unwrap().is_some());
    drop(forked);
}

/// Not a test by itself: what the processes of the test below run.
#[test]
fn worker() {
    let Ok(task) = std::env::var(WORKER) else { return };
    let (data_dir, name) = task.split_once(',').unwrap();
    let sets = [set("10.1.2.0/26"), set("fd00:1::/64")];
    for round in 0.. {
        let store = Store::open(Path::new(data_dir), &network()).unwrap();
        add(&store, &format!("{name}-{round}"), &sets);
        println!("worked");
        // Some stay, but never so many that the workers run out of addresses.
        if round > 3 || round % 2 == 0 {
            del(&store, &format!("{name}-{round}"));
        }
    }
}

fn start_worker(scratch: &Scratch, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::races::worker", "--nocapture"])
        .env(WORKER, format!("{},{name}", scratch.data_dir().display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn killed_processes_leave_no_address_lost_or_held_twice() {
    let scratch = Scratch::new();
    for generation in 0..8 {
        let mut workers: Vec<Child> =
            (0..4).map(|n| start_worker(&scratch, &format!("g{generation}-{n}"))).collect();
        for (n, worker) in workers.iter_mut().enumerate() {
            // Each is killed after another number of rounds, in the middle of its next.
            let output = BufReader::new(worker.stdout.take().unwrap());
            let rounds =
                output.lines().filter(|line| line.as_ref().is_ok_and(|line| line.ends_with("worked")));
            rounds.take(n + 1).for_each(drop);
            worker.kill().unwrap();
            worker.wait().unwrap();
        }
        // The lock of the dead is free, and so are the holds.
        let store = scratch.store();
        drop(store.lock(&this_boot(), PATIENCE).unwrap());
        let held = audit(&scratch.root());
        assert!(!held.is_empty(), "the workers did nothing");
        let distinct: HashSet<_> = held.values().flatten().collect();
        assert_eq!(distinct.len(), held.len() * 2);
        for container in held.keys() {
            assert!(store.try_hold(&key(container)).unwrap().is_some());
            assert!(del(&store, container));
        }
    }
    let (store, sets) = (scratch.store(), [set("10.1.2.0/26"), set("fd00:1::/64")]);
    for n in 0..61 {
        add(&store, &format!("last{n}"), &sets);
    }
    assert_eq!(audit(&scratch.root()).len(), 61);
}

#[test]
fn a_lock_that_is_kept_fails_with_a_word_and_not_with_a_hang() {
    let scratch = Scratch::new();
    let (keeper, waiter) = (scratch.store(), scratch.store());
    let kept = keeper.lock(&this_boot(), PATIENCE).unwrap();
    let begun = Instant::now();
    let error = waiter.lock(&this_boot(), Duration::from_millis(30)).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::LockTimeout { .. }), "{error}");
    assert!(begun.elapsed() >= Duration::from_millis(30));
    // The one who gave up takes nothing with him.
    drop(kept);
    drop(keeper.lock(&this_boot(), PATIENCE).unwrap());
    drop(waiter.lock(&this_boot(), PATIENCE).unwrap());
}

/// Removes a file at the worst moment: when it has been locked, and before anybody makes sure that it is
/// still the one that is there to be found.
struct Saboteur {
    file: PathBuf,
    is_done: AtomicBool,
}

impl Env for Saboteur {
    fn unix_seconds(&self) -> u64 {
        1_800_000_000
    }

    fn admit(&self, step: FaultPoint) -> io::Result<()> {
        if step.operation == "stat" && !self.is_done.swap(true, Ordering::Relaxed) {
            std::fs::remove_file(&self.file)?;
        }
        Ok(())
    }
}

/// The same store, in which `file` will be removed so.
fn sabotaged(scratch: &Scratch, file: &str) -> Store {
    let env = Saboteur { file: scratch.root().join(file), is_done: AtomicBool::new(false) };
    Store::open_in(Arc::new(env), &scratch.data_dir(), &network()).unwrap()
}

#[test]
fn a_lock_file_removed_while_it_is_taken_does_not_let_two_in() {
    let scratch = Scratch::new();
    add(&scratch.store(), "a", &dual_stack());
    let store = sabotaged(&scratch, "lock");
    let mut first = store.lock(&this_boot(), PATIENCE).unwrap();
    first.release(&key("a")).unwrap();
    let second = scratch.store().lock(&this_boot(), Duration::from_millis(10)).map(|_| ());
    assert!(matches!(second, Err(StoreError::LockTimeout { .. })), "{second:?}");
}

#[test]
fn a_record_released_while_its_hold_is_taken_has_no_hold() {
    let scratch = Scratch::new();
    add(&scratch.store(), "a", &dual_stack());
    let store = sabotaged(&scratch, "by-id/a@eth0");
    assert!(store.hold(&key("a"), PATIENCE).unwrap().is_none());
}

#[test]
fn a_del_waits_for_the_add_it_has_overtaken() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let mut locked = store.lock(&this_boot(), PATIENCE).unwrap();
    let (_, adding) = locked.allocate(claim("a"), &dual_stack(), &[]).unwrap();
    drop(locked);
    assert!(store.try_hold(&key("a")).unwrap().is_none(), "GC passes over an ADD under way");
    let early = store.hold(&key("a"), Duration::from_millis(20));
    assert!(matches!(early, Err(StoreError::LockTimeout { .. })), "{early:?}");
    std::thread::scope(|scope| {
        let other = scope.spawn(|| store.hold(&key("a"), PATIENCE).unwrap().map(|hold| hold.key().clone()));
        // The ADD fails and takes itself back: the DEL finds nothing left to do.
        assert!(del(&store, "a"));
        drop(adding);
        assert_eq!(other.join().unwrap(), None);
    });
    // A record made anew under the same name is found, not the one that was waited for.
    add(&store, "a", &dual_stack());
    assert!(store.hold(&key("a"), PATIENCE).unwrap().is_some());
    assert!(store.hold(&key("never-added"), PATIENCE).unwrap().is_none());
}
