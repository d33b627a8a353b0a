//! A network that is no longer wanted.

use std::time::Duration;

use crate::cluster::deploy;
use crate::ensure;
use crate::process::{Result, eventually};
use crate::space::Space;

/// As docs/install.md says: the pods first, the agent, then what is on the nodes. Whatever came of it, ferrule is installed
/// again then, and works.
pub fn uninstalled_nodes_are_as_before(space: &Space<'_>) -> Result {
    let outcome = leave(space);
    system(space, &["apply", "--filename", &deploy("ferrule.yaml")])?;
    space.system_rolled_out("daemonset/ferrule")?;
    system(space, &["scale", "deployment/coredns", "--replicas=2"])?;
    space.system_rolled_out("deployment/coredns")?;
    outcome
}

fn leave(space: &Space<'_>) -> Result {
    system(space, &["scale", "deployment/coredns", "--replicas=0"])?;
    eventually("no pod has an address", Duration::from_secs(120), || {
        let pods = space.pods_with_addresses()?;
        ensure!(pods.is_empty(), "{} have", pods.len());
        Ok(())
    })?;
    system(space, &["delete", "daemonset", "ferrule", "--timeout=60s"])?;
    let file = deploy("uninstall.yaml");
    system(space, &["apply", "--filename", &file])?;
    let uninstalled = space.system_rolled_out("daemonset/ferrule-uninstall");
    let selector = "app.kubernetes.io/name=ferrule-uninstall";
    let said = system(space, &["logs", "--selector", selector, "--container", "uninstall", "--prefix"]);
    system(space, &["delete", "--filename", &file, "--timeout=60s"])?;
    uninstalled.map_err(|failure| format!("{failure}\n{}", said.unwrap_or_default()))?;
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
