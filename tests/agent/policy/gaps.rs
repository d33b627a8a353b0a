//! Agents die, API servers go away, tables are flushed: nothing that is forbidden passes, nothing that is allowed is lost.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::world::{Flows, Member, PORT, World, only};

/// Pods `a`, which only `b` may reach, and `c`, which may not.
fn guarded(role: &str) -> (World, Member, Member, Member) {
    let world = World::new(role);
    let pod = |name: &str| world.pod("shop", name, json!({ "app": name }));
    let (a, b, c) = (pod("a"), pod("b"), pod("c"));
    world.policy("shop", "some", only("a", "b"));
    world.expect("allowed", &b, &a, true);
    world.expect("forbidden", &c, &a, false);
    world.expect("forbidden", &a, &c, false);
    (world, a, b, c)
}

/// Flows that are allowed and that are not, of both families and directions, while something happens: how many of the
/// first were lost, and of the second answered.
fn wrong_while(a: &Member, b: &Member, c: &Member, happens: impl FnOnce()) -> (u64, u64) {
    let start = |from: &Member, to: &Member, family: usize, are_allowed| {
        Flows::start(from.pod.namespace(), &to.addresses[family], PORT, are_allowed)
    };
    let allowed = [start(b, a, 0, true), start(a, b, 1, true)];
    let forbidden = [start(c, a, 0, false), start(a, c, 1, false)];
    happens();
    let sum = |ends: Vec<(u64, u64)>| ends.iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    let (asked, answered) = sum(allowed.into_iter().map(Flows::end).collect());
    let (tried, passed) = sum(forbidden.into_iter().map(Flows::end).collect());
    println!(
        "of {asked} allowed flows {} were lost, of {tried} forbidden ones {passed} passed",
        asked - answered
    );
    assert!(asked > 100 && tried > 100, "{asked} {tried}");
    (asked - answered, passed)
}

fn a_while() {
    std::thread::sleep(Duration::from_millis(400));
}

#[test]
fn killed_and_started_again_nothing_is_wrong() {
    let (mut world, a, b, c) = guarded("killed");
    let table = world.node.nft("-a list table inet ferrule-policy");
    let wrong = wrong_while(&a, &b, &c, || {
        for _ in 0..3 {
            a_while();
            world.node.end(Signal::KILL);
            a_while();
            world.node.start_ready();
            world.node.wait("what it applies", || world.node.log().contains("network policies applied"));
        }
        a_while();
    });
    assert_eq!(wrong, (0, 0));
    // Counters count on, all else is as it was made.
    let without_counts = |text: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        words
            .iter()
            .filter(|word| word.parse::<u64>().is_err())
            .map(|it| (*it).to_owned())
            .collect::<Vec<_>>()
    };
    let now = world.node.nft("-a list table inet ferrule-policy");
    assert_eq!(without_counts(&now), without_counts(&table));
    assert_eq!(table.matches("# handle").count(), now.matches("# handle").count());
}

#[test]
fn with_the_api_server_away_pods_come_and_go_guarded() {
    let (world, a, b, c) = guarded("away");
    let gone = world.pod("shop", "gone", json!({ "app": "b" }));
    world.expect("before", &gone, &a, true);
    let wrong = wrong_while(&a, &b, &c, || {
        world.node.api.be_away(true);
        // One that nobody has told of is held: nobody knows whether it may.
        let uid = world.schedule("shop", "new", json!({ "app": "b" }));
        let new = world.attach("shop", "new", &uid);
        world.expect("not known", &new, &a, false);
        world.expect("not known", &a, &new, false);
        world.remove(gone);
        a_while();
        world.node.api.be_away(false);
        world.tell_addresses(&new);
        world.expect("known", &new, &a, true);
        world.expect("known", &a, &new, true);
    });
    assert_eq!(wrong, (0, 0));
    world.remove_policy("shop", "some");
    world.node.wait("the table's end", || !world.has_table());
}

