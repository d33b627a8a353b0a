//! An ADD that fails leaves nothing: no link, no record, no address, neither on the node nor in the pod.

use std::fs;
use std::os::unix::net::UnixListener;

use serde_json::json;

use kit::ip;
use kit::node::Node;
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of, host_link_of};

/// That the pod has nothing but what it came with.
fn expect_bare(pod: &Pod) {
    let links = ip::links(pod.namespace());
    assert_eq!(links.len(), 1, "{links:?}");
}

/// Nobody reads the result, so nobody will ever send a DEL for it.
#[test]
fn a_runtime_that_hung_up_gets_nothing_made() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let answer = node.call_for("ADD", &pod, &node.conf()).unread().run();
    assert_eq!(answer.status.code(), Some(1), "{answer:?}");
    node.expect_nothing_left();
    expect_bare(&pod);
    // And the next attempt works.
    node.add(&pod, &node.conf());
}

#[test]
fn a_result_that_cannot_be_written_is_taken_back() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let add = node.call_for("ADD", &pod, &node.conf());
    let answer = add.through(["sh", "-c", "exec \"$0\" \"$@\" >/dev/full"]).run();
    assert_eq!(answer.status.code(), Some(1), "{answer:?}");
    node.expect_nothing_left();
    expect_bare(&pod);
}

/// `ferrule >&-`: file descriptor 1 is not open at all.
#[test]
fn a_stdout_that_is_not_open_fails_the_add() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let add = node.call_for("ADD", &pod, &node.conf());
    let answer = add.through(["sh", "-c", "exec \"$0\" \"$@\" >&-"]).run();
    assert_eq!(answer.status.code(), Some(1), "{answer:?}");
    node.expect_nothing_left();
    expect_bare(&pod);
}

/// What a runtime passed by mistake is refused at once: nothing waits for the other end of a FIFO.
#[test]
fn a_netns_that_is_none_is_refused_and_nothing_is_made() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let place = node.scratch().path();
    node.scratch().make_fifo("fifo");
    fs::write(place.join("file"), "").unwrap();
    fs::create_dir(place.join("directory")).unwrap();
    let _socket = UnixListener::bind(place.join("socket")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.join("dangling")).unwrap();
    let mut paths: Vec<_> = ["fifo", "file", "directory", "socket", "dangling", "missing"]
        .iter()
        .map(|name| place.join(name))
        .collect();
    paths.extend(["/dev/null", "/proc/self/ns/mnt"].map(Into::into));
    for path in paths {
        let answer = node.call_for("ADD", &pod, &node.conf()).netns(&path).run();
        let said = answer.complaint(102);
        let shown = path.to_str().unwrap();
        assert!(said.contains(shown), "{shown}: {said}");
        node.expect_nothing_left();
    }
}

#[test]
fn the_nodes_own_namespace_is_no_pods() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    for path in [node.namespace().path().to_str().unwrap(), "/proc/self/ns/net", "/proc/thread-self/ns/net"] {
        let answer = node.call_for("ADD", &pod, &node.conf()).netns(path).run();
        let said = answer.complaint(102);
        assert!(said.contains("node's own"), "{said}");
        node.expect_nothing_left();
        assert!(ip::link(node.namespace(), "eth0").is_none());
    }
}

#[test]
fn an_interface_of_somebody_elses_is_left_alone() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    pod.namespace().ip("link add eth0 address 02:00:00:00:00:07 type bridge");
    let said = node.try_add(&pod, &node.conf()).complaint(101);
    assert!(said.contains("eth0") && said.contains("bridge"), "{said}");
    node.expect_nothing_left();
    assert_eq!(ip::link(pod.namespace(), "eth0").unwrap()["address"], "02:00:00:00:00:07");
}

/// The same with a veth of another plugin's, which is what an orchestrator that attaches twice leaves.
#[test]
fn a_veth_of_somebody_elses_is_left_alone() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    pod.namespace().ip("link add eth0 type veth peer name other");
    node.try_add(&pod, &node.conf()).failure(101);
    node.expect_nothing_left();
    assert!(ip::link(pod.namespace(), "eth0").is_some() && ip::link(pod.namespace(), "other").is_some());
}

/// Two pods with one address (aws-vpc-cni#711, calico#6244): whoever has a route to it may be using it.
#[test]
fn an_address_with_a_foreign_route_is_not_given_away() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    node.namespace().ip_batch(
        "link add foreign type bridge\n\
         link set foreign up\n\
         route add 10.88.0.2/32 dev foreign\n",
    );
    let said = node.try_add(&pod, &node.conf()).complaint(103);
    assert!(said.contains("10.88.0.2") && said.contains("File exists"), "{said}");
    assert_eq!(node.host_links(), ["foreign"]);
    assert_eq!(node.held_addresses(), Vec::<String>::new());
    expect_bare(&pod);
    assert_eq!(ip::routes(node.namespace(), "-4 10.88.0.2")[0]["dev"], "foreign");
    // The next attempt of the runtime gets another address.
    let given = addresses_of(&node.add(&pod, &node.conf()));
    assert_eq!(given[0], "10.88.0.3");
}

#[test]
fn the_same_for_an_ipv6_address() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    node.namespace().ip_batch(
        "link add foreign type bridge\n\
         link set foreign up\n\
         route add fd00:88::2/128 dev foreign\n",
    );
    let said = node.try_add(&pod, &node.conf()).complaint(103);
    assert!(said.contains("fd00:88::2"), "{said}");
    assert_eq!(node.host_links(), ["foreign"]);
    assert_eq!(node.held_addresses(), Vec::<String>::new());
    expect_bare(&pod);
}

#[test]
fn a_second_add_is_refused_and_the_first_stays_whole() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = node.conf();
    let result = node.add(&pod, &conf);
    let said = node.try_add(&pod, &conf).complaint(101);
    assert!(said.contains(pod.container()), "{said}");
    node.check(&pod, &conf, &result).success();
    for address in addresses_of(&result) {
        assert!(answers_ping(node.namespace(), &address));
    }
    assert_eq!(node.held_addresses().len(), 2);
}

/// All or nothing: the address of the first set is not lost when the second set has none left.
#[test]
fn a_family_without_a_free_address_takes_nothing_of_the_other() {
    let (node, one, other) = (Node::new(), Pod::new("one"), Pod::new("other"));
    let conf = node.conf_with(json!([[{ "subnet": "10.88.0.0/24" }], [{ "subnet": "fd00:88::7/128" }]]));
    node.add(&one, &conf);
    let said = node.try_add(&other, &conf).complaint(100);
    assert!(said.contains("fd00:88::7/128"), "{said}");
    assert_eq!(node.held_addresses(), ["10.88.0.2", "fd00:88::7"]);
    assert_eq!(node.host_links().len(), 1);
    expect_bare(&other);
}

/// A link of the name that ours must have, made by somebody else.
#[test]
fn a_foreign_link_of_the_host_links_name_is_not_taken_over() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = node.conf();
    let host = host_link_of(&node.add(&pod, &conf));
    node.del(&pod, &conf);
    node.namespace().ip(&format!("link add {host} type bridge"));
    let said = node.try_add(&pod, &conf).complaint(101);
    assert!(said.contains(&host), "{said}");
    assert_eq!(ip::link(node.namespace(), &host).unwrap()["linkinfo"]["info_kind"], "bridge");
    assert_eq!(node.held_addresses(), Vec::<String>::new());
    expect_bare(&pod);
}
