//! Routes to other nodes must not cost an ADD anything once they are there.

use crate::contender::{Contender, FERRULE, ferrule_conf};
use crate::lab::Lab;
use crate::report::{Report, Samples, Table};
use crate::{Effort, Failure};
use kit::netns::inside;
use serde_json::{Value, json};
use std::time::Duration;

const PEERS: usize = 5_000;

/// Fills "static peers" of the report.
pub fn measure(lab: &Lab, effort: &Effort, report: &mut Report) -> Result<(), Failure> {
    eprintln!("static peers: {} rounds", effort.single);
    let alone =
        Contender::ferrule(lab, &ferrule_conf(lab, "benchalone", "10.208.0.0/16", "fd00:10:208::/64"));
    let mut conf = ferrule_conf(lab, "benchpeers", "10.209.0.0/16", "fd00:10:209::/64");
    conf["peers"] = (0..PEERS).map(peer).collect();
    let among_peers = Contender::ferrule(lab, &conf);

    // A node each: the routes that one network wants are leftovers to the other.
    let nodes = [lab.make_netns("node-alone")?, lab.make_netns("node-among-peers")?];
    let first = inside(&nodes[1], || {
        lab.set_up_node()?;
        add_and_delete(lab, &among_peers)
    })?;
    inside(&nodes[0], || {
        lab.set_up_node()?;
        add_and_delete(lab, &alone)
    })?;

    let mut samples = [Samples::default(), Samples::default()];
    for _ in 0..effort.single {
        samples[0].push(inside(&nodes[0], || add_and_delete(lab, &alone))?);
        samples[1].push(inside(&nodes[1], || add_and_delete(lab, &among_peers))?);
    }
    let none = format!("{FERRULE}, no peers");
    let mut table = Table::new("ADD with static peers", &[&none]);
    table.row(&none, &samples[0]);
    table.row(&format!("{FERRULE}, {PEERS} peers, {PEERS} routes a family in place"), &samples[1]);
    table.row(&format!("{FERRULE}, {PEERS} peers, the first ADD"), &Samples::from(first));
    report.show(table);
    Ok(())
}

/// The time of the ADD.
fn add_and_delete(lab: &Lab, contender: &Contender) -> Result<Duration, Failure> {
    let pod = lab.make_pod()?;
    let elapsed = contender.add(&pod).run()?.elapsed;
    contender.del(&pod).run()?;
    lab.end_pods(&[pod])?;
    Ok(elapsed)
}

/// A peer of both families, its next hops on the underlay.
fn peer(i: usize) -> Value {
    let (high, low) = (i / 250, i % 250);
    json!({
        "node": format!("node-{i}"),
        "podCIDRs": [format!("11.{high}.{low}.0/24"), format!("fd00:11:{high:x}:{low:x}::/64")],
        "nodeIPs": [format!("192.168.{}.{}", high + 1, low + 1), format!("fd00:1::{:x}:{:x}", high + 1, low + 1)],
    })
}
