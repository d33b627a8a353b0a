//! The tables of iptables before nf_tables, by its own programs: there is no other way to them without unsafe code.
//!
//! Only for verbs that a person runs, and only where such a table is there already: the program would make one.

use std::io;
use std::process::Command;

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
use crate::foreign_firewall::{Accepted, Filter, Judgement, Traffic, save};
use crate::linux::xtables;

/// A legacy table `filter` that is there, as its program prints it.
pub struct Legacy {
    ipv4: bool,
    text: String,
}

impl Legacy {
    /// Those of both families; empty on most nodes of today.
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
                // Where there is one iptables only, it may be either.
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
    pub fn filter(&self) -> Option<Filter> {
        save::read(&self.text, self.ipv4)
    }

    /// The rules of a network of ours, or of all, as they are told.
    pub fn standing(&self, network: Option<&NetworkName>) -> Vec<String> {
        let rules = save::own_rules(&self.text, network);
        let name = program(self.ipv4, "iptables-legacy");
        rules.iter().map(|rule| format!("{name} {}", rule.join(" "))).collect()
    }

    /// As [`accept`](crate::foreign_firewall::accept), of this table. `None` if there is nothing to do here.
    ///
    /// # Errors
    /// What the program says.
    pub fn accept(&self, network: &NetworkName, traffic: &Traffic) -> Result<Option<Accepted>, String> {
        let Some(filter) = self.filter() else { return Ok(None) };
        let Some(judgement) = filter.judge(traffic) else { return Ok(None) };
        let own = save::own_rules(&self.text, Some(network));
        let rule = |subnet: IpNetwork, is_source| save::own_rule(filter.entry(), subnet, is_source, network);
        let subnets = traffic.own_of(self.ipv4);
        let wanted: Vec<_> = subnets.flat_map(|it| [rule(it, true), rule(it, false)]).collect();
        if own == wanted || (own.is_empty() && judgement == Judgement::Passes) {
            return Ok((own == wanted).then(|| self.tell(&filter, 0, 0)));
        }
        for rule in wanted.iter().rev() {
            self.change("-I", rule)?;
        }
        own.iter().try_for_each(|rule| self.change("-D", rule))?;
        Ok(Some(self.tell(&filter, wanted.len(), own.len())))
    }

    /// Removes the rules of a network of ours, or of all; tells which.
    ///
    /// # Errors
    /// What the program says.
    pub fn remove(&self, network: Option<&NetworkName>) -> Result<Vec<String>, String> {
        let rules = save::own_rules(&self.text, network);
        rules.iter().try_for_each(|rule| self.change("-D", rule))?;
        Ok(self.standing(network))
    }

    fn tell(&self, filter: &Filter, inserted: usize, removed: usize) -> Accepted {
        Accepted { chain: format!("legacy {} {}", filter.table, filter.entry()), inserted, removed }
    }

    /// `-w`: others wait for the same lock.
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

fn program(ipv4: bool, name: &str) -> String {
    if ipv4 { name.to_owned() } else { name.replacen("iptables", "ip6tables", 1) }
}
