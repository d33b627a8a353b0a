//! `ferrule sync`: makes the node's part of each network what its conf says, now and not with the next ADD.
//!
//! And the one thing that no ADD does: where the conf has `forwardAccept`, iptables' chain FORWARD is told to let the
//! pods pass. Idempotent.

use std::fmt::Write;

use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::attachments::claim::Allocation;
use crate::attachments::describe::describe_node;
use crate::attachments::node::prepare;
use crate::attachments::pod_rules;
use crate::cli::arguments::Arguments;
use crate::cli::networks::{KnownNetwork, Networks};
use crate::cli::node::Node;
use crate::cli::text_table::{Cell, Table, Tone, escape};
use crate::cli::{Outcome, to_json};
use crate::cni::error::CniError;
use crate::cni::ids::NetworkName;
use crate::config::peer::Peers;
use crate::config::{Network, Role};
use crate::datapath::nftables::Rebuilt;
use crate::datapath::peers;
use crate::foreign_firewall;
use crate::foreign_firewall::DropChain;
use crate::foreign_firewall::legacy::LegacyTable;
use crate::linux::nfnetlink::Nfnetlink;
use crate::store::Store;

/// The document of `--json`. Fields are added in time, none is renamed or removed within a version.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    version: u32,
    networks: Vec<Synchronised>,
    /// What kept a network from being looked at.
    problems: Vec<String>,
}

/// What became of one network.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Synchronised {
    name: String,
    /// Routes to peers that were missing or wrong.
    routes_set: usize,
    /// Routes that nothing asks for any more.
    routes_removed: usize,
    /// Whether the nftables table had to be made.
    table_made: bool,
    /// Elements that were missing or wrong in a table that stood.
    elements_added: usize,
    /// Elements that no record asks for any more.
    elements_removed: usize,
    /// Chains that have rules for the pods.
    accepting: Vec<Accepting>,
    /// Rules of an earlier conf that were taken away.
    rules_removed: Vec<String>,
    /// Chains of the forward hook that end in a drop and have no accept rules of this network.
    dropping: Vec<Dropping>,
    /// What could not be done.
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Accepting {
    chain: String,
    inserted: usize,
    removed: usize,
}

#[derive(Serialize)]
struct Dropping {
    chain: String,
    remedy: String,
}

/// Makes it so.
///
/// # Errors
/// Where conf directory or kernel cannot be read. What fails with one network does not stop the others.
pub async fn sync(arguments: &Arguments, colour: bool) -> Result<Outcome, CniError> {
    let networks = Networks::find(arguments)?;
    let node = Node::look().await?;
    let mut document = Document { version: 1, networks: Vec::new(), problems: Vec::new() };
    for problem in &networks.problems {
        document.problems.push(format!("{}: {}", problem.path.display(), problem.text));
    }
    for network in &networks.known {
        let Some(meaning) = network.meaning.as_ref().filter(|it| it.role == Role::Main) else { continue };
        document.networks.push(sync_network(network, meaning, &node).await);
    }
    let is_well = |it: &Synchronised| it.problems.is_empty();
    let all_well = document.problems.is_empty() && document.networks.iter().all(is_well);
    let text = if arguments.json { to_json(&document) } else { document.render(colour) };
    Ok(Outcome { text, status: u8::from(!all_well), ..Outcome::default() })
}

async fn sync_network(network: &KnownNetwork, meaning: &Network, node: &Node) -> Synchronised {
    let mut done = Synchronised { name: network.name.to_string(), ..Synchronised::default() };
    let mut state = describe_node(meaning, &Allocation::default());
    state.gateways = network.named_gateways().collect();
    if let Err(error) = prepare(&node.netlink, meaning, &state, &node.boot).await {
        done.problems.push(error.to_string());
    }
    // Those that an agent keeps are none of ours to remove.
    if matches!(meaning.peers, Peers::Listed(_)) {
        match peers::synchronise(&node.netlink, &state).await {
            Ok(routes) => {
                (done.routes_set, done.routes_removed) = (routes.set, routes.removed);
                done.problems.extend(routes.failures.iter().map(ToString::to_string));
            }
            Err(error) => done.problems.push(error.to_string()),
        }
    }
    match rebuild_table(network, node).await {
        Ok(rebuilt) => {
            done.table_made = rebuilt.made;
            (done.elements_added, done.elements_removed) = (rebuilt.added, rebuilt.removed);
        }
        Err(error) => done.problems.push(error.to_string()),
    }
    let subnets = foreign_firewall::own_subnets(&state);
    done.forward(&network.name, meaning.forward_accept, &subnets).await;
    if let (Some(delegate), true) = (&network.delegate, meaning.forward_accept) {
        let text = format!("forwardAccept: which subnets the pods are in is known to {delegate} alone");
        done.problems.push(text);
    }
    done
}

