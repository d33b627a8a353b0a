//! One node through what happens to its runtime and its pods: restarts, kills, bursts.

use std::collections::HashSet;

use lab::{Node, block_on};

use super::node::*;

/// containerd restarted, then killed: pods go on with their addresses, and go cleanly afterwards, also one whose
/// sandbox was killed; then thirty pods at once.
#[test]
fn pods_keep_their_network_when_containerd_restarts() -> Test {
    block_on(async {
        let mut lab = start_lab(1, |node| node.pod_cidr_v4.clone()).await?;
        let node = lab.node_mut(0).ok_or("no node")?;
        pods_outlive_containerd(node).await?;
        assert_nothing_left(node);
        a_killed_sandbox_leaves_nothing(node).await?;
        assert_nothing_left(node);
        thirty_pods_at_once_have_an_address_each(node).await?;
        assert_nothing_left(node);
        Ok(())
    })?
}

async fn pods_outlive_containerd(node: &mut Node) -> Test {
    let (client, server) = (run_server(node, "client").await?, run_server(node, "server").await?);
    await_server(node, &server).await?;
    let before = (held(node)?, pod_links(node)?, pod_routes(node)?);
    node.stop_containerd()?;
    still_answers(node, &server)?;
    node.start_containerd().await?;
    node.kill_containerd()?;
    still_answers(node, &server)?;
    node.start_containerd().await?;
    assert_eq!((held(node)?, pod_links(node)?, pod_routes(node)?), before);
    let cri = node.cri().await?;
    for pod in [&client, &server] {
        let status = cri.pod_status(&pod.id).await?;
        assert_eq!((status.is_ready, &status.addresses), (true, &pod.addresses), "{}", pod.name);
    }
    let pages: Vec<_> = server.addresses.iter().map(|&address| page_of(&in_url(address))).collect();
    let expected: Vec<_> =
        client.addresses.iter().map(|&source| format!("server {}", as_seen(source))).collect();
    assert_eq!(ask(node, &client.server, &pages).await?, expected);
    Ok(remove_pods(&cri, &[client.id, server.id]).await?)
}

fn still_answers(node: &Node, pod: &Pod) -> Test {
    for &address in &pod.addresses {
        let heard = node.run("sh", &["-c", &ask_each(&[page_of(&in_url(address))], "busybox wget")])?;
        assert!(heard.starts_with(&format!("{} ", pod.name)), "{heard}");
    }
    Ok(())
}

/// kubelet finds such a sandbox not ready, stops it and makes another one.
async fn a_killed_sandbox_leaves_nothing(node: &Node) -> Test {
    let pod = run_server(node, "victim").await?;
    let process = node.path(format!("/proc/{}", pod.pid));
    assert!(process.exists());
    kill_on(node, pod.pid)?;
    let cri = node.cri().await?;
    lab::eventually("the end of the sandbox", LIMIT, async || match cri.pod_status(&pod.id).await {
        Ok(status) if !status.is_ready => Ok(()),
        Ok(_) => Err("it is ready".to_owned()),
        Err(error) => Err(error.to_string()),
    })
    .await?;
    assert!(!process.exists());
    Ok(remove_pods(&cri, &[pod.id]).await?)
}

/// Sends SIGKILL to a process that is numbered as on the node.
fn kill_on(node: &Node, pid: i64) -> Test {
    node.run("kill", &["-KILL", &pid.to_string()])?;
    Ok(())
}

async fn thirty_pods_at_once_have_an_address_each(node: &Node) -> Test {
    let ids = all_of(run_at_once(node, &names("burst", 30)).await?).await?;
    let cri = node.cri().await?;
    let mut addresses = HashSet::new();
    for id in &ids {
        let status = cri.pod_status(id).await?;
        assert!(status.is_ready);
        assert_eq!(status.addresses.len(), 2);
        addresses.extend(status.addresses);
    }
    assert_eq!(addresses.len(), 60);
    let seen: HashSet<String> = addresses.iter().map(ToString::to_string).collect();
    assert_eq!(held(node)?.into_iter().collect::<HashSet<_>>(), seen);
    assert_eq!(pod_links(node)?.len(), 30);
    Ok(remove_pods(&cri, &ids).await?)
}
