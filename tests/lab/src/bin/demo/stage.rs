//! Setting the stage: nodes, then pods on them; and what somebody can do with it once the demo is over.

use std::fmt::Write;
use std::time::Instant;

use lab::cri::Client;
use lab::{Lab, NodePlan};

use crate::network::Network;
use crate::pods::Pod;
use crate::screen::Screen;

type Built<T> = Result<T, Box<dyn std::error::Error>>;

/// Nodes with a running containerd, which has the plugin and its configuration.
pub async fn build_lab(screen: &Screen, network: &Network, plans: &[NodePlan]) -> Built<Lab> {
    let start = Instant::now();
    let mut lab = Lab::create()?;
    screen.step(start, "an underlay that carries IPv4 and IPv6; an image made of busybox")?;
    for plan in plans {
        let start = Instant::now();
        let node = lab.add_node(plan)?;
        node.install(&network.plugins(), &network.conflist(plan, plans))?;
        node.start_containerd().await?;
        node.load_image().await?;
        network.complete(node, plans)?;
        let version = node.cri().await?.version().await?;
        let NodePlan { name, ipv4, ipv6, pod_cidr_v4, pod_cidr_v6 } = plan;
        let runtime = format!("{} {}", version.runtime_name, version.runtime_version);
        let text = format!("{name}  {ipv4}, {ipv6}  pods {pod_cidr_v4}, {pod_cidr_v6}  {runtime}");
        screen.step(start, &text)?;
    }
    Ok(lab)
}

/// Two pods a node, through each node's CRI; the very first has two containers and a hostPort.
pub async fn run_pods(screen: &Screen, lab: &Lab, runtimes: &[Client]) -> Built<Vec<Pod>> {
    let mut pods = Vec::new();
    for (index, (node, cri)) in lab.nodes().iter().zip(runtimes).enumerate() {
        let letter = node.plan().name.trim_start_matches("node-");
        for number in 1..=2 {
            let start = Instant::now();
            let is_first = pods.is_empty();
            let pod = Pod::run(cri, node, index, &format!("{letter}{number}"), is_first).await?;
            let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
            let remark = if is_first { "  (two containers, a hostPort)" } else { "" };
            screen.step(start, &format!("pod {}  {}{remark}", pod.name, addresses.join(", ")))?;
            pods.push(pod);
        }
    }
    Ok(pods)
}

/// How to look around in a lab that is kept.
pub fn spell_hints(lab: &Lab) -> Built<String> {
    let cri = std::env::current_exe()?.with_file_name("cri");
    let cri = cri.display();
    let mut hints = String::from("The nodes are left running. A shell on one of them, as root:\n");
    for node in lab.nodes() {
        writeln!(hints, "  {}:  nsenter --target {} --mount --net --pid", node.plan().name, node.pid())?;
    }
    writeln!(hints, "There, the pods of the node, and one of your own:")?;
    for words in ["pods", "ps", "exec CONTAINER -- wget -qO- http://ADDRESS/cgi-bin/who"] {
        writeln!(hints, "  {cri} {words}")?;
    }
    if let [node, ..] = lab.nodes() {
        let server = "mine -- httpd -f -p 80 -h /www";
        writeln!(hints, "  {cri} runp --cgroup-parent {} {server}", node.cgroup())?;
    }
    writeln!(hints, "  cat /etc/cni/net.d/*  ls -R /var/lib/cni  tail /var/log/containerd.log")?;
    Ok(hints)
}
