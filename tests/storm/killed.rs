//! 200 ADDs, 32 at a time, DELs between them, and a SIGKILL at any moment (plugins#498, k8s#57280).

use std::collections::{BTreeMap, HashMap};
use std::thread;
use std::time::Duration;

use super::{Random, Stormnet, addresses_in, all_at_once};
use crate::harness::netns::Namespace;
use crate::harness::packets::answers_ping;
use crate::harness::pod::addresses_of;

const PODS: usize = 200;
const WIDTH: usize = 32;

/// What is done to one pod, drawn before the storm so that it depends on the seed alone.
#[derive(Clone, Copy)]
enum Fate {
    /// ADD, and the pod stays.
    Stay,
    /// ADD, then DEL, then nothing.
    Leave,
    /// An ADD that is killed after so long. The runtime does not know, and forgets the pod.
    KilledAdd(Duration),
    /// An ADD that is killed, and then the same once more, as containerd does with the same id.
    KilledThenAdd(Duration),
    /// ADD, then a DEL that is killed after so long.
    KilledDel(Duration),
}

/// What the runtime knows of the pod afterwards.
#[derive(Debug)]
enum Known {
    Runs(Vec<String>),
    Gone,
    Unknown,
}

impl Fate {
    fn draw(random: &mut Random) -> Self {
        // Most of a command's steps lie in its first 8 ms if it is alone, and much later among 32.
        let span = if random.below(2) == 0 { 8_000 } else { 120_000 };
        let after = Duration::from_micros(random.below(span));
        match random.below(10) {
            0..4 => Self::Stay,
            4..6 => Self::Leave,
            6..8 => Self::KilledAdd(after),
            8 => Self::KilledThenAdd(after),
            _ => Self::KilledDel(after),
        }
    }
}

fn id(n: usize) -> String {
    format!("{n:064x}")
}

#[expect(clippy::disallowed_methods, reason = "the moment of a kill is a time, and no event")]
fn live(net: &Stormnet, n: usize, pod: &Namespace, fate: Fate) -> Known {
    let container = id(n);
    let add = || {
        let answer = net.run("ADD", &container, pod);
        assert!(answer.status.success(), "ADD {n}: {answer:?}");
        addresses_of(&answer.result())
    };
    let kill = |command: &str, after: Duration| {
        let mut running = net.call(command, &container, pod).spawn();
        thread::sleep(after);
        running.kill();
        running.wait_for_any_end()
    };
    match fate {
        Fate::Stay => Known::Runs(add()),
        Fate::Leave => {
            add();
            let answer = net.run("DEL", &container, pod);
            assert!(answer.status.success() && answer.stdout.is_empty(), "DEL {n}: {answer:?}");
            Known::Gone
        }
        Fate::KilledAdd(after) => {
            // It may have been done by then: the runtime died as well, and never saw the answer.
            kill("ADD", after);
            Known::Unknown
        }
        Fate::KilledThenAdd(after) => {
            let first = kill("ADD", after);
            if first.status.success() {
                return Known::Runs(addresses_of(&first.result()));
            }
            let second = net.run("ADD", &container, pod);
            if second.status.success() {
                return Known::Runs(addresses_of(&second.result()));
            }
            // Killed between its last step and its exit code: it stands, and says so. containerd sends DEL then.
            assert!(second.text().contains("attached already"), "ADD {n} after a killed one: {second:?}");
            assert!(net.run("DEL", &container, pod).status.success());
            Known::Runs(add())
        }
        Fate::KilledDel(after) => {
            add();
            kill("DEL", after);
            Known::Unknown
        }
    }
}

