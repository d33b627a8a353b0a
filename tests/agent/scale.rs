//! Five thousand nodes of two families, through the real watch.

use std::time::{Duration, Instant};

use super::api::NodeSpec;
use super::node::AgentNode;
use kit::ip;

/// Most memory that the agent may ever have had, in KiB.
const MEMORY: u64 = 20 << 10;

/// What a build for tests has more than the static one that is installed, in KiB.
const TEST_BUILD: u64 = 2 << 10;

const NODES: u32 = 5_000;

/// Addresses of a /16 and of a /64 that the node is in.
fn node(number: u32) -> NodeSpec {
    let (high, low) = (number / 250, number % 250 + 1);
    NodeSpec::new(
        &format!("node-{number:04}.example.internal"),
        &[&format!("10.{}.{low}.0/24", 100 + high), &format!("fd00:10:{high:x}:{low:x}::/64")],
        &[&format!("172.20.{high}.{low}"), &format!("fd00:bb::{high:x}:{low:x}")],
    )
}

#[test]
fn five_thousand_nodes_take_little_memory_and_change_alone() {
    let mut agent = AgentNode::new("scale");
    agent
        .namespace
        .ip_batch("address add 172.20.255.1/16 dev eth0\naddress add fd00:bb::ffff/64 dev eth0 nodad\n");
    agent.api.preload((0..NODES).map(node));
    let mut own = super::node::own();
    own.internal_ips = vec!["172.20.255.1".into(), "fd00:bb::ffff".into()];
    agent.api.put(own);
    let begin = Instant::now();
    agent.start();
    let wanted = f64::from(2 * NODES);
    while agent.metric("ferrule_routes_programmed") != Some(wanted) {
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", agent.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{NODES} nodes of two families are programmed after {:?}", begin.elapsed());
    let count = |family: &str| {
        let routes = ip::routes(&agent.namespace, &format!("{family} proto 102"));
        routes.iter().filter(|route| route["gateway"].is_string()).count()
    };
    assert_eq!((count("-4"), count("-6")), (5_000, 5_000));
    agent.wait("readiness", || agent.page("/readyz").is_some_and(|page| page.contains(" 200 ")));
    println!("VmHWM after the list: {} KiB", agent.peak_memory());
    let steps = |step: &str| {
        agent.metric(&format!("ferrule_step_duration_seconds_count{{step=\"{step}\"}}")).unwrap_or(0.0)
    };
    let (all, some) = (steps("routes"), steps("routes_of_some"));
    let mut moved = node(77);
    moved.internal_ips = vec!["172.20.200.7".into(), "fd00:bb::c8:7".into()];
    let begin = Instant::now();
    agent.api.put(moved);
    while !agent.namespace.ip("route show 10.100.78.0/24").contains("172.20.200.7") {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("one node's new address is programmed after {:?}", begin.elapsed());
    agent.wait("the count", || steps("routes_of_some") >= some + 1.0);
    assert_eq!(steps("routes"), all, "no comparison of all routes for one node");
    let spent = agent.metric("ferrule_step_duration_seconds_sum{step=\"routes_of_some\"}");
    println!("time in the kernel for it: {spent:?} s");
    std::thread::sleep(Duration::from_secs(2));
    let peak = agent.peak_memory();
    println!("VmHWM: {peak} KiB");
    // A debug build is of another size altogether.
    assert!(cfg!(debug_assertions) || peak <= MEMORY + TEST_BUILD, "{peak} KiB");
}
