//! ADD after an ADD that was killed: "container veth name (eth0) peer provided already exists"
//! (containerd#7010: after a restart of the runtime a whole node of pods was stuck).

use std::sync::mpsc;
use std::time::Duration;

use crate::harness::call::Running;
use crate::harness::ip;
use crate::harness::node::Node;
use crate::harness::packets::answers_ping;
use crate::harness::pod::{Pod, addresses_of};

/// How long ADD takes at most in which it is killed; shorter steps than the messages it sends.
const STEP: Duration = Duration::from_micros(100);

/// Kills an ADD after `delay`. Whether it had answered by then.
fn kill_after(mut add: Running, delay: Duration) -> bool {
    // Waits without sleeping: nobody ever sends.
    let (_sender, receiver) = mpsc::channel::<()>();
    let _ = receiver.recv_timeout(delay);
    add.kill();
    !add.wait_for_any_end().stdout.is_empty()
}

/// Kills ADDs at ever later moments until one has answered, and expects that the next ADD of the same container
/// works, whatever the killed one had left.
#[test]
fn an_add_after_a_killed_one_of_the_same_container_works() {
    let node = Node::new();
    let conf = node.conf();
    let (mut killed, mut left_something) = (0, 0);
    // On a busy machine a whole sweep may pass in which each comes too early but the last, which comes too late.
    let (mut attempt, mut sweeps) = (0, 0);
    while sweeps == 0 || (left_something == 0 && sweeps < 20) {
        let pod = Pod::new("pod");
        let had_answered = kill_after(node.call_for("ADD", &pod, &conf).spawn(), STEP * attempt);
        if had_answered {
            node.del(&pod, &conf);
            (attempt, sweeps) = (0, sweeps + 1);
            continue;
        }
        killed += 1;
        let left = (node.host_links(), node.known_attachments());
        left_something += u32::from(!left.0.is_empty() || !left.1.is_empty());
        let answer = node.try_add(&pod, &conf);
        let when = STEP * attempt;
        assert!(answer.status.success(), "killed after {when:?}, which left {left:?}: {answer:?}");
        let result = answer.result();
        for address in addresses_of(&result) {
            assert!(
                answers_ping(node.namespace(), &address),
                "{address} after a kill at {:?}",
                STEP * attempt
            );
        }
        node.check(&pod, &conf, &result).success();
        assert_eq!(node.held_addresses().len(), 2);
        assert_eq!(node.host_links().len(), 1);
        node.del(&pod, &conf);
        node.expect_nothing_left();
        attempt += 1;
    }
    assert!(killed > 0 && left_something > 0, "{killed} were killed, {left_something} of them half-way");
}

/// The runtime's own answer to a killed ADD.
#[test]
fn a_del_after_a_killed_add_leaves_nothing() {
    let node = Node::new();
    let conf = node.conf();
    for attempt in 0.. {
        let pod = Pod::new("pod");
        let had_answered = kill_after(node.call_for("ADD", &pod, &conf).spawn(), STEP * attempt);
        node.del(&pod, &conf);
        node.expect_nothing_left();
        assert!(ip::link(pod.namespace(), "eth0").is_none());
        if had_answered {
            break;
        }
    }
}