fn storm(families: usize) {
    let net = Stormnet::new(families);
    let mut random = Random::seeded();
    let pods: Vec<Namespace> = (0..PODS).map(|_| Namespace::new("pod")).collect();
    let fates: Vec<Fate> = pods.iter().map(|_| Fate::draw(&mut random)).collect();
    let known = all_at_once(PODS, WIDTH, |n| live(&net, n, &pods[n], fates[n]));

    nobody_shares_an_address(&pods);
    for (n, known) in known.iter().enumerate() {
        match known {
            Known::Runs(addresses) => stands(&net, n, &pods[n], addresses),
            Known::Gone => assert_eq!(addresses_in(&pods[n]), [""; 0], "pod {n} was deleted"),
            Known::Unknown => {}
        }
    }
    let running: Vec<(usize, &Vec<String>)> = known
        .iter()
        .enumerate()
        .filter_map(|(n, known)| if let Known::Runs(addresses) = known { Some((n, addresses)) } else { None })
        .collect();
    let valid: Vec<String> = running.iter().map(|(n, _)| id(*n)).collect();
    net.collect_garbage(&valid);
    only_these_are_left(&net, &running);
    for (n, addresses) in &running {
        stands(&net, *n, &pods[*n], addresses);
    }
    // And at the end of the day: none.
    net.collect_garbage(&[]);
    only_these_are_left(&net, &[]);
    for pod in &pods {
        assert_eq!(addresses_in(pod), [""; 0]);
    }
    every_address_can_be_had_again(&net, pods);
}

/// Read from the pods, whatever the store thinks.
fn nobody_shares_an_address(pods: &[Namespace]) {
    let mut holders: HashMap<String, usize> = HashMap::new();
    for (n, pod) in pods.iter().enumerate() {
        for address in addresses_in(pod) {
            let other = holders.insert(address.clone(), n);
            assert_eq!(other, None, "{address} is held by pod {n} as well");
        }
    }
}

/// A pod whose ADD succeeded has what it was told, and its node reaches it.
fn stands(net: &Stormnet, n: usize, pod: &Namespace, addresses: &[String]) {
    assert_eq!(addresses.len(), net.families);
    assert_eq!(addresses_in(pod), *addresses, "pod {n}");
    assert_eq!(net.recorded(&id(n)), *addresses, "the record of pod {n}");
    for address in addresses {
        assert!(answers_ping(net.node.namespace(), address), "pod {n} at {address}");
    }
}

/// Kernel and store hold exactly what runs.
fn only_these_are_left(net: &Stormnet, running: &[(usize, &Vec<String>)]) {
    let mut addresses: Vec<String> = running.iter().flat_map(|(_, addresses)| (*addresses).clone()).collect();
    addresses.sort();
    let records: Vec<String> = running.iter().map(|(n, _)| format!("{}@eth0", id(*n))).collect();
    assert_eq!(net.store().held(), addresses, "addresses in the store");
    assert_eq!(net.store().known(), records, "records in the store");
    assert_eq!(net.store().unfinished(), [""; 0], "half-done work in the store");
    assert_eq!(net.pod_routes(), addresses, "routes to pods");
    let links: BTreeMap<String, String> = net.host_links();
    let mut owners: Vec<&String> = links.values().collect();
    owners.sort();
    let wanted: Vec<String> =
        running.iter().map(|(n, _)| format!("ferrule:stormnet/{}/eth0", id(*n))).collect();
    assert_eq!(owners, wanted.iter().collect::<Vec<_>>(), "links on the node");
}

/// Nothing of the range is lost: it can be filled to the last address.
fn every_address_can_be_had_again(net: &Stormnet, mut pods: Vec<Namespace>) {
    // 10.245.0.0/24 less network, broadcast and gateway; IPv6 has no end.
    let capacity = 253;
    pods.resize_with(capacity + 1, || Namespace::new("refill"));
    let answers = all_at_once(capacity, 16, |n| net.run("ADD", &format!("refill-{n}"), &pods[n]));
    for answer in &answers {
        assert!(answer.status.success(), "{answer:?}");
    }
    let one_too_many = net.run("ADD", "refill-last", &pods[capacity]);
    assert!(one_too_many.text().contains("\"code\": 100"), "{one_too_many:?}");
    assert_eq!(net.store().held().len(), capacity * net.families);
}

#[test]
fn killed_at_any_moment_no_address_is_held_twice_and_none_is_lost() {
    storm(1);
}

#[test]
fn killed_at_any_moment_no_pair_of_addresses_is_held_twice_and_none_is_lost() {
    storm(2);
}
