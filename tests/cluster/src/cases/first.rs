//! The first minutes: nodes become ready, names are resolved, and the first pod that somebody runs serves.

use std::time::{Duration, Instant};

use crate::cluster::{Family, deploy};
use crate::ensure;
use crate::fetch::{Asker, In};
use crate::pod::Pod;
use crate::process::{Result, eventually, seconds};
use crate::space::Space;

/// What `kubectl apply --filename` takes is what `kubectl apply --kustomize` makes, and names this version.
pub fn the_flat_manifest_is_the_kustomization(space: &Space<'_>) -> Result {
    let made = space.kubectl(&["kustomize", &deploy("")])?;
    let image = concat!("image: ferrule:", env!("CARGO_PKG_VERSION"));
    let read =
        |name| std::fs::read_to_string(deploy(name)).map_err(|error| format!("deploy/{name}: {error}"));
    ensure!(made == read("ferrule.yaml")?, "it is not: kubectl kustomize deploy > deploy/ferrule.yaml");
    // The overlay of MicroK8s has other paths on the node, and nothing else.
    let microk8s = read("ferrule.yaml")?
        .replace(
            "path: /opt/cni/bin\n          type",
            "path: /var/snap/microk8s/current/opt/cni/bin\n          type",
        )
        .replace(
            "path: /etc/cni/net.d\n          type",
            "path: /var/snap/microk8s/current/args/cni-network\n          type",
        );
    let made = space.kubectl(&["kustomize", &deploy("microk8s")])?;
    ensure!(
        made == microk8s,
        "kubectl kustomize deploy/microk8s is not ferrule.yaml with the paths of MicroK8s"
    );
    for name in ["ferrule.yaml", "uninstall.yaml"] {
        ensure!(read(name)?.contains(image), "deploy/{name} has not {image}");
    }
    Ok(())
}

/// Nobody but the agent has put anything onto the nodes.
pub fn every_node_is_ready_by_ferruled_alone(space: &Space<'_>) -> Result {
    space.system_rolled_out("daemonset/ferrule")?;
    let answer = space.get(&["nodes"])?;
    for node in answer["items"].as_array().into_iter().flatten() {
        let name = &node["metadata"]["name"];
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let condition = |kind| conditions.iter().find(|condition| condition["type"] == kind);
        ensure!(condition("Ready").is_some_and(|ready| ready["status"] == "True"), "{name} is not Ready");
        let unavailable = condition("NetworkUnavailable").ok_or("nobody says that the network is there")?;
        ensure!(unavailable["status"] == "False", "{name}: {unavailable}");
    }
    for node in &space.nodes {
        node.run(&["test", "-x", "/opt/cni/bin/ferrule"])?;
        let confs = node.run(&["ls", "/etc/cni/net.d"])?;
        ensure!(confs.trim() == "10-ferrule.conflist", "{} has {confs:?}", node.name);
    }
    Ok(())
}

/// As in every introduction to Kubernetes; the server sees each pod at its own address.
pub fn nginxtest_serves_everybody(space: &Space<'_>) -> Result {
    let start = Instant::now();
    let image = ["--image=nginx", "--image-pull-policy=IfNotPresent", "--port=80"];
    space.kubectl(&[&["run", "nginxtest"], image.as_slice()].concat())?;
    space.all_ready(Duration::from_secs(120))?;
    let addresses = space.addresses("nginxtest")?;
    for (node, address) in space.nodes.iter().flat_map(|node| addresses.iter().map(move |a| (node, *a))) {
        let page = node.ask(address, 80, "")?;
        ensure!(page.contains("Welcome to nginx!"), "{}: {address} answered {page:?}", node.name);
    }
    space.note(format!("from `kubectl run` to served on every node {}", seconds(start.elapsed())));

    let clients: Vec<String> = space.nodes.iter().map(|node| format!("on-{}", node.name)).collect();
    let pods = clients.iter().zip(&space.nodes);
    space.create(
        pods.map(|(name, node)| Pod::running(name, &space.agnhost, &["pause"]).on(node).manifest()),
    )?;
    space.all_ready(Duration::from_secs(120))?;
    for client in &clients {
        for address in &addresses {
            let page = In(space, client).ask(*address, 80, "")?;
            ensure!(page.contains("Welcome to nginx!"), "{client}: {address} answered {page:?}");
        }
    }
    let log = space.kubectl(&["logs", "nginxtest"])?;
    for client in &clients {
        for address in space.addresses(client)? {
            let seen = log.lines().any(|line| line.split_whitespace().next() == Some(&address.to_string()));
            ensure!(seen, "nginx has not seen {client} at {address}:\n{log}");
        }
    }
    Ok(())
}

/// coredns runs, and pods on every node get its answers, over UDP and TCP.
pub fn names_are_resolved_on_every_node(space: &Space<'_>) -> Result {
    space.system_rolled_out("deployment/coredns")?;
    let clients: Vec<String> = space.nodes.iter().map(|node| format!("on-{}", node.name)).collect();
    let pods = clients.iter().zip(&space.nodes);
    space.create(
        pods.map(|(name, node)| Pod::running(name, &space.agnhost, &["pause"]).on(node).manifest()),
    )?;
    space.all_ready(Duration::from_secs(120))?;
    let answer = space.service_address("default", "kubernetes")?;
    let kind = if Family::of(&answer) == Family::V4 { "A" } else { "AAAA" };
    for client in &clients {
        let full = "kubernetes.default.svc.cluster.local";
        // kube-proxy may not have heard of this node's first minute yet.
        eventually("DNS", Duration::from_secs(20), || space.exec(client, &["dig", "+short", full, kind]))?;
        for transport in ["+notcp", "+tcp"] {
            let said = space.exec(client, &["dig", transport, "+tries=1", "+short", full, kind])?;
            ensure!(said.trim() == answer.to_string(), "{client}, {transport}: {said:?}, not {answer}");
        }
        let said = space.exec(client, &["nslookup", "kubernetes.default"])?;
        ensure!(said.contains(&answer.to_string()), "{client}, by the short name: {said}");
    }
    Ok(())
}
