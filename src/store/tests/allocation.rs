//! Which address comes, in which order, and what is refused.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::StoreError;
use super::super::alloc::{Age, Choice, State, choose_address};
use super::*;
use crate::config::host_port::{HostPort, Protocol};

#[test]
fn addresses_go_round_and_the_last_freed_comes_last() {
    let scratch = Scratch::new();
    let (store, sets) = (scratch.store(), [set("10.1.2.0/29")]);
    assert_eq!(add(&store, "a", &sets), [ip("10.1.2.2")]);
    assert_eq!(add(&store, "b", &sets), [ip("10.1.2.3")]);
    assert!(del(&store, "a"));
    // host-local would do the same; and .2 is in its cooldown besides.
    assert_eq!(add(&store, "c", &sets), [ip("10.1.2.4")]);
    assert_eq!(add(&store, "d", &sets), [ip("10.1.2.5")]);
    assert!(del(&store, "c"));
    assert_eq!(add(&store, "e", &sets), [ip("10.1.2.6")]);
    // All others are in their cooldown, which yields, in turn.
    assert_eq!(add(&store, "f", &sets), [ip("10.1.2.2")]);
    assert_eq!(add(&store, "g", &sets), [ip("10.1.2.4")]);
    let exhausted = store.lock(&this_boot(), PATIENCE).unwrap().allocate(claim("h"), &sets, &[]);
    let error = exhausted.unwrap_err();
    assert!(error.to_string().starts_with("no free address in 10.1.2.0/29: 5 of 5 are held"), "{error}");
    assert_eq!(audit(&scratch.root()).len(), 5);
}

#[test]
fn a_freed_address_rests_and_the_longest_rested_yields_first() {
    let scratch = Scratch::new();
    let env = TestEnv::new();
    let (store, sets) = (scratch.store_in(&env), [set("10.1.2.0/29")]);
    let begin = 1_800_000_000;
    for container in ["a", "b", "c", "d", "e"] {
        add(&store, container, &sets);
    }
    del(&store, "d");
    env.set_clock(begin + 30);
    del(&store, "a");
    // By turn .2 would be next; .5 has rested longer.
    assert_eq!(add(&store, "f", &sets), [ip("10.1.2.5")]);
    assert_eq!(add(&store, "g", &sets), [ip("10.1.2.2")]);
    // Past its rest an address is as free as any.
    del(&store, "b");
    env.set_clock(begin + 90);
    del(&store, "g");
    assert_eq!(add(&store, "h", &sets), [ip("10.1.2.3")]);
}

#[test]
fn a_clock_that_jumps_back_keeps_no_address_and_no_names() {
    let scratch = Scratch::new();
    let env = TestEnv::new();
    let (store, sets) = (scratch.store_in(&env), [set("10.1.2.0/29")]);
    for container in ["a", "b", "c", "d", "e"] {
        add(&store, container, &sets);
    }
    del(&store, "a");
    del(&store, "b");
    env.set_clock(1_000);
    // A cooldown that began in the future is over: .2 is next by turn.
    assert_eq!(add(&store, "f", &sets), [ip("10.1.2.2")]);
    del(&store, "c");
    assert_eq!(inodes(&scratch.root().join("cooldown")).into_keys().collect::<Vec<_>>(), ["33"]);
}

#[test]
fn expired_rests_are_removed_as_fast_as_they_come() {
    let scratch = Scratch::new();
    let env = TestEnv::new();
    let (store, sets) = (scratch.store_in(&env), dual_stack());
    for round in 0..40 {
        env.set_clock(1_800_000_000 + round * 45);
        add(&store, "a", &sets);
        del(&store, "a");
        let buckets = inodes(&scratch.root().join("cooldown"));
        assert!(buckets.len() <= 3, "round {round}: {buckets:?}");
    }
}

