//! A node that moves from ptp, host-local and portmap to ferrule while its pods run, as docs/migration.md says.

use std::path::PathBuf;

use kit::binaries::{FERRULE, FERRULECTL};
use lab::cri::messages::ContainerConfig;
use lab::{IMAGE, Lab, Node, NodePlan, block_on};
use serde_json::{Value, json};

use super::node::*;

const HOST_LOCAL: &str = "/var/lib/cni/networks/podnet";
const STAGED: &str = "/etc/cni/ferrule";

fn ranges(plan: &NodePlan) -> Value {
    json!([[{ "subnet": plan.pod_cidr_v4 }], [{ "subnet": plan.pod_cidr_v6 }]])
}

pub fn conflist(main: &str, ipam: &str, plan: &NodePlan) -> String {
    let routes = json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]);
    json!({ "cniVersion": "1.0.0", "name": "podnet", "plugins": [
        { "type": main, "ipam": { "type": ipam, "ranges": ranges(plan), "routes": routes } },
        { "type": "portmap", "capabilities": { "portMappings": true } },
    ] })
    .to_string()
}

/// What the runtime really remembers, and what it really sends to the plugin that it finds in the old one's place.
#[test]
fn a_node_moves_to_ferrule_under_its_running_pods() -> Test {
    block_on(async {
        let mut plugins: Vec<PathBuf> =
            ["loopback", "ptp", "host-local", "portmap"].map(|it| format!("/usr/lib/cni/{it}").into()).into();
        plugins.extend([FERRULE.clone(), FERRULECTL.clone()]);
        let old = |plan: &NodePlan, _: &[NodePlan]| conflist("ptp", "host-local", plan);
        let mut lab = Lab::start(&NodePlan::first(1), old, &plugins).await?;
        let node = lab.node_mut(0).ok_or("no node")?;
        let kept = run_server(node, "kept").await?;
        let published = publish(node, "published").await?;
        await_server(node, &kept).await?;
        let rules_before = port_rules(node)?;
        assert!(!rules_before.is_empty());

        let done = import(node)?;
        let pods = done["pods"].as_array().ok_or("no pods")?;
        let mut names: Vec<&str> = pods.iter().filter_map(|pod| pod["pod"].as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["default/kept", "default/published"], "{done:#}");
        for pod in pods {
            assert_eq!((&pod["state"], &pod["notes"]), (&json!("imported"), &json!([])), "{done:#}");
            assert!(pod["netns"].is_string() && pod["hostLink"].is_string(), "{done:#}");
        }
        let with_port = pods.iter().find(|pod| pod["pod"] == "default/published").ok_or("no such pod")?;
        assert_eq!(with_port["hostPorts"][0]["hostPort"], 8080);

        node.stop_containerd()?;
        node.install(&[], &conflist("ferrule", "ferrule", node.plan()))?;
        node.start_containerd().await?;
        let new = run_server(node, "new").await?;
        await_server(node, &new).await?;
        assert!(
            new.addresses.iter().all(|it| !kept.addresses.contains(it) && !published.addresses.contains(it))
        );
        for (from, to) in [(&kept, &new), (&new, &kept)] {
            let pages: Vec<_> = to.addresses.iter().map(|&address| page_of(&in_url(address))).collect();
            let seen: Vec<_> =
                from.addresses.iter().map(|&source| format!("{} {}", to.name, as_seen(source))).collect();
            assert_eq!(ask(node, &from.server, &pages).await?, seen);
        }

        // They go as pods do, with the rules that the old portmap made for them; and the new one as well.
        let cri = node.cri().await?;
        remove_pods(&cri, &[published.id]).await?;
        assert_eq!(port_rules(node)?, Vec::<String>::new());
        remove_pods(&cri, &[kept.id, new.id]).await?;
        assert_nothing_left(node);
        // What host-local held it holds still: that is the way back.
        assert!(node.run("ls", &[HOST_LOCAL])?.contains(&kept.addresses[0].to_string()));
        Ok(())
    })?
}

/// A pod with a server on port 8080 of the node.
async fn publish(node: &Node, name: &str) -> lab::Result<Pod> {
    let cri = node.cri().await?;
    let config = node.pod("default", name).with_port(8080, 80);
    let id = cri.run_pod(&config).await?;
    let words = ["httpd", "-f", "-p", "80", "-h", "/www"];
    let server = cri.run_container(&id, &config, ContainerConfig::new("server", IMAGE, &words)).await?;
    let status = cri.pod_status(&id).await?;
    Ok(Pod { name: name.to_owned(), id, config, server, addresses: status.addresses, pid: status.pid })
}

/// Stages ferrule's conflist where the runtime does not look, and imports.
fn import(node: &Node) -> std::result::Result<Value, Box<dyn std::error::Error>> {
    std::fs::create_dir(node.path(STAGED))?;
    let staged = node.path(STAGED).join("10-lab.conflist");
    std::fs::write(staged, conflist("ferrule", "ferrule", node.plan()))?;
    let words = ["import", "--from", HOST_LOCAL, "--conf-dir", STAGED, "--output", "json"];
    Ok(serde_json::from_str(&node.run("/opt/cni/bin/ferrulectl", &words)?)?)
}

/// The rules that lead from ports of the node to single pods.
fn port_rules(node: &Node) -> lab::Result<Vec<String>> {
    let rules = node.run("iptables", &["-t", "nat", "-S"])?;
    Ok(rules.lines().filter(|rule| rule.contains("--dport 8080")).map(str::to_owned).collect())
}
