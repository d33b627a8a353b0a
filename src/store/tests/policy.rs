//! What is remembered of the policies in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{PATIENCE, Scratch, boot, network, this_boot};
use crate::policy::plan::{HoldPlan, Isolation, Members, Plan, PodPlan, Tiers};
use crate::store::{Store, StoreError};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn plan() -> Plan {
    let rules = |name: &str| Isolation::Rules(name.to_owned());
    let pod = PodPlan {
        name: "default/web".to_owned(),
        ingress: rules("pi-1"),
        egress: Isolation::None,
        tiers: Tiers::default(),
    };
    let hold = HoldPlan { ingress: rules("pi-0"), egress: Isolation::Closed, tiers: Tiers::default() };
    Plan {
        sets: BTreeMap::from([
            ("peers-14".to_owned(), Members::Pods(BTreeSet::from([address("10.244.2.7")]))),
            ("peers-26".to_owned(), Members::Ports(BTreeSet::from([(address("fd00::7"), 6, 80)]))),
            ("blocks-14".to_owned(), Members::Blocks(vec![address("10.0.0.0")..=address("10.0.0.9")])),
        ]),
        chains: BTreeMap::new(),
        pods: BTreeMap::from([("2f1f".to_owned(), pod)]),
        holds: BTreeMap::from([("default".to_owned(), hold)]),
    }
}

#[test]
fn the_plan_is_read_again_as_it_was_until_removed() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let exists = || Store::has_policy(&scratch.data_dir(), &network());
    assert_eq!((store.policy(&this_boot()).unwrap(), exists()), (None, false));
    let remember =
        |plan: Option<&Plan>| store.lock(&this_boot(), PATIENCE).unwrap().remember_policy(plan).unwrap();
    remember(None);
    std::fs::write(scratch.root().join("tmp/policy"), "left by one that died").unwrap();
    remember(Some(&plan()));
    remember(Some(&plan()));
    let read = store.policy(&this_boot()).unwrap().unwrap();
    assert_eq!((read.plan, read.has_members, exists()), (plan(), true, true));
    assert!(!scratch.root().join("tmp/policy").exists());
    remember(None);
    assert_eq!((store.policy(&this_boot()).unwrap(), exists()), (None, false));
}

#[test]
fn a_plan_of_version_0_1_is_read() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let file = include_str!("../../../tests/formats/0.1/policy");
    std::fs::write(scratch.root().join("policy"), file).unwrap();
    let read = store.policy(&this_boot()).unwrap().unwrap();
    assert_eq!((read.plan.pods.len(), read.plan.holds.len(), read.has_members), (2, 1, true));
    assert_eq!(read.plan.sets["peers-14"], Members::Pods(BTreeSet::from([address("198.18.0.1")])));
    assert_eq!(read.plan.chains["pi-1"].ports.len(), 2);
}

#[test]
fn after_a_reboot_nobody_is_in_its_sets_of_pods() {
    let scratch = Scratch::new();
    let store = scratch.store();
    store.lock(&this_boot(), PATIENCE).unwrap().remember_policy(Some(&plan())).unwrap();
    // The sweep of the next boot leaves it alone.
    drop(store.lock(&boot("the-next-one"), PATIENCE).unwrap());
    let read = store.policy(&boot("the-next-one")).unwrap().unwrap();
    let mut wanted = plan();
    wanted.sets.insert("peers-14".to_owned(), Members::Pods(BTreeSet::new()));
    wanted.sets.insert("peers-26".to_owned(), Members::Ports(BTreeSet::new()));
    assert_eq!((read.plan, read.has_members), (wanted, false));
}

#[test]
fn members_that_do_not_fit_are_left_out() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let mut large = plan();
    let many = (0..600_000_u32).map(|number| IpAddr::V4((0x0a00_0000 + number).into()));
    large.sets.insert("peers-34".to_owned(), Members::Pods(many.collect()));
    store.lock(&this_boot(), PATIENCE).unwrap().remember_policy(Some(&large)).unwrap();
    let read = store.policy(&this_boot()).unwrap().unwrap();
    assert!(!read.has_members);
    assert_eq!(read.plan.sets["peers-34"], Members::Pods(BTreeSet::new()));
    assert_eq!((read.plan.pods, read.plan.holds), (plan().pods, plan().holds));
}

#[test]
fn a_damaged_plan_is_an_error_and_no_empty_one() {
    let scratch = Scratch::new();
    let (store, file) = (scratch.store(), scratch.root().join("policy"));
    store.lock(&this_boot(), PATIENCE).unwrap().remember_policy(Some(&plan())).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for place in 0..whole.len() - 1 {
        let mut flipped = whole.clone();
        flipped[place] ^= 1;
        std::fs::write(&file, &flipped).unwrap();
        // A key that nobody knows any more is passed over, with what it says.
        if let Ok(read) = store.policy(&this_boot()) {
            let text = String::from_utf8_lossy(&flipped).into_owned();
            assert!(!text.contains("\"sum\""), "{text}");
            assert_eq!(read.unwrap().plan, plan());
        }
        std::fs::write(&file, &whole[..place]).unwrap();
        assert!(matches!(store.policy(&this_boot()), Err(StoreError::Damaged(_))), "{place}");
    }
    std::fs::write(&file, "{\"version\": 2}").unwrap();
    assert!(matches!(store.policy(&this_boot()), Err(StoreError::NewerFormat { version: 2, .. })));
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert!(matches!(store.policy(&this_boot()), Err(StoreError::Damaged(_))), "no link is followed");
    assert!(Store::has_policy(&scratch.data_dir(), &network()));
    // The agent writes it again, whatever stands there.
    store.lock(&this_boot(), PATIENCE).unwrap().remember_policy(Some(&plan())).unwrap();
    assert_eq!(store.policy(&this_boot()).unwrap().unwrap().plan, plan());
}
