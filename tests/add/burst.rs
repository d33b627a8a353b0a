//! The first packet, at the very moment at which the runtime has the result, on a node that is busy.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::Value;

use kit::netns::inside;
use kit::node::Node;
use kit::pod::{Pod, addresses_of};

/// A link that was set up before its other end carries nothing until the kernel's link watch has come by, which
/// on a busy node takes milliseconds; until then packets are dropped in silence, and whoever sent the first one
/// waits a second for TCP to try again.
#[test]
fn the_first_packet_arrives_on_a_busy_node() {
    let node = Node::new();
    let conf = node.conf();
    std::thread::scope(|scope| {
        let busy: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..25).for_each(|_| exchange(&node, &conf)))).collect();
        busy.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Sends a datagram of each family to a new pod as soon as ADD has answered, and has it sent back.
fn exchange(node: &Node, conf: &Value) {
    let pod = Pod::new("pod");
    let open = |any: &str| {
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        socket
    };
    let sockets = ["0.0.0.0", "::"].map(|any| {
        let (ours, pods) = (inside(node.namespace(), || open(any)), inside(pod.namespace(), || open(any)));
        let port = pods.local_addr().unwrap().port();
        (ours, pods, port)
    });
    let mut add = node.call_for("ADD", &pod, conf).spawn();
    let addresses = addresses_of(&serde_json::from_slice(&add.stdout()).expect("a result"));
    for ((ours, _, port), address) in sockets.iter().zip(&addresses) {
        ours.send_to(b"hello", (address.as_str(), *port)).unwrap();
    }
    let mut word = [0; 8];
    for ((ours, pods, _), address) in sockets.iter().zip(&addresses) {
        let received = pods.recv_from(&mut word);
        let (_, from) = received.unwrap_or_else(|error| panic!("the first packet to {address}: {error}"));
        pods.send_to(b"you", from).unwrap();
        let received = ours.recv_from(&mut word);
        received.unwrap_or_else(|error| panic!("the first packet from {address}: {error}"));
    }
    add.wait().success();
    node.del(&pod, conf);
}
