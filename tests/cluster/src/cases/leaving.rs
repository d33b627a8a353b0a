//! A network that is no longer wanted.

use std::time::Duration;

use kit::documents::fences_of;

use crate::cluster::deploy;
use crate::ensure;
use crate::process::{Result, eventually};
use crate::space::Space;

/// By the lines of docs/install.md: the pods first, the agent, then what is on the nodes. Whatever came of it, ferrule
/// is installed again then, and works.
pub fn uninstalled_nodes_are_as_before(space: &Space<'_>) -> Result {
    let outcome = leave(space);
    install_again(space)?;
    outcome
}

/// As `scripts/kind.sh up` does, with the DNS that the steps have scaled down.
pub fn install_again(space: &Space<'_>) -> Result {
    system(space, &["apply", "--filename", &deploy("ferrule.yaml")])?;
    space.system_rolled_out("daemonset/ferrule")?;
    system(space, &["scale", "deployment/coredns", "--replicas=2"])?;
    space.system_rolled_out("deployment/coredns")
}

fn leave(space: &Space<'_>) -> Result {
    let fences = fences_of("docs/install.md");
    let lines_with = |words: &str| -> Result<Vec<&str>> {
        let fence = fences.iter().find(|fence| fence.info == "sh cluster" && fence.text.contains(words));
        Ok(fence.ok_or_else(|| format!("docs/install.md has no {words}"))?.lines().collect())
    };
    let [scale, stop, apply, status, delete] = lines_with("scale deployment/coredns")?[..] else {
        return Err("docs/install.md has other steps".into());
    };
    let [log] = lines_with("logs --selector app.kubernetes.io/name=ferrule-uninstall")?[..] else {
        return Err("docs/install.md has another log".into());
    };
    space.follow(scale)?;
    eventually("no pod has an address", Duration::from_secs(120), || {
        let pods = space.pods_with_addresses()?;
        ensure!(pods.is_empty(), "{} have", pods.len());
        Ok(())
    })?;
    space.follow(stop)?;
    space.follow(apply)?;
    let uninstalled = space.follow(status);
    let said = space.follow(log);
    space.follow(delete)?;
    uninstalled.map_err(|failure| format!("{failure}\n{}", said.unwrap_or_default()))?;
    nodes_are_as_before(space)
}

/// What was noted before ferrule came, and nothing more.
pub fn nodes_are_as_before(space: &Space<'_>) -> Result {
    for node in &space.nodes {
        let (before, after) = (node.state_noted()?, node.state()?);
        let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
        let left: Vec<&&str> = after.iter().filter(|line| !before.contains(line)).collect();
        let gone: Vec<&&str> = before.iter().filter(|line| !after.contains(line)).collect();
        ensure!(left.is_empty() && gone.is_empty(), "{}: left {left:?}, gone {gone:?}", node.name);
    }
    Ok(())
}

fn system(space: &Space<'_>, words: &[&str]) -> Result<String> {
    space.kubectl(&[&["--namespace", "kube-system"], words].concat())
}