#[test]
fn the_second_set_being_full_leaves_nothing_of_the_first() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let sets = [set("fd00:1::/64"), set("10.1.2.0/30")];
    add(&store, "a", &sets);
    let before = audit(&scratch.root());
    let refused = store.lock(&this_boot(), PATIENCE).unwrap().allocate(claim("b"), &sets, &[]);
    assert!(matches!(refused, Err(StoreError::Exhausted { .. })), "{refused:?}");
    assert_eq!(audit(&scratch.root()), before);
}

#[test]
fn requested_addresses_are_given_or_refused_by_name() {
    let scratch = Scratch::new();
    let (store, sets) = (scratch.store(), dual_stack());
    let mut locked = store.lock(&this_boot(), PATIENCE).unwrap();
    let wanted = [ip("fd00:1::77"), ip("10.1.2.5"), ip("10.1.2.5")];
    let (record, _hold) = locked.allocate(claim("a"), &sets, &wanted).unwrap();
    assert_eq!(record.addresses, [ip("10.1.2.5"), ip("fd00:1::77")]);
    for (requested, words) in [
        (["10.1.2.5"].as_slice(), "10.1.2.5 is taken by podnet/a/eth0"),
        (&["10.1.9.9"], "10.1.9.9 lies outside every range of the network (10.1.2.0/29; fd00:1::/64)"),
        (&["10.1.2.1"], "10.1.2.1 is a gateway"),
        (&["10.1.2.0"], "10.1.2.0 is the network address"),
        (&["10.1.2.7"], "10.1.2.7 is the broadcast address"),
        (&["fd00:1::"], "fd00:1:: is the subnet-router anycast address"),
        (&["10.1.2.3", "10.1.2.4"], "10.1.2.3 and 10.1.2.4 were both asked for"),
    ] {
        let requested: Vec<IpAddr> = requested.iter().map(|text| ip(text)).collect();
        let error = locked.allocate(claim("b"), &sets, &requested).unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
    }
    // One that was just freed may be asked for: a StatefulSet's pod comes back with its address.
    locked.release(&key("a")).unwrap();
    let (record, _hold) = locked.allocate(claim("b"), &sets, &[ip("10.1.2.5")]).unwrap();
    assert_eq!(record.addresses[0], ip("10.1.2.5"));
    // And asking has not moved the turn.
    let (record, _hold) = locked.allocate(claim("c"), &sets, &[]).unwrap();
    assert_eq!(record.addresses[0], ip("10.1.2.2"));
    drop(locked);
    assert_eq!(audit(&scratch.root()).len(), 2);
}

#[test]
fn an_attachment_is_added_once_and_deleted_any_number_of_times() {
    let scratch = Scratch::new();
    let (store, sets) = (scratch.store(), dual_stack());
    let addresses = add(&store, "a", &sets);
    let again = store.lock(&this_boot(), PATIENCE).unwrap().allocate(claim("a"), &sets, &[]);
    assert!(matches!(again, Err(StoreError::AlreadyAttached { .. })), "{again:?}");
    let record = store.find(&key("a")).unwrap().unwrap();
    assert_eq!((record.key(), &record.addresses), (key("a"), &addresses));
    assert_eq!(record.netns, claim("a").netns);
    assert!(record.is_from(&this_boot()) && !record.is_from(&boot("another")));
    let released = store.lock(&this_boot(), PATIENCE).unwrap().release(&key("a")).unwrap().unwrap();
    assert_eq!(released.addresses, addresses);
    assert!(!del(&store, "a"));
    assert!(!del(&store, "never-added"));
    assert_eq!(store.find(&key("a")).unwrap(), None);
}