/// Without a store there are no pods, and the first ADD makes the table.
async fn rebuild_table(network: &KnownNetwork, node: &Node) -> Result<Rebuilt, CniError> {
    if Store::open_existing(&network.data_dir, &network.name)?.is_none() {
        return Ok(Rebuilt::default());
    }
    pod_rules::rebuild(&pod_rules::open()?, &network.data_dir, &network.name, &node.boot).await
}

impl Synchronised {
    /// Inserts or removes accept rules in iptables' chains, as `forwardAccept` says, and lists the chains that drop.
    async fn forward(&mut self, network: &NetworkName, accept: bool, subnets: &[IpNetwork]) {
        if let Err(error) = self.forward_by_nft(network, accept, subnets).await {
            self.problems.push(format!("nf_tables: {error}"));
        }
        for legacy in LegacyTable::find() {
            let outcome = legacy.and_then(|legacy| self.forward_by_legacy(&legacy, network, accept, subnets));
            self.problems.extend(outcome.err());
        }
    }

    async fn forward_by_nft(
        &mut self,
        network: &NetworkName,
        accept: bool,
        subnets: &[IpNetwork],
    ) -> Result<(), Box<dyn std::error::Error>> {
        let nft = Nfnetlink::open_here()?;
        if accept {
            let accepted = foreign_firewall::accept(&nft, network, subnets).await?;
            accepted.into_iter().for_each(|it| self.tell_accepting(it));
        } else {
            self.rules_removed.extend(foreign_firewall::remove(&nft, Some(network)).await?);
        }
        for chain in foreign_firewall::unaccepted(&nft, network, subnets).await? {
            self.tell_dropping(&chain, subnets);
        }
        Ok(())
    }

    fn forward_by_legacy(
        &mut self,
        legacy: &LegacyTable,
        network: &NetworkName,
        accept: bool,
        subnets: &[IpNetwork],
    ) -> Result<(), String> {
        if accept {
            legacy.accept(network, subnets)?.into_iter().for_each(|it| self.tell_accepting(it));
            return Ok(());
        }
        self.rules_removed.extend(legacy.remove(Some(network))?);
        if let Some(chain) = legacy.drop_chain().filter(|chain| !chain.concerns(subnets).is_empty()) {
            self.tell_dropping(&chain, subnets);
        }
        Ok(())
    }

    fn tell_accepting(&mut self, it: foreign_firewall::Accepted) {
        self.accepting.push(Accepting { chain: it.chain, inserted: it.inserted, removed: it.removed });
    }

    fn tell_dropping(&mut self, chain: &DropChain, subnets: &[IpNetwork]) {
        self.dropping.push(Dropping { chain: chain.to_string(), remedy: chain.remedy(subnets) });
    }
}

impl Document {
    fn render(&self, colour: bool) -> String {
        let mut table = Table::new(["NETWORK", "WHAT", "STATE"]);
        let mut rest = String::new();
        for network in &self.networks {
            let name = network.name.as_str();
            let mut tell = |what: &str, state: Cell| table.push([name.into(), what.into(), state]);
            let routes = match (network.routes_set, network.routes_removed) {
                (0, 0) => "as they should be".to_owned(),
                (set, removed) => format!("{set} set, {removed} removed"),
            };
            tell("routes to peers", routes.into());
            let table = match (network.table_made, network.elements_added, network.elements_removed) {
                (true, ..) => "made".to_owned(),
                (false, 0, 0) => "as it should be".to_owned(),
                (false, added, removed) => format!("{added} elements added, {removed} removed"),
            };
            tell("table inet ferrule", table.into());
            for it in &network.accepting {
                let state = match it.inserted {
                    0 => "has accept rules".to_owned(),
                    inserted => format!("{inserted} rules inserted, {} removed", it.removed),
                };
                tell(&format!("chain {}", it.chain), state.into());
            }
            for rule in &network.rules_removed {
                tell(&format!("rule {rule}"), "removed".into());
            }
            for it in &network.dropping {
                tell(&it.chain, Cell::toned("may drop what pods send and receive", Tone::Odd));
                let _ = writeln!(rest, "{name}: {}: {}", escape(&it.chain), escape(&it.remedy));
            }
            for problem in &network.problems {
                let _ = writeln!(rest, "{name}: {}", escape(problem));
            }
        }
        for problem in &self.problems {
            let _ = writeln!(rest, "{}", escape(problem));
        }
        let table = table.render(colour);
        let table = if table.is_empty() { "no network of ferrule's is here\n".to_owned() } else { table };
        if rest.is_empty() { table } else { format!("{table}\n{rest}") }
    }
}
