//! Three nodes: every pod reaches every pod, its node, and itself.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

use lab::cri::messages::ContainerConfig;
use lab::{IMAGE, Node, block_on};

use super::node::*;

/// What a cluster takes for granted, in both families and with the source address kept: kubelet's probes, pods
/// of one node and of several, two containers over localhost, and a pod that goes.
#[test]
fn pods_of_three_nodes_reach_each_other_unmasqueraded() -> Test {
    block_on(async {
        let lab = start_lab(3, |node| node.pod_cidr_v4.clone()).await?;
        let mut pods: Vec<(&Node, Pod)> = Vec::new();
        for node in lab.nodes() {
            serve_on(node)?;
            for number in 1..=2 {
                let name = format!("{}-{number}", node.plan().name);
                pods.push((node, run_server(node, &name).await?));
            }
        }
        for (node, pod) in &pods {
            await_server(node, pod).await?;
        }
        for (node, pod) in &pods {
            every_server_sees_the_pods_own_address(node, pod, &pods).await?;
            its_node_answers_the_pod(node, pod).await?;
        }
        for node in lab.nodes() {
            every_server_sees_the_nodes_own_address(node, &pods)?;
        }
        let (node, pod) = pods.first().ok_or("no pod")?;
        its_containers_share_localhost(node, pod).await?;
        its_link_says_whose_it_is(node, pod)?;

        let (node, pod) = pods.remove(0);
        the_pod_takes_everything_with_it(node, pod).await?;
        for (node, pod) in &pods {
            every_server_sees_the_pods_own_address(node, pod, &pods).await?;
        }
        Ok(())
    })?
}

/// A server on the node itself.
fn serve_on(node: &Node) -> Test {
    let script = node.path("/var/www/cgi-bin/who");
    fs::create_dir_all(node.path("/var/www/cgi-bin"))?;
    fs::write(
        &script,
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nnode %s\\n' \"$REMOTE_ADDR\"\n",
    )?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    // It goes to the background by itself.
    node.run("busybox", &["httpd", "-p", "8080", "-h", "/var/www"])?;
    Ok(())
}

async fn every_server_sees_the_pods_own_address(node: &Node, pod: &Pod, all: &[(&Node, Pod)]) -> Test {
    let (pages, expected) = pages_and_answers(&pod.addresses, all);
    assert_eq!(ask(node, &pod.server, &pages).await?, expected, "asked by {}", pod.name);
    Ok(())
}

fn every_server_sees_the_nodes_own_address(node: &Node, all: &[(&Node, Pod)]) -> Test {
    let own = [IpAddr::from(node.plan().ipv4), IpAddr::from(node.plan().ipv6)];
    let (pages, expected) = pages_and_answers(&own, all);
    let heard = node.run("sh", &["-c", &ask_each(&pages, "busybox wget")])?;
    assert_eq!(heard.lines().collect::<Vec<_>>(), expected, "asked by {}", node.plan().name);
    Ok(())
}

/// The pages of all pods in both families, and what they answer to somebody with the addresses `asking`.
fn pages_and_answers(asking: &[IpAddr], all: &[(&Node, Pod)]) -> (Vec<String>, Vec<String>) {
    let both = all.iter().flat_map(|(_, pod)| pod.addresses.iter().map(move |&address| (pod, address)));
    both.map(|(pod, address)| {
        let source = asking.iter().find(|source| source.is_ipv4() == address.is_ipv4());
        let source = source.map(|&source| as_seen(source)).unwrap_or_default();
        (page_of(&in_url(address)), format!("{} {source}", pod.name))
    })
    .unzip()
}

async fn its_node_answers_the_pod(node: &Node, pod: &Pod) -> Test {
    let plan = node.plan();
    let pages = [page_of(&format!("{}:8080", plan.ipv4)), page_of(&format!("[{}]:8080", plan.ipv6))];
    let expected: Vec<_> = pod.addresses.iter().map(|&own| format!("node {}", as_seen(own))).collect();
    assert_eq!(ask(node, &pod.server, &pages).await?, expected, "asked by {}", pod.name);
    Ok(())
}

async fn its_containers_share_localhost(node: &Node, pod: &Pod) -> Test {
    let cri = node.cri().await?;
    let sidecar = ContainerConfig::new("sidecar", IMAGE, &["sleep", "2147483647"]);
    let sidecar = cri.run_container(&pod.id, &pod.config, sidecar).await?;
    let heard = ask(node, &sidecar, &[page_of("127.0.0.1"), page_of("[::1]")]).await?;
    assert_eq!(heard, [format!("{} [::ffff:127.0.0.1]", pod.name), format!("{} [::1]", pod.name)]);
    Ok(())
}

fn its_link_says_whose_it_is(node: &Node, pod: &Pod) -> Test {
    // The pod's uid comes last.
    let alias = format!("ferrule:podnet/{}/eth0 default/{} ", pod.id, pod.name);
    let links = pod_links(node)?;
    assert!(links.iter().any(|link| link.starts_with(&alias)), "{alias} is not among {links:?}");
    Ok(())
}

async fn the_pod_takes_everything_with_it(node: &Node, pod: Pod) -> Test {
    let cri = node.cri().await?;
    let others =
        |all: Vec<String>, own: &str| all.into_iter().filter(|it| !it.contains(own)).collect::<Vec<_>>();
    let links = others(pod_links(node)?, &pod.id);
    let recorded = others(records(node)?, &pod.id);
    assert_eq!((links.len(), recorded.len()), (1, 1), "the node's other pod");
    cri.stop_pod(&pod.id).await?;
    cri.stop_pod(&pod.id).await?;
    let routes = pod_routes(node)?;
    for address in pod.addresses.iter().map(IpAddr::to_string) {
        assert!(!held(node)?.contains(&address), "{address} is held by a stopped pod");
        assert!(!routes.contains(&address), "{address} still has a route");
    }
    assert_eq!((pod_links(node)?, records(node)?), (links, recorded));
    cri.remove_pod(&pod.id).await?;
    Ok(())
}
