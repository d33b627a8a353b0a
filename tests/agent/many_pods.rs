//! A full node loses its address: with it go the routes to all its pods, without a word of the kernel's.

use std::time::{Duration, Instant};

use super::node::AgentNode;
use kit::call::Call;
use kit::ip;
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of};

/// Attachments, and in how many namespaces they are.
const PODS: usize = 250;
const NAMESPACES: usize = 50;

/// Against hangs alone: this runs beside all other tests.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn all_pods_are_reached_again_when_the_nodes_address_is_back() {
    let mut node = AgentNode::new("full");
    node.start_ready();
    let conf = node.conf();
    let pods: Vec<Pod> = (0..NAMESPACES).map(|number| Pod::new(&format!("p{number}"))).collect();
    let mut addresses = Vec::new();
    for number in 0..PODS {
        let pod = &pods[number % NAMESPACES];
        let add = Call::ferrule("ADD").on(&node.namespace).conf(&conf);
        let add = add.attachment(pod.container(), pod.namespace().path());
        let result = add.ifname(&format!("eth{}", number / NAMESPACES)).run().result();
        addresses.push(addresses_of(&result));
    }
    let of_pods = |family: &str| {
        let routes = ip::routes(&node.namespace, &format!("{family} proto 102"));
        routes.iter().filter(|route| route["dev"].as_str().is_some_and(|dev| dev.starts_with("veth"))).count()
    };
    let all = || (of_pods("-4"), of_pods("-6"));
    assert_eq!(all(), (PODS, PODS));
    for (family, address, more) in [("IPv4", "192.0.2.10/24", ""), ("IPv6", "fd00:aa::10/64", " nodad")] {
        let repairs = node.log().matches("drift repaired").count();
        node.namespace.ip(&format!("address delete {address} dev eth0"));
        node.namespace.ip(&format!("address add {address} dev eth0{more}"));
        let begin = Instant::now();
        node.wait_within(PATIENCE, "all routes", || all() == (PODS, PODS));
        let seen = begin.elapsed();
        node.wait_within(PATIENCE, "its word", || node.log().matches("drift repaired").count() > repairs);
        let said = node.log();
        let took = said.lines().rfind(|line| line.contains("drift repaired")).unwrap_or_default();
        println!("{family}, {PODS} pods: seen after {seen:?}; {took}");
    }
    for pod in addresses.iter().step_by(PODS / 10) {
        assert!(pod.iter().all(|address| answers_ping(&node.namespace, address)), "{pod:?}");
    }
}
