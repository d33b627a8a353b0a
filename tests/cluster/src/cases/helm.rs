//! The chart, by helm itself.
//!
//! `HELM` names the program. Without it these cases are skipped.

use std::time::Duration;

use super::pods;
use crate::cluster::{Cluster, deploy};
use crate::ensure;
use crate::process::{Result, eventually, run};
use crate::space::Space;

const AGENT: &str = "daemonset/ferrule";
const MTU: &str = "jq .plugins[0].mtu /etc/cni/net.d/10-ferrule.conflist";

/// Where the program is.
pub fn program() -> Option<String> {
    std::env::var("HELM").ok().filter(|program| !program.is_empty())
}

/// In the place of the manifest. Pods that are there reach each other all the time, new ones start after each step, and a
/// setting comes and goes with its revision. Whatever came of it, ferrule is installed by its manifest again then.
pub fn a_release_is_installed_upgraded_rolled_back_and_removed(space: &Space<'_>) -> Result {
    let manifest = deploy("ferrule.yaml");
    let cluster: &Cluster = space;
    cluster.kubectl(&["delete", "--wait", "--filename", &manifest])?;
    let outcome = lives(space);
    if outcome.is_err() {
        helm(space, &["uninstall", "ferrule", "--ignore-not-found", "--wait"])?;
    }
    cluster.kubectl(&["apply", "--filename", &manifest])?;
    space.system_rolled_out(AGENT)?;
    outcome
}

fn lives(space: &Space<'_>) -> Result {
    let chart = deploy("chart/ferrule");
    let release = ["ferrule", chart.as_str(), "--wait", "--timeout", "180s"];
    let before = mtus(space)?;

    helm(space, &[&["install"], release.as_slice()].concat())?;
    space.system_rolled_out(AGENT)?;
    let names = pods::one_on_each_node(space)?;
    pods::all_reach_all(space, &names)?;

    helm(space, &[&["upgrade"], release.as_slice(), &["--set", "settings.FERRULE_MTU=1380"]].concat())?;
    space.system_rolled_out(AGENT)?;
    expect_mtus(space, &vec!["1380".to_owned(); before.len()])?;
    pods::all_reach_all(space, &names)?;

    helm(space, &["rollback", "ferrule", "1", "--wait", "--timeout", "180s"])?;
    space.system_rolled_out(AGENT)?;
    expect_mtus(space, &before)?;
    pods::all_reach_all(space, &names)?;

    helm(space, &["uninstall", "ferrule", "--wait"])?;
    let left = space.kubectl(&[
        "get",
        "daemonsets,configmaps,serviceaccounts,clusterroles,clusterrolebindings",
        "--all-namespaces",
        "--selector",
        "app.kubernetes.io/instance=ferrule",
        "--output",
        "name",
    ])?;
    ensure!(left.trim().is_empty(), "helm left {left}");
    pods::all_reach_all(space, &names).map(|_| ())
}

/// The MTU of each node's conflist.
fn mtus(space: &Space<'_>) -> Result<Vec<String>> {
    space.nodes.iter().map(|node| Ok(node.shell(MTU)?.trim().to_owned())).collect()
}

fn expect_mtus(space: &Space<'_>, wanted: &[String]) -> Result {
    eventually("the agents have written their confs", Duration::from_secs(30), || {
        let now = mtus(space)?;
        ensure!(now == wanted, "the MTUs are {now:?}, not {wanted:?}");
        Ok(())
    })
}

fn helm(space: &Space<'_>, words: &[&str]) -> Result<String> {
    let program = program().ok_or("HELM names no program")?;
    let cluster: &Cluster = space;
    let context = format!("kind-{}", cluster.name);
    run(&program, &[&["--kube-context", context.as_str(), "--namespace", "kube-system"], words].concat())
}
