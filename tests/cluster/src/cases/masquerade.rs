//! What leaves the cluster comes from the node; what stays inside is left alone (see also `pods`).

use std::time::Duration;

use crate::cluster::Family;
use crate::ensure;
use crate::fetch::{Asker, In, Outsider};
use crate::pod::{HTTP, Pod};
use crate::process::Result;
use crate::space::Space;

/// A host beside the nodes knows no way to a pod, and need not: it sees the node's address.
pub fn beyond_the_cluster_a_pod_has_its_nodes_address(space: &Space<'_>) -> Result {
    let pod = |node: &crate::cluster::Node| format!("on-{}", node.name);
    space.create(
        space
            .nodes
            .iter()
            .map(|node| Pod::running(&pod(node), &space.agnhost, &["pause"]).on(node).manifest()),
    )?;
    space.all_ready(Duration::from_secs(120))?;
    let outsider = Outsider::start(space)?;
    for node in &space.nodes {
        for address in outsider.addresses.iter().filter(|a| space.families.contains(&Family::of(a))) {
            let seen = In(space, &pod(node)).seen_as(*address, HTTP)?;
            let own = node.address(Family::of(address))?;
            ensure!(seen == own, "{} is seen as {seen}, not {own}", pod(node));
        }
    }
    Ok(())
}
