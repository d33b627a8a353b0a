//! A plan walked as the kernel walks the table made from it.

use std::net::IpAddr;

use crate::policy::plan::{Action, Chain, ChainRule, Isolation, Members, PeerMatch, Plan, Way};

/// Where a packet ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walked<'a> {
    /// No chain of rules stands in its way.
    NotIsolated,
    /// This rule accepts it.
    Allowed(&'a ChainRule),
    /// No rule does.
    Denied,
    /// This rule of a ClusterNetworkPolicy denies it.
    Forbidden(&'a ChainRule),
}

impl Walked<'_> {
    /// Whether it passes.
    pub fn allowed(&self) -> bool {
        !matches!(self, Self::Denied | Self::Forbidden(_))
    }
}

impl Plan {
    /// The way of a new flow's packet through all that a pod, or one that is held, has in one direction. `itself`: the pod
    /// sends to itself, which no NetworkPolicy keeps it from.
    pub fn walk_way(&self, way: &Way<'_>, peer: IpAddr, protocol: u8, port: u16, itself: bool) -> Walked<'_> {
        if let Some(decided) = self.walk_tier(way.admin, peer, protocol, port) {
            return decided;
        }
        if way.policies.isolates() {
            let passes = itself && way.own_passes;
            return if passes { Walked::NotIsolated } else { self.walk(way.policies, peer, protocol, port) };
        }
        self.walk_tier(way.baseline, peer, protocol, port).unwrap_or(Walked::NotIsolated)
    }

    /// What a tier decides; none where that is the next one's business.
    fn walk_tier(&self, tier: &Isolation, peer: IpAddr, protocol: u8, port: u16) -> Option<Walked<'_>> {
        let name = match tier {
            Isolation::None | Isolation::Open => return None,
            Isolation::Closed => return Some(Walked::Denied),
            Isolation::Rules(name) => name,
        };
        let Some(chain) = self.chains.get(name) else { return Some(Walked::Denied) };
        let of_port = chain.ports.iter().find(|it| it.is_about(protocol, port));
        // A port's chain has those for all ports as well.
        let rules = of_port.map_or(chain.rules.as_slice(), |it| &*it.rules);
        let rule = rules.iter().find(|rule| self.matches(&rule.peer, peer, protocol, port))?;
        match rule.action {
            Action::Accept => Some(Walked::Allowed(rule)),
            Action::Deny => Some(Walked::Forbidden(rule)),
            Action::Pass => None,
        }
    }

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
        let of_port = chain.ports.iter().find(|it| it.is_about(protocol, port));
        let of_port = of_port.map(|found| &*found.rules).unwrap_or_default();
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