#[test]
fn addresses_of_another_ipam_plugin_are_held_like_our_own() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let mut locked = store.lock(&this_boot(), PATIENCE).unwrap();
    let theirs = [ip("192.0.2.9"), ip("2001:db8::9")];
    locked.adopt(claim("a"), &theirs).unwrap();
    let error = locked.adopt(claim("b"), &[ip("192.0.2.10"), ip("192.0.2.9")]).unwrap_err();
    assert!(matches!(error, StoreError::Taken { address, .. } if address == theirs[0]), "{error}");
    drop(locked);
    assert_eq!(audit(&scratch.root()).into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn the_young_are_told_from_the_old_whatever_the_clock_does() {
    let scratch = Scratch::new();
    let env = TestEnv::new();
    let store = scratch.store_in(&env);
    add(&store, "a", &dual_stack());
    let record = store.find(&key("a")).unwrap().unwrap();
    let limit = Duration::from_secs(60);
    assert!(record.is_younger_than(limit, record.created));
    assert!(record.is_younger_than(limit, record.created + 59));
    assert!(!record.is_younger_than(limit, record.created + 60));
    assert!(!record.is_younger_than(limit, record.created - 1), "a record from the future is old");
}

#[test]
fn usage_counts_without_writing_and_without_a_store() {
    let scratch = Scratch::new();
    assert!(Store::open_existing(&scratch.data_dir(), &network()).unwrap().is_none());
    assert!(!scratch.data_dir().exists(), "looking has made the data directory");
    let (store, sets) = (scratch.store(), dual_stack());
    let usage = store.usage(&this_boot(), &sets).unwrap();
    assert_eq!((usage[0].held, usage[0].free), (0, 5));
    add(&store, "a", &sets);
    add(&store, "b", &sets);
    del(&store, "a");
    let usage = store.usage(&this_boot(), &sets).unwrap();
    assert_eq!((usage[0].held, usage[0].free), (1, 4));
    assert_eq!((usage[1].held, usage[1].free), (1, u128::from(u64::MAX) - 2));
    // After a reboot nobody holds anything, before anybody has swept: STATUS must not wait for an ADD
    // that the runtime sends only once STATUS is content.
    assert_eq!(store.usage(&boot("next"), &sets).unwrap()[0].free, 5);
}

#[test]
fn the_files_are_for_root_alone_and_read_well() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    add(&scratch.store(), "a", &dual_stack());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for dir in ["", "by-id", "by-ip", "tmp", "cooldown"] {
        assert_eq!(mode(&scratch.root().join(dir)), 0o700, "{dir}");
    }
    for file in ["lock", "boot", "next", "by-id/a@eth0", "by-ip/10.1.2.2"] {
        assert_eq!(mode(&scratch.root().join(file)), 0o600, "{file}");
    }
    assert_eq!(std::fs::read_to_string(scratch.root().join("next")).unwrap(), "10.1.2.2\nfd00:1::2\n");
    let json = std::fs::read_to_string(scratch.root().join("by-ip/fd00:1::2")).unwrap();
    assert!(json.starts_with("{\n  \"version\": 1,\n") && json.ends_with("}\n"), "{json}");
}

#[test]
fn nonsense_in_the_cursor_is_no_cursor() {
    let scratch = Scratch::new();
    let (store, sets) = (scratch.store(), [set("10.1.2.0/29")]);
    for (n, nonsense) in
        [b"".as_slice(), b"\xff\0\n\n", b"10.9.9.9\n", b"10.1.2\n10.1.2.300\n", &[b'1'; 9000]]
            .into_iter()
            .enumerate()
    {
        std::fs::write(scratch.root().join("next"), nonsense).unwrap();
        let address = add(&store, &format!("c{n}"), &sets);
        assert_eq!(address, [ip(&format!("10.1.2.{}", n + 2))]);
        let next = std::fs::read_to_string(scratch.root().join("next")).unwrap();
        assert_eq!(next, format!("{}\n", address[0]));
    }
}

