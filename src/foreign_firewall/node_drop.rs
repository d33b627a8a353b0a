//! What the node's own firewall drops of what a network needs: packets between the node and its pods, and VXLAN.
//!
//! Many a node drops what comes in by default, and has rules for what it wants. They are not evaluated; an administrator
//! says by the comment of an accept rule that a chain is as it should be. The remedy has it.

use std::iter;

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
use crate::foreign_firewall::accept::comments_of;
use crate::foreign_firewall::drop_chain::{DropChain, find_at};
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::expr::{Expr, Verdict};
use crate::linux::nft::rule::Rule;
use crate::linux::nft::table::Hook;

/// The hooks of what is for the node, and of what it sends.
pub(super) const NODE_HOOKS: [Hook; 2] = [Hook::Input, Hook::Output];

/// What a network needs of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// That the node and its pods reach each other: these subnets.
    Pods(Vec<IpNetwork>),
    /// That VXLAN of other nodes comes in, and goes out.
    Vxlan {
        /// UDP port.
        port: u16,
        /// The family of the nodes' addresses.
        ipv4: bool,
    },
}

/// A chain that drops something of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDrop {
    /// The chain.
    pub chain: DropChain,
    /// What it drops.
    pub need: Need,
    comment: String,
}

/// Finds the chains of nf_tables where packets enter or leave the node itself that end in a drop, and what of `needs` they
/// drop unless a rule accepts it.
///
/// # Errors
/// The kernel's refusal.
pub async fn node_drops(
    nft: &Nfnetlink,
    network: &NetworkName,
    needs: &[Need],
) -> Result<Vec<NodeDrop>, KernelError> {
    let mut found = Vec::new();
    for (chain, placed) in find_at(nft, &NODE_HOOKS).await? {
        let is_accepted = |comment: &str| placed.iter().any(|it| accepts_by(&it.rule, comment));
        found.extend(NodeDrop::of(&chain, network, needs, is_accepted));
    }
    Ok(found)
}

fn accepts_by(rule: &Rule, comment: &str) -> bool {
    let has_comment = rule.comment.as_deref() == Some(comment) || comments_of(rule).any(|it| it == comment);
    rule.exprs.last() == Some(&Expr::Verdict(Verdict::Accept)) && has_comment
}

impl NodeDrop {
    /// What a chain drops of `needs`; `is_accepted` tells whether it has an accept rule with a comment.
    pub(super) fn of(
        chain: &DropChain,
        network: &NetworkName,
        needs: &[Need],
        is_accepted: impl Fn(&str) -> bool,
    ) -> Vec<Self> {
        let seen = needs.iter().filter_map(|need| match need {
            Need::Pods(subnets) => {
                Some(Need::Pods(chain.concerns(subnets))).filter(|it| *it != Need::Pods(Vec::new()))
            }
            Need::Vxlan { ipv4, .. } => chain.sees(*ipv4).then(|| need.clone()),
        });
        let with_comment = seen.map(|need| (need.comment(network), need));
        let dropped = with_comment.filter(|(comment, _)| !is_accepted(comment));
        dropped.map(|(comment, need)| Self { chain: chain.clone(), need, comment }).collect()
    }

    /// What does not pass, in words.
    pub fn what(&self) -> String {
        let comes_in = self.chain.hook == Hook::Input;
        match self.need {
            Need::Pods(_) if comes_in => "what pods send to this node".to_owned(),
            Need::Pods(_) => "what this node sends to its pods".to_owned(),
            Need::Vxlan { port, .. } if comes_in => format!("VXLAN from other nodes (UDP port {port})"),
            Need::Vxlan { port, .. } => format!("VXLAN to other nodes (UDP port {port})"),
        }
    }

    /// How an administrator lets it pass, in commands.
    pub fn remedy(&self) -> String {
        let Self { chain, need, comment } = self;
        if chain.table.name == "firewalld" && chain.hook == Hook::Input {
            return match need {
                Need::Pods(subnets) => {
                    let sources: Vec<String> =
                        subnets.iter().map(|it| format!("--add-source={it}")).collect();
                    let sources = sources.join(" ");
                    format!("firewall-cmd --permanent --zone=trusted {sources}; firewall-cmd --reload")
                }
                Need::Vxlan { port, .. } => {
                    format!("firewall-cmd --permanent --add-port={port}/udp; firewall-cmd --reload")
                }
            };
        }
        let command = |of_iptables: String, of_nft: String| match chain.program() {
            Some(program) => {
                format!(
                    "{program} -I {} {of_iptables} -m comment --comment \"{comment}\" -j ACCEPT",
                    chain.chain
                )
            }
            None => {
                let place = format!("{} {}", chain.table, chain.chain);
                format!("nft insert rule {place} {of_nft} accept comment '\"{comment}\"'")
            }
        };
        let comes_in = chain.hook == Hook::Input;
        let commands: Vec<String> = match need {
            Need::Pods(subnets) => subnets
                .iter()
                .map(|subnet| {
                    let family = if subnet.is_ipv4() { "ip" } else { "ip6" };
                    let (option, field) = if comes_in { ("-s", "saddr") } else { ("-d", "daddr") };
                    command(format!("{option} {subnet}"), format!("{family} {field} {subnet}"))
                })
                .collect(),
            Need::Vxlan { port, .. } => {
                iter::once(command(format!("-p udp --dport {port}"), format!("udp dport {port}"))).collect()
            }
        };
        commands.join("; ")
    }
}

impl Need {
    fn comment(&self, network: &NetworkName) -> String {
        match self {
            Self::Pods(_) => format!("ferrule-node: {network}"),
            Self::Vxlan { .. } => format!("ferrule-vxlan: {network}"),
        }
    }
}
