//! What an ADD and a DEL cost, in steps, which no other load on the machine can change.
//!
//! host-local reads every file of its directory at each ADD: 2 ms when it is empty, 385 ms at 60,000.

use std::fs;

use super::*;

/// More than half of the addresses that any node has.
const MANY: u32 = 60_000;

/// `count` addresses of 10.128.0.0/16 held, written here with the standard library alone; every
/// `hole`th is left free.
fn populate(scratch: &Scratch, count: u32, hole: u32) {
    drop(scratch.store().lock(&this_boot(), PATIENCE).unwrap());
    let base = u32::from_be_bytes([10, 128, 0, 2]);
    for n in (0..count).filter(|n| n % hole != hole - 1) {
        let address = std::net::Ipv4Addr::from_bits(base + n);
        let by_id = scratch.root().join(format!("by-id/c{n}@eth0"));
        fs::write(&by_id, b"").unwrap();
        fs::hard_link(&by_id, scratch.root().join(format!("by-ip/{address}"))).unwrap();
    }
}

/// Steps of one ADD and one DEL, each with everything that a command does: open, lock, work.
fn steps_of_add_and_del(scratch: &Scratch) -> (usize, usize) {
    let sets = [set("10.128.0.0/16")];
    let env = TestEnv::new();
    add(&scratch.store_in(&env), "new", &sets);
    let add = env.steps();
    del(&scratch.store_in(&env), "new");
    (add, env.steps() - add)
}

#[test]
fn an_add_and_a_del_take_the_same_steps_at_0_and_at_60_000_held() {
    let (empty, full) = (Scratch::in_memory(), Scratch::in_memory());
    populate(&empty, 0, 2);
    populate(&full, MANY, u32::MAX);
    // Where round robin stands after that many: at the last one.
    fs::write(full.root().join("next"), "10.128.234.97\n").unwrap();
    fs::write(empty.root().join("next"), "10.128.234.97\n").unwrap();
    let (add, del) = steps_of_add_and_del(&empty);
    assert_eq!(steps_of_add_and_del(&full), (add, del));
    assert!(add <= 35 && del <= 40, "an ADD takes {add} steps, a DEL {del}");
}

#[test]
fn a_set_full_of_small_holes_is_not_listed() {
    let scratch = Scratch::in_memory();
    populate(&scratch, 20_000, 100);
    for from in ["10.128.0.2", "10.128.60.60", "10.128.70.1"] {
        fs::write(scratch.root().join("next"), format!("{from}\n")).unwrap();
        let (add, _) = steps_of_add_and_del(&scratch);
        assert!(add <= 35 + 100, "an ADD from {from} takes {add} steps");
    }
}

#[test]
fn a_long_row_of_held_addresses_is_passed_by_one_listing() {
    let scratch = Scratch::in_memory();
    populate(&scratch, 5_000, u32::MAX);
    let (add, _) = steps_of_add_and_del(&scratch);
    // Two steps a try, 256 tries, and one step for each name listed.
    assert!((5_000..5_600).contains(&add), "an ADD takes {add} steps");
    let next = fs::read_to_string(scratch.root().join("next")).unwrap();
    assert_eq!(next, "10.128.19.138\n");
}

#[test]
fn a_dual_stack_add_beyond_any_bound_of_ipv6_costs_no_more() {
    let scratch = Scratch::in_memory();
    let sets = [set("10.0.0.0/8"), set("fd00::/8")];
    fs::create_dir_all(scratch.root()).unwrap();
    // The last address before the end: the turn goes over it.
    fs::write(scratch.root().join("next"), "10.255.255.254\nfdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n")
        .unwrap();
    let env = TestEnv::new();
    assert_eq!(add(&scratch.store_in(&env), "a", &sets), [ip("10.0.0.2"), ip("fd00::2")]);
    assert!(env.steps() < 60, "{} steps", env.steps());
}
