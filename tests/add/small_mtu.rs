//! Links too small for IPv6: below 1280 bytes the kernel gives a link no IPv6 part at all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};

use kit::ip;
use kit::netns::{Namespace, inside};
use kit::node::{Node, OUTSIDE_V4, OUTSIDE_V6, SUBNET_V4, SUBNET_V6};
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::traffic::PATIENT;

fn conf_of_ipv4(node: &Node) -> Value {
    node.conf_with(json!([[{ "subnet": SUBNET_V4 }]]))
}

fn mtus(node: &Node, pod: &Pod, result: &Value) -> [u64; 2] {
    let of = |namespace, name: &str| ip::link(namespace, name).unwrap()["mtu"].as_u64().unwrap();
    [of(node.namespace(), &host_link_of(result)), of(pod.namespace(), "eth0")]
}

/// Attaches, looks and removes: all of it must succeed, and nothing may be left.
fn live(node: &Node, conf: &Value, mtu: u64) {
    let pod = Pod::new("pod");
    node.status(conf).success();
    let result = node.add(&pod, conf);
    assert_eq!(mtus(node, &pod, &result), [mtu; 2]);
    node.check(&pod, conf, &result).success();
    for address in addresses_of(&result) {
        assert!(answers_ping(node.namespace(), &address), "{address}");
    }
    assert!(answers_ping(pod.namespace(), OUTSIDE_V4));
    node.del(&pod, conf);
    node.expect_nothing_left();
}

/// How much of a megabyte comes through.
fn transfer(from: &Namespace, to: &Namespace, address: &str) -> usize {
    let listener = inside(to, || TcpListener::bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let mut client = inside(from, || TcpStream::connect_timeout(&target, PATIENT).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENT)).unwrap();
    client.set_write_timeout(Some(PATIENT)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || client.write_all(&[7; 1 << 20]).unwrap());
        let mut came = Vec::new();
        server.read_to_end(&mut came).map(|_| came.len()).unwrap_or(0)
    })
}

#[test]
fn an_ipv4_network_works_with_any_mtu() {
    for mtu in [1279, 1200, 576, 68] {
        let node = Node::new();
        let mut conf = conf_of_ipv4(&node);
        conf["mtu"] = json!(mtu);
        live(&node, &conf, mtu);
        // With the link that a limit of what the pod sends needs, and a port on the node.
        conf["runtimeConfig"] = json!({
            "bandwidth": { "ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000 },
            "portMappings": [{ "hostPort": 30080, "containerPort": 80, "protocol": "tcp" }],
        });
        live(&node, &conf, mtu);
    }
}

#[test]
fn an_ipv4_network_works_on_any_uplink() {
    for mtu in [1279, 1200, 576] {
        let node = Node::with_mtu(1500);
        node.namespace().ip(&format!("link set uplink mtu {mtu}"));
        live(&node, &conf_of_ipv4(&node), mtu);
    }
}

#[test]
fn an_mtu_in_the_pods_annotation_works_as_that_of_the_conf() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = conf_of_ipv4(&node);
    conf["runtimeConfig"] = json!({ "io.kubernetes.cri.pod-annotations": { "ferrule.dev/mtu": "1200" } });
    let result = node.add(&pod, &conf);
    assert_eq!(mtus(&node, &pod, &result), [1200; 2]);
    node.check(&pod, &conf, &result).success();
}

/// What the uplink cannot carry whole, IPv4 is told; and an uplink without IPv6 leads no packet of it anywhere.
#[test]
fn dual_stack_on_a_small_uplink_has_the_least_mtu_of_ipv6() {
    let node = Node::new();
    for (namespace, link) in [(node.namespace(), "uplink"), (node.outside(), "down")] {
        namespace.ip(&format!("link set dev {link} mtu 1200"));
    }
    let (pod, other, conf) = (Pod::new("pod"), Pod::new("other"), node.conf());
    node.status(&conf).success();
    let result = node.add(&pod, &conf);
    node.check(&pod, &conf, &result).success();
    assert_eq!(mtus(&node, &pod, &result), [1280; 2]);
    let addresses = addresses_of(&result);
    node.add(&other, &conf);
    for address in &addresses {
        assert!(answers_ping(other.namespace(), address), "{address}");
        assert_eq!(transfer(other.namespace(), pod.namespace(), address), 1 << 20, "{address}");
    }
    assert_eq!(transfer(pod.namespace(), node.outside(), OUTSIDE_V4), 1 << 20);
    assert_eq!(transfer(node.outside(), pod.namespace(), &addresses[0]), 1 << 20);
    node.del(&pod, &conf);
    node.del(&other, &conf);
    node.expect_nothing_left();
}

/// Each family has a way of its own, and the one of IPv6 is large enough.
#[test]
fn dual_stack_with_a_small_way_for_ipv4_alone_reaches_both() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let outside = node.outside().name().to_owned();
    node.namespace().ip_batch(&format!(
        "link add small mtu 1200 type veth peer name small0 mtu 1200 netns {outside}\n\
         link set small up\naddress add 198.19.0.2/24 dev small\n"
    ));
    node.outside().ip_batch(
        "link set small0 up\naddress add 198.19.0.1/24 dev small0\nroute replace 10.88.0.0/16 via 198.19.0.2\n",
    );
    node.namespace().ip("route replace default via 198.19.0.1");
    let result = node.add(&pod, &node.conf());
    assert_eq!(mtus(&node, &pod, &result), [1280; 2]);
    assert!(answers_ping(pod.namespace(), "198.19.0.1"));
    assert_eq!(transfer(pod.namespace(), node.outside(), "198.19.0.1"), 1 << 20);
    assert_eq!(transfer(pod.namespace(), node.outside(), OUTSIDE_V6), 1 << 20);
}

#[test]
fn an_mtu_of_the_conf_that_ipv6_cannot_have_is_told_by_status() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = node.conf();
    conf["mtu"] = json!(1279);
    for answer in [node.status(&conf), node.try_add(&pod, &conf)] {
        let said = answer.complaint(7);
        assert!(said.contains("mtu") && said.contains("IPv6 needs 1280"), "{said}");
    }
}

/// Which families another plugin gives is known when it has given them.
#[test]
fn an_mtu_too_small_for_what_a_delegate_gives_is_told_and_undone() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let given = node.data_dir().join("given");
    let mut conf = node.conf();
    (conf["cniVersion"], conf["mtu"]) = (json!("1.0.0"), json!(1200));
    conf["ipam"] = json!({
        "type": "host-local", "dataDir": given,
        "ranges": [[{ "subnet": SUBNET_V4 }], [{ "subnet": SUBNET_V6 }]],
    });
    conf["dataDir"] = json!(node.data_dir());
    let said = node.try_add(&pod, &conf).complaint(7);
    assert!(said.contains("mtu") && said.contains("IPv6 needs 1280"), "{said}");
    assert_eq!(node.host_links(), Vec::<String>::new());
    let held = node.namespace().sh(&format!("ls {}/podnet | grep -c '^[0-9f]' || true", given.display()));
    assert_eq!(held.trim(), "0");
    conf["ipam"]["ranges"].as_array_mut().unwrap().pop();
    let result = node.add(&pod, &conf);
    assert_eq!(mtus(&node, &pod, &result), [1200; 2]);
}