#[test]
fn a_policy_that_changes_a_hundred_times_is_never_half() {
    let (world, a, b, c) = guarded("changes");
    let wrong = wrong_while(&a, &b, &c, || {
        for turn in 0..100 {
            let mut spec = only("a", "b");
            spec["ingress"][0]["ports"] = json!([{ "protocol": "UDP", "port": PORT },
                { "protocol": "TCP", "port": 1000 + turn }]);
            world.policy("shop", "some", spec);
            std::thread::sleep(Duration::from_millis(8));
        }
        let has_last = || world.node.nft("list table inet ferrule-policy").contains("1099");
        world.node.wait("the last of them", has_last);
    });
    assert_eq!(wrong, (0, 0));
}

/// Nobody can keep what is forbidden out while there is no table; it is there again in milliseconds.
#[test]
fn a_table_that_somebody_flushes_is_back_at_once() {
    let (world, a, b, c) = guarded("flushed");
    let deeds = [
        "flush ruleset",
        "delete table inet ferrule-policy",
        "flush chain inet ferrule-policy policy_in",
        "flush map inet ferrule-policy to_pod",
        "flush table inet ferrule-policy",
    ];
    for deed in deeds {
        let (lost, passed) = wrong_while(&a, &b, &c, || {
            world.node.nft(deed);
            let is_back = || {
                let table = world.node.nft("list table inet ferrule-policy");
                table.contains(&format!("goto in-{}", a.uid))
                    && table.contains(&format!("goto out-{}", a.uid))
                    && table.contains("vmap @to_pod")
            };
            let took = world.node.wait(deed, is_back);
            println!("{deed}: back after {took:?}");
            world.expect("forbidden again", &c, &a, false);
            world.expect("forbidden again", &a, &c, false);
        });
        assert_eq!(lost, 0, "{deed}");
        // Two thousand a second are tried; what passed did so before anybody could know.
        assert!(passed < 1_000, "{deed}: {passed}\n{}", world.node.log());
    }
    assert!(world.node.metric("ferrule_policy_tables_repaired_total").is_some_and(|count| count >= 4.0));
}

/// A table that is gone while no API server answers is made from what the agent kept on disk.
#[test]
fn flushed_while_nobody_looks_it_is_made_from_disk() {
    let (mut world, a, b, c) = guarded("disk");
    world.node.wait("the file", || world.node.has("data/podnet/policy"));
    world.node.api.be_away(true);
    world.node.end(Signal::KILL);
    world.node.nft("delete table inet ferrule-policy");
    world.expect("open without a table", &c, &a, true);
    world.node.start();
    world.expect("closed from disk", &c, &a, false);
    world.expect("closed from disk", &a, &c, false);
    world.expect("allowed from disk", &b, &a, true);
    let cut = || world.node.metric("ferrule_policy_flows_cut_total").is_some_and(|count| count >= 1.0);
    world.node.wait("the end of flows that began without a table", cut);
    let wrong = wrong_while(&a, &b, &c, || {
        world.node.api.be_away(false);
        world.node.wait("its word", || world.node.log().matches("network policies applied").count() >= 2);
        a_while();
    });
    assert_eq!(wrong, (0, 0));
}

/// Whose store was removed under them: a policy that comes later isolates them like all others.
#[test]
fn pods_whose_records_were_removed_keep_their_policies() {
    let mut world = World::new("records-lost");
    let pod = |name: &str| world.pod("shop", name, json!({ "app": name }));
    let (a, b, c) = (pod("a"), pod("b"), pod("c"));
    world.node.end(Signal::KILL);
    std::fs::remove_dir_all(world.node.path("data")).unwrap();
    world.node.start_ready();
    world.node.wait_for_metric("ferrule_records_restored_total", 3.0);
    world.policy("shop", "some", only("a", "b"));
    world.wait_for_chains(&a);
    for (peer, is_allowed) in [(&b, true), (&c, false)] {
        world.expect("by its policy", peer, &a, is_allowed);
        world.expect("by its policy", &a, peer, is_allowed);
    }
    // Its own Service's way, too.
    let own = world.node.nft("list set inet ferrule-policy own4");
    assert!(a.addresses.iter().any(|address| own.contains(address.as_str())), "{own}");
}