proptest! {
    #[test]
    fn the_choice_is_the_first_free_in_turn_or_the_longest_rested(
        states in proptest::collection::vec(0_u8..4, 13),
        last in proptest::option::of(0_u8..16),
        tries in 1_usize..20,
    ) {
        let set = set("10.1.2.0/28");
        let all: Vec<IpAddr> = set.addresses_after(None).collect();
        let state = |n: u8| match n {
            0 => State::Free,
            1 => State::CoolingDown(Age::Recent),
            2 => State::CoolingDown(Age::Older),
            _ => State::Held,
        };
        let states: HashMap<IpAddr, State> =
            all.iter().copied().zip(states.into_iter().map(state)).collect();
        let last = last.map(|n| ip(&format!("10.1.2.{n}")));
        let mut asked = 0;
        let choice = choose_address(&set, last, tries, |address| {
            asked += 1;
            Ok(states[&address])
        }).unwrap();
        prop_assert!(asked <= tries);
        let order: Vec<IpAddr> = set.addresses_after(last).collect();
        let first = |wanted: State| order.iter().copied().find(|address| states[address] == wanted);
        let place = |address: IpAddr| order.iter().position(|other| *other == address).unwrap();
        let free = first(State::Free);
        let expected = match free {
            Some(address) if place(address) < tries => Choice::Take(address),
            _ if order.len() > tries => Choice::GaveUp,
            _ => first(State::CoolingDown(Age::Older))
                .or(first(State::CoolingDown(Age::Recent)))
                .map_or(Choice::Exhausted, Choice::Take),
        };
        prop_assert_eq!(choice, expected);
    }
}

proptest! {
    // Each case is some hundred system calls: fewer cases than usual.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_comes_and_goes_no_address_is_given_twice(
        steps in proptest::collection::vec((0_u8..8, 0_u64..50), 1..60),
    ) {
        let scratch = Scratch::in_memory();
        let env = TestEnv::new();
        let (store, sets) = (scratch.store_in(&env), dual_stack());
        let mut held: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        let mut now = 1_800_000_000;
        for (container, seconds) in steps {
            now += seconds;
            env.set_clock(now);
            let name = format!("c{container}");
            let mut locked = store.lock(&this_boot(), PATIENCE).unwrap();
            if held.remove(&name).is_some() {
                prop_assert!(locked.release(&key(&name)).unwrap().is_some());
            } else {
                match locked.allocate(claim(&name), &sets, &[]) {
                    Ok((record, _)) => { held.insert(name, record.addresses.into_iter().collect()); }
                    Err(error) => {
                        let exhausted = matches!(error, StoreError::Exhausted { .. });
                        prop_assert!(exhausted && held.len() == 5, "{error} at {}", held.len());
                    }
                }
            }
        }
        prop_assert_eq!(audit(&scratch.root()), held);
    }
}

/// What is written can be read; what could not be is refused, and holds nothing.
#[test]
fn a_record_of_any_size_is_read_again_or_not_written() {
    let scratch = Scratch::new();
    let (store, sets) = (scratch.store(), [set("10.1.2.0/29")]);
    let with_ports = |container: &str, count: u32| {
        let port = |n: u32| HostPort {
            host_ip: Some(IpAddr::from([0xfd00, 0xaaaa, 0xbbbb, 0xcccc, 0xdddd, 0xeeee, 0xffff, n as u16])),
            host_port: 60_000,
            container_port: 60_000,
            protocol: Protocol::Sctp,
        };
        Claim { host_ports: (0..count).map(port).collect(), ..claim(container) }
    };
    let allocate = |claim: Claim| store.lock(&this_boot(), PATIENCE).unwrap().allocate(claim, &sets, &[]);
    // More than a conf of 131,072 values can name.
    let (record, lock) = allocate(with_ports("large", 33_000)).unwrap();
    drop(lock);
    assert_eq!(store.find(&record.key()).unwrap(), Some(record));
    assert!(del(&store, "large"));
    let error = allocate(with_ports("huge", 60_000)).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    assert_eq!(store.attachments().unwrap().len(), 0);
    assert_eq!(audit(&scratch.root()).len(), 0);
}
