//! A node that moves to ferrule by the steps of `kubectl ferrule migrate`: its runtime is neither stopped nor restarted, its
//! pods run, and new ones are started all the time.

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kit::binaries::{FERRULE, FERRULECTL};
use lab::{Lab, Node, NodePlan, block_on};
use serde_json::{Value, json};

use super::node::*;
use super::takeover::conflist;

const CONF_DIR: &str = "/etc/cni/net.d";
const BURST: usize = 12;

/// The runtime takes up each change of its directory by itself, and has a network all the time. Pods that are started while
/// the conflists are swapped have an address each, whichever plugin they came from.
#[test]
fn pods_are_started_while_a_node_moves() -> Test {
    block_on(async {
        let mut plugins: Vec<PathBuf> =
            ["loopback", "ptp", "host-local", "portmap"].map(|it| format!("/usr/lib/cni/{it}").into()).into();
        plugins.extend([FERRULE.clone(), FERRULECTL.clone()]);
        let old = |plan: &NodePlan, _: &[NodePlan]| conflist("ptp", "host-local", plan);
        let mut lab = Lab::start(&NodePlan::first(1), old, &plugins).await?;
        let node = lab.node_mut(0).ok_or("no node")?;
        let kept = run_server(node, "kept").await?;
        await_server(node, &kept).await?;
        let (watching, is_over) = watch_status(node).await?;

        let staged = step(node, "stage").await?;
        assert_eq!(staged["inUse"], "old", "{staged:#}");
        // As the agent writes it.
        let ours = node.path(CONF_DIR).join("10-ferrule.conflist");
        fs::write(ours.with_extension("new"), conflist("ferrule", "ferrule", node.plan()))?;
        fs::rename(ours.with_extension("new"), &ours)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let still_old = all_of(run_at_once(node, &names("before", 1)).await?).await?;
        assert_eq!(records(node)?, Vec::<String>::new(), "ferrule's conflist is in use before its turn");

        let during = run_at_once(node, &names("during", BURST)).await?;
        let taken = step(node, "take").await?;
        assert_eq!((&taken["inUse"], &taken["problems"]), (&json!("ferrule"), &json!([])), "{taken:#}");
        let during = all_of(during).await?;
        let new = run_server(node, "new").await?;
        await_server(node, &new).await?;
        let again = step(node, "take").await?;
        let states = again["import"]["pods"].as_array().ok_or("no pods")?;
        assert!(states.iter().all(|pod| pod["state"] == "already"), "the old plugin went on: {again:#}");

        let all: Vec<String> =
            [&kept.id, &new.id].into_iter().chain(&still_old).chain(&during).cloned().collect();
        let cri = node.cri().await?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for id in &all {
            addresses.extend(cri.pod_status(id).await?.addresses);
        }
        let different: HashSet<&IpAddr> = addresses.iter().collect();
        assert_eq!((addresses.len(), different.len()), (2 * all.len(), 2 * all.len()), "{addresses:?}");
        assert_eq!(records(node)?.len(), all.len(), "ferrule knows each of them");
        assert!(records(node)?.contains(&format!("{}@eth0", new.id)));
        let pages: Vec<_> = new.addresses.iter().map(|&address| page_of(&in_url(address))).collect();
        let seen: Vec<_> = kept.addresses.iter().map(|&source| format!("new {}", as_seen(source))).collect();
        assert_eq!(ask(node, &kept.server, &pages).await?, seen);

        is_over.store(true, Ordering::Relaxed);
        assert_eq!(watching.await?, 0, "the runtime had no network for a moment");
        remove_pods(&cri, &all).await?;
        assert_nothing_left(node);
        Ok(())
    })?
}

/// How often the runtime says that it has no network, which makes kubelet call its node NotReady.
async fn watch_status(
    node: &Node,
) -> std::result::Result<(tokio::task::JoinHandle<usize>, Arc<AtomicBool>), Box<dyn std::error::Error>> {
    let cri = node.cri().await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_over);
    let watching = tokio::spawn(async move {
        let mut without = 0;
        while !flag.load(Ordering::Relaxed) {
            if let Ok(conditions) = cri.status().await {
                without += conditions.iter().filter(|it| it.r#type == "NetworkReady" && !it.status).count();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        without
    });
    Ok((watching, is_over))
}

/// A step, while the event loop goes on.
async fn step(node: &Node, step: &str) -> std::result::Result<Value, Box<dyn std::error::Error>> {
    let plan = node.plan();
    let mut command = node.command("/opt/cni/bin/ferrulectl");
    command.args(["migrate", step, "--output", "json"]);
    command.args(["--pod-cidr", &plan.pod_cidr_v4, "--pod-cidr", &plan.pod_cidr_v6]);
    let done = tokio::task::spawn_blocking(move || command.output()).await??;
    let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
    serde_json::from_slice(&done.stdout).map_err(|error| format!("{error}: {stderr}").into())
}
