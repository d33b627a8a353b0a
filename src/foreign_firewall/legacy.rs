//! The table `filter` of iptables-legacy, through its own programs: reading it otherwise needs unsafe code.
//!
//! Only for the command line, and only where such a table exists already, because the program would create one.

use std::io;
use std::process::Command;

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
use crate::foreign_firewall::node_drop::{NODE_HOOKS, Need, NodeDrop};
use crate::foreign_firewall::{Accepted, DropChain, save};
use crate::linux::nft::table::Hook;
use crate::linux::xtables;

/// A legacy table `filter`, as `iptables-legacy-save` prints it.
pub struct LegacyTable {
    ipv4: bool,
    text: String,
}

impl LegacyTable {
    /// Those of both families; none on most nodes.
    pub fn find() -> Vec<Result<Self, String>> {
        [true, false].into_iter().filter_map(|ipv4| Self::read(ipv4).transpose()).collect()
    }

    fn read(ipv4: bool) -> Result<Option<Self>, String> {
        match xtables::legacy_tables(ipv4) {
            Ok(names) if names.iter().any(|name| name == "filter") => {}
            Ok(_) => return Ok(None),
            Err(error) => return Err(format!("the list of legacy tables cannot be read: {error}")),
        }
        let name = program(ipv4, "iptables-legacy-save");
        let output = match Command::new(&name).args(["-t", "filter"]).output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A node with one iptables only may have either kind under this name.
                let name = program(ipv4, "iptables-save");
                Command::new(&name)
                    .args(["-t", "filter"])
                    .output()
                    .map_err(|error| format!("{name}: {error}"))?
            }
            output => output.map_err(|error| format!("{name}: {error}"))?,
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_nft = text.lines().next().is_some_and(|line| line.contains("nf_tables"));
        if !output.status.success() || is_nft {
            return Err(format!("a legacy table filter is there, and no {name} that could read it"));
        }
        Ok(Some(Self { ipv4, text }))
    }

    /// Its chain FORWARD, if that ends in a drop.
    pub fn drop_chain(&self) -> Option<DropChain> {
        save::drop_chain(&self.text, self.ipv4, Hook::Forward)
    }

    /// What its chains INPUT and OUTPUT drop of what the network needs.
    pub fn node_drops(&self, network: &NetworkName, needs: &[Need]) -> Vec<NodeDrop> {
        let chains = NODE_HOOKS.into_iter().filter_map(|hook| save::drop_chain(&self.text, self.ipv4, hook));
        let of = |chain: DropChain| {
            let is_accepted = |comment: &str| save::has_accept_rule(&self.text, &chain.chain, comment);
            NodeDrop::of(&chain, network, needs, is_accepted)
        };
        chains.flat_map(of).collect()
    }

    /// The same, if it sees packets of `subnets` and has no accept rules of the network.
    pub fn unaccepted(&self, network: &NetworkName, subnets: &[IpNetwork]) -> Option<DropChain> {
        let has_rules = !save::own_rules(&self.text, Some(network)).is_empty();
        self.drop_chain().filter(|chain| !has_rules && !chain.concerns(subnets).is_empty())
    }

    /// The accept rules of a network, or of all, as command lines.
    pub fn accept_rules(&self, network: Option<&NetworkName>) -> Vec<String> {
        let rules = save::own_rules(&self.text, network);
        let name = program(self.ipv4, "iptables-legacy");
        rules.iter().map(|rule| format!("{name} {}", rule.join(" "))).collect()
    }

    /// As [`accept`](crate::foreign_firewall::accept), of this table. `None` if there is nothing to do here.
    ///
    /// # Errors
    /// What the program says.
    pub fn accept(&self, network: &NetworkName, subnets: &[IpNetwork]) -> Result<Option<Accepted>, String> {
        let Some(chain) = self.drop_chain() else { return Ok(None) };
        let rule = |subnet: IpNetwork, is_source| save::own_rule(chain.entry(), subnet, is_source, network);
        let subnets = chain.concerns(subnets).into_iter();
        let wanted: Vec<_> = subnets.flat_map(|it| [rule(it, true), rule(it, false)]).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let own = save::own_rules(&self.text, Some(network));
        if own == wanted {
            return Ok(Some(accepted(&chain, 0, 0)));
        }
        for rule in wanted.iter().rev() {
            self.change("-I", rule)?;
        }
        own.iter().try_for_each(|rule| self.change("-D", rule))?;
        Ok(Some(accepted(&chain, wanted.len(), own.len())))
    }

    /// Removes the accept rules of a network, or of all; returns them.
    ///
    /// # Errors
    /// What the program says.
    pub fn remove(&self, network: Option<&NetworkName>) -> Result<Vec<String>, String> {
        let rules = save::own_rules(&self.text, network);
        rules.iter().try_for_each(|rule| self.change("-D", rule))?;
        Ok(self.accept_rules(network))
    }

    /// `-w`: other programs hold the same lock.
    fn change(&self, action: &str, rule: &[String]) -> Result<(), String> {
        let name = program(self.ipv4, "iptables-legacy");
        let output = Command::new(&name).args(["-w", "5", "-t", "filter", action]).args(rule).output();
        let output = output.map_err(|error| format!("{name}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{name} {action} {}: {}", rule.join(" "), said.trim()))
    }
}

fn accepted(chain: &DropChain, inserted: usize, removed: usize) -> Accepted {
    Accepted { chain: format!("legacy {} {}", chain.table, chain.entry()), inserted, removed }
}

fn program(ipv4: bool, name: &str) -> String {
    if ipv4 { name.to_owned() } else { name.replacen("iptables", "ip6tables", 1) }
}
