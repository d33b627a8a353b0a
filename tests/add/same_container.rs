//! Two runtimes, or one that lost its memory, working on one container at the same time (containerd#7010, cri-o#2984).

use serde_json::{Value, json};

use kit::answer::Answer;
use kit::at_once;
use kit::ip;
use kit::node::Node;
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of};

/// Everybody but one is told that it is attached already, and nobody spoils the one.
#[test]
fn of_sixteen_adds_of_one_container_one_wins() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = node.conf();
    let answers = at_once(16, 16, |_| node.try_add(&pod, &conf));
    let (won, lost): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status.success());
    assert_eq!(won.len(), 1, "{answers:#?}");
    for loser in lost {
        assert!(loser.text().contains("attached already"), "{loser:?}");
    }
    node.check(&pod, &conf, &won[0].result()).success();
    assert_eq!(node.host_links().len(), 1);
    let mut held = addresses_of(&won[0].result());
    held.sort();
    assert_eq!(node.held_addresses(), held);
}

/// The specification forbids runtimes to do this; it is done all the same. An ADD that a DEL comes between may fail, but
/// takes itself back, and never is a DEL to free the address of a pod that stands.
#[test]
fn adds_and_dels_of_one_container_at_once_leave_nothing() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = node.conf();
    let commands = ["ADD", "DEL", "DEL", "ADD", "ADD"];
    let answers = at_once(160, 16, |n| {
        let command = commands[n % commands.len()];
        (command, node.call_for(command, &pod, &conf).run())
    });
    for (command, answer) in &answers {
        let refused = ["\"code\": 101", "\"code\": 103"].iter().any(|code| answer.text().contains(code));
        assert!(answer.status.success() || (*command == "ADD" && refused), "{command}: {answer:?}");
        assert!(!answer.text().contains("could not be taken back"), "{command}: {answer:?}");
    }
    // What stands now has a record of its own address, and what does not has neither.
    let held = if ip::link(pod.namespace(), "eth0").is_some() { pod.addresses() } else { Vec::new() };
    assert_eq!(node.held_addresses().len(), held.len());
    node.del(&pod, &conf);
    assert!(ip::link(pod.namespace(), "eth0").is_none());
    node.expect_nothing_left();
}

/// The kernel and the specification allow an `@` in it, with which the store joins the parts of a record's name.
#[test]
fn an_interface_may_have_an_at_sign_in_its_name() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = node.conf();
    for name in ["eth0@x", "@", "eth@0@1"] {
        let call =
            |command: &str, conf: &Value| node.call_for(command, &pod, conf).env("CNI_IFNAME", name).run();
        let result = call("ADD", &conf).result();
        assert_eq!(result["interfaces"][1]["name"], name);
        for address in addresses_of(&result) {
            assert!(answers_ping(node.namespace(), &address), "{name}: {address}");
        }
        assert_eq!(node.known_attachments(), [format!("{}@{name}", pod.container())]);
        let mut with_result = conf.clone();
        with_result["prevResult"] = result;
        call("CHECK", &with_result).success();
        assert!(call("ADD", &conf).complaint(101).contains(name));
        let mut gc = conf.clone();
        gc["cni.dev/valid-attachments"] = json!([{ "containerID": pod.container(), "ifname": name }]);
        node.call("GC", &gc).run().success();
        call("CHECK", &with_result).success();
        call("DEL", &conf).success();
        node.expect_nothing_left();
        call("ADD", &conf).success();
        node.gc(&conf, &[]).success();
        node.expect_nothing_left();
    }
}
