//! What kubelet asks for beyond addresses: containerd hands it to the plugin in its own spelling (`HostPort`,
//! `IngressRate`), which no hand-written conf of a test has.

use std::net::{IpAddr, Ipv4Addr};

use lab::{Node, block_on};
use serde_json::Value;

use super::node::*;

const HOST_PORT: u16 = 8080;

/// Kubernetes' annotations, in bits per second, and what `tc` says of them, in bytes per second.
const LIMITS: [(&str, &str, u64); 2] = [
    ("kubernetes.io/ingress-bandwidth", "10M", 1_250_000),
    ("kubernetes.io/egress-bandwidth", "20M", 2_500_000),
];

#[test]
fn host_port_and_bandwidth_from_containerd_come_and_go() -> Test {
    block_on(async {
        let lab = start_lab(2, |node| node.pod_cidr_v4.clone()).await?;
        let [node, other] = lab.nodes() else { panic!("not two nodes") };
        let mut config = node.pod("default", "web").with_port(HOST_PORT, 80);
        config.annotations =
            LIMITS.iter().map(|(key, value, _)| ((*key).to_owned(), (*value).to_owned())).collect();
        let pod = run_server_as(node, config).await?;
        await_server(node, &pod).await?;

        the_other_node_reaches_the_host_port(node, other, &pod)?;
        let host_link = host_link_of(node, &pod)?;
        for (link, (_, _, rate)) in
            [&host_link, &host_link.replacen("veth", "ifb", 1)].into_iter().zip(LIMITS)
        {
            assert_eq!(rate_of(node, link)?, Some(rate), "{link}");
        }

        remove_pods(&node.cri().await?, &[pod.id]).await?;
        assert_nothing_left(node);
        assert_eq!(node.run("ip", &["-brief", "link", "show", "type", "ifb"])?, "");
        let page = page_of(&format!("{}:{HOST_PORT}", node.plan().ipv4));
        assert!(other.run("timeout", &["2", "busybox", "wget", "-qO-", &page]).is_err(), "still served");
        Ok(())
    })?
}

/// By each of the node's addresses, with the client's own kept; and on the node by 127.0.0.1.
fn the_other_node_reaches_the_host_port(node: &Node, other: &Node, pod: &Pod) -> Test {
    let addresses = |node: &Node| [IpAddr::from(node.plan().ipv4), node.plan().ipv6.into()];
    let page = |address| page_of(&format!("{}:{HOST_PORT}", in_url(address)));
    let heard = other.run("sh", &["-c", &ask_each(&addresses(node).map(page), "busybox wget")])?;
    let expected = addresses(other).map(|source| format!("{} {}", pod.name, as_seen(source)));
    assert_eq!(heard.lines().collect::<Vec<_>>(), expected);
    let heard = node.run("sh", &["-c", &ask_each(&[page(Ipv4Addr::LOCALHOST.into())], "busybox wget")])?;
    assert_eq!(heard.trim(), format!("{} {}", pod.name, as_seen(node.plan().ipv4.into())));
    Ok(())
}

/// The rate of the link's token bucket, in bytes per second.
fn rate_of(node: &Node, link: &str) -> Result<Option<u64>, Box<dyn std::error::Error>> {
    let qdiscs: Vec<Value> = serde_json::from_str(&node.run("tc", &["-j", "qdisc", "show", "dev", link])?)?;
    let bucket = qdiscs.iter().find(|qdisc| qdisc["kind"] == "tbf" && qdisc["root"] == true);
    Ok(bucket.and_then(|bucket| bucket["options"]["rate"].as_u64()))
}

/// The node's end of the pod's pair, by its alias.
fn host_link_of(node: &Node, pod: &Pod) -> Result<String, Box<dyn std::error::Error>> {
    let links: Vec<Value> = serde_json::from_str(&node.run("ip", &["-j", "link", "show", "type", "veth"])?)?;
    let is_its = |link: &&Value| link["ifalias"].as_str().is_some_and(|alias| alias.contains(&pod.id));
    let name = links.iter().find(is_its).and_then(|link| link["ifname"].as_str());
    Ok(name.ok_or("the pod has no link")?.to_owned())
}
