//! The ways to other nodes, by packets: whether the pods' largest arrive, and whether checksums are right.

use crate::attachments::networks::KnownNetwork;
use crate::attachments::node_view::NodeView;
use crate::cli::doctor::{Finding, name_some};
use crate::cni::error::CniError;
use crate::config::Role;
use crate::datapath::node::find_uplink;
use crate::datapath::path_mtu::{Passage, Path, paths, try_some};
use crate::desired::names::OVERLAY_DEVICE;
use crate::desired::node::NodeState;
use crate::linux::ethtool::Ethtool;
use crate::linux::link::Link;
use crate::linux::snmp;

/// How many nodes are sent packets to.
const MOST: usize = 16;

/// Drivers whose cards are known to compute a wrong checksum for what is inside of VXLAN, or at another port than they
/// expect.
const SUSPECTED: [&str; 1] = ["vmxnet3"];

/// Sends packets as large as the pods' to other nodes. Of one that answers nothing at closed ports, for a firewall or because
/// it is down, nothing can be told.
pub async fn examine(network: &KnownNetwork, node: &NodeView) -> Result<Vec<Finding>, CniError> {
    let meaning = network.meaning.as_ref().filter(|meaning| meaning.role == Role::Main);
    let Some(meaning) = meaning else { return Ok(Vec::new()) };
    let paths = paths(&node.netlink, &network.name).await?;
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let state = NodeState::of(meaning, node.facts.has_ipv6);
    let mtu = find_uplink(&node.netlink, &state, meaning.mtu).await?.mtu;
    let tried = try_some(&paths, mtu, MOST, 0).await;
    let of = |is_such: fn(&Passage) -> bool| -> Vec<String> {
        let such = tried.iter().filter(|(_, passage)| is_such(passage));
        such.map(|(path, passage)| show(path, passage)).collect()
    };
    let mut findings = Vec::new();
    let lost = of(|it| *it == Passage::Lost);
    if !lost.is_empty() {
        let found = format!(
            "packets as large as the pods' ({mtu} bytes) are lost on the way to: {}",
            name_some(&lost)
        );
        findings.push(
            Finding::new("path-mtu-lost", found)
                .of(&network.name)
                .because("a link on the way carries less, or a firewall drops them, and nobody says so; small packets pass, \
                          and connections hang as soon as they have much to send")
                .remedy("set mtu in the conf, or FERRULE_MTU of the agent, to what the way carries (less 50 for VXLAN over IPv4, 70 over IPv6)"),
        );
    }
    let narrow = of(|it| matches!(it, Passage::Narrow { .. }));
    if !narrow.is_empty() {
        let found = format!(
            "packets as large as the pods' ({mtu} bytes) do not fit on the way to: {}",
            name_some(&narrow)
        );
        findings.push(
            Finding::warning("path-mtu-small", found)
                .of(&network.name)
                .because("senders are told, and send smaller ones, one connection after another; what uses UDP may not")
                .remedy("set mtu in the conf, or FERRULE_MTU of the agent, to what the way carries"),
        );
    }
    Ok(findings)
}

fn show(path: &Path, passage: &Passage) -> String {
    let way = if path.by_overlay { " by VXLAN" } else { "" };
    match passage {
        Passage::Narrow { mtu } => format!("{}{way} (at most {mtu})", path.node),
        _ => format!("{}{way}", path.node),
    }
}

/// What is known of the node's counters, to be compared when doctor has looked.
pub struct Checksums(Option<u64>);

/// Begins to look.
pub fn begin() -> Checksums {
    Checksums(snmp::udp_checksum_errors().ok())
}

impl Checksums {
    /// Where nodes are reached by VXLAN: whether this node gets datagrams with a wrong checksum, and whether it may send such.
    pub async fn examine(self, node: &NodeView) -> Vec<Finding> {
        let Some(overlay) = node.links.iter().find(|link| link.name == OVERLAY_DEVICE) else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        if let (Some(before), Ok(now)) = (self.0, snmp::udp_checksum_errors())
            && let more @ 1.. = now.saturating_sub(before)
        {
            findings.push(
                Finding::warning("udp-checksum-errors", format!("{more} datagrams of UDP came with a wrong checksum"))
                    .because(
                        "a node sends VXLAN whose checksums its card computes wrongly; they are dropped, and pods of that node \
                         reach this one's by ICMP at best",
                    )
                    .remedy("set FERRULE_VXLAN_CHECKSUM_OFFLOAD=off for the agents; tcpdump -vvni any udp shows who sends them"),
            );
        }
        let suspected: Vec<&str> =
            node.links.iter().filter(|it| is_suspected(it)).map(|it| it.name.as_str()).collect();
        if !suspected.is_empty() && leaves_checksums_to_the_card(overlay).await {
            findings.push(
                Finding::warning("vxlan-checksum-offload", format!("the checksums of what pods send by VXLAN are left to {}", name_some(&suspected)))
                    .because(
                        "cards of that driver are known to compute them wrongly at ports that they do not expect: then ICMP \
                         passes between pods of different nodes, TCP and UDP do not",
                    )
                    .remedy("if that is what happens, set FERRULE_VXLAN_CHECKSUM_OFFLOAD=off for the agents; else nothing"),
            );
        }
        findings
    }
}

fn is_suspected(link: &Link) -> bool {
    let driver = std::fs::read_link(format!("/sys/class/net/{}/device/driver", link.name));
    let name = driver.ok().and_then(|path| path.file_name().map(|it| it.to_string_lossy().into_owned()));
    name.is_some_and(|name| SUSPECTED.contains(&name.as_str()))
}

async fn leaves_checksums_to_the_card(overlay: &Link) -> bool {
    let Ok(ethtool) = Ethtool::open_here() else { return false };
    ethtool.offloads_checksums(&overlay.name).await.unwrap_or(false)
}
