//! Two runtimes, or one that lost its memory, working on one container at the same time
//! (containerd#7010, cri-o#2984).

use super::{Random, Stormnet, addresses_in, all_at_once};
use crate::harness::answer::Answer;
use crate::harness::netns::Namespace;
use crate::harness::pod::addresses_of;

/// Everybody but one is told that it is attached already, and nobody spoils the one.
#[test]
fn of_sixteen_adds_of_one_container_one_wins_and_its_pod_is_whole() {
    let net = Stormnet::new(2);
    let pod = Namespace::new("pod");
    let answers = all_at_once(16, 16, |_| net.run("ADD", "the-one", &pod));
    let (won, lost): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status.success());
    assert_eq!(won.len(), 1, "{answers:#?}");
    for loser in lost {
        assert!(loser.text().contains("attached already"), "{loser:?}");
    }
    let addresses = addresses_of(&won[0].result());
    assert_eq!(addresses_in(&pod), addresses);
    assert_eq!(net.recorded("the-one"), addresses);
    assert_eq!(net.host_links().len(), 1);
    let mut held = addresses;
    held.sort();
    assert_eq!(net.store().held(), held);
}

/// The specification forbids runtimes to do this; it is done all the same. An ADD that a DEL comes between may
/// fail, but takes itself back, and never is a DEL to free the address of a pod that stands.
#[test]
fn sixteen_processes_that_add_and_delete_one_container_leave_nothing_behind() {
    let net = Stormnet::new(2);
    let pod = Namespace::new("pod");
    let mut random = Random::seeded();
    let commands: Vec<&str> = (0..160).map(|_| ["ADD", "DEL"][random.below(2) as usize]).collect();
    let answers = all_at_once(commands.len(), 16, |n| net.run(commands[n], "the-one", &pod));
    for (command, answer) in commands.iter().zip(&answers) {
        let refused = ["\"code\": 101", "\"code\": 103"].iter().any(|code| answer.text().contains(code));
        assert!(answer.status.success() || (*command == "ADD" && refused), "{command}: {answer:?}");
        assert!(!answer.text().contains("could not be taken back"), "{command}: {answer:?}");
    }
    // What stands now has a record of its own address, and what does not has neither.
    let held = addresses_in(&pod);
    assert_eq!(net.store().held().len(), held.len());
    if !held.is_empty() {
        assert_eq!(net.recorded("the-one"), held);
    }
    assert!(net.run("DEL", "the-one", &pod).status.success());
    assert_eq!(addresses_in(&pod), [""; 0]);
    net.store().expect_empty();
    assert!(net.host_links().is_empty(), "{:?}", net.host_links());
    assert_eq!(net.pod_routes(), [""; 0]);
}
