//! A plan walked as the kernel walks the table made from it.

use std::net::IpAddr;

use crate::policy::plan::{Chain, ChainRule, Isolation, Members, PeerMatch, Plan};

/// Where a packet ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walked<'a> {
    /// No chain of rules stands in its way.
    NotIsolated,
    /// This rule accepts it.
    Allowed(&'a ChainRule),
    /// No rule does.
    Denied,
}

impl Walked<'_> {
    /// Whether it passes.
    pub fn allowed(&self) -> bool {
        !matches!(self, Self::Denied)
    }
}

impl Plan {
    /// The way of a new flow's packet through what a pod, or one that is held, has in one direction. `peer` is the
    /// packet's other end, `port` its destination port. A pod's packets to itself do not get here: ask before.
    pub fn walk(&self, isolation: &Isolation, peer: IpAddr, protocol: u8, port: u16) -> Walked<'_> {
        match isolation {
            Isolation::None | Isolation::Open => Walked::NotIsolated,
            Isolation::Closed => Walked::Denied,
            // A chain that is named and missing would be a fault of the plan; its packets do not pass.
            Isolation::Rules(name) => match self.chains.get(name) {
                Some(chain) => self.walk_chain(chain, peer, protocol, port),
                None => Walked::Denied,
            },
        }
    }

    fn walk_chain<'a>(&'a self, chain: &'a Chain, peer: IpAddr, protocol: u8, port: u16) -> Walked<'a> {
        let here = |rules: &&crate::policy::plan::PortRules| {
            rules.protocol == protocol && (rules.first..=rules.last).contains(&port)
        };
        let of_port = chain.ports.iter().find(here).map(|found| &*found.rules).unwrap_or_default();
        let mut rules = of_port.iter().chain(&chain.rules);
        match rules.find(|rule| self.matches(&rule.peer, peer, protocol, port)) {
            Some(rule) => Walked::Allowed(rule),
            None => Walked::Denied,
        }
    }

    fn matches(&self, wanted: &PeerMatch, peer: IpAddr, protocol: u8, port: u16) -> bool {
        let (PeerMatch::Address(set) | PeerMatch::AddressAndPort(set)) = wanted else { return true };
        let family = if peer.is_ipv4() { '4' } else { '6' };
        match self.sets.get(&format!("{set}{family}")) {
            Some(Members::Pods(addresses)) => addresses.contains(&peer),
            Some(Members::Ports(members)) => members.contains(&(peer, protocol, port)),
            Some(Members::Blocks(blocks)) => {
                let after = blocks.partition_point(|block| *block.start() <= peer);
                after.checked_sub(1).and_then(|at| blocks.get(at)).is_some_and(|block| block.contains(&peer))
            }
            None => false,
        }
    }
}
