//! `ferrulectl sync`: restores the node's part of each network now, instead of with the next ADD. Idempotent.
//!
//! It also does what no ADD does: where the conf has `forwardAccept`, iptables' chain FORWARD is made to accept the pods'
//! packets.

use std::fmt::Write;

use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::attachments::networks::KnownNetwork;
use crate::attachments::node::prepare_in;
use crate::attachments::node_view::NodeView;
use crate::attachments::pod_repair::{self, gateways_of};
use crate::attachments::pod_rules;
use crate::attachments::take_up;
use crate::cli::Report;
use crate::cli::arguments::Common;
use crate::cni::error::CniError;
use crate::cni::ids::NetworkName;
use crate::config::peer::Peers;
use crate::config::{Network, Role};
use crate::datapath::nftables::Rebuilt;
use crate::datapath::node::{allow_metadata, find_uplink};
use crate::datapath::peers;
use crate::datapath::pods::Depth;
use crate::desired::node::NodeState;
use crate::foreign_firewall;
use crate::foreign_firewall::DropChain;
use crate::foreign_firewall::legacy::LegacyTable;
use crate::linux::nfnetlink::Nfnetlink;
use crate::store::Store;
use crate::text_table::{Cell, Table, Tone, escape};

/// What was restored.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncReport {
    version: u32,
    networks: Vec<SyncedNetwork>,
    /// What kept a network from being looked at.
    problems: Vec<String>,
}

/// What became of one network.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct SyncedNetwork {
    name: String,
    /// Routes to peers that were missing or wrong.
    routes_set: usize,
    /// Routes that nothing asks for any more.
    routes_removed: usize,
    /// Running pods whose record was lost, and that have one again.
    records_restored: usize,
    /// Links, neighbours, routes, settings and queues of running pods that were missing or wrong.
    pods_repaired: usize,
    /// Whether the nftables table was missing.
    table_made: bool,
    /// Elements that were missing or wrong in a table that stood.
    elements_added: usize,
    /// Elements that no record asks for any more.
    elements_removed: usize,
    /// Chains of other programs that have rules for the pods.
    accepting: Vec<Accepting>,
    /// Rules that were removed, because the conf no longer asks for them.
    rules_removed: Vec<String>,
    /// Chains that still drop the pods' packets to other nodes.
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

/// Restores every network, or only the one.
///
/// # Errors
/// Where conf directory or kernel cannot be read. What fails with one network does not stop the others.
pub async fn sync(common: &Common, only: Option<&NetworkName>) -> Result<SyncReport, CniError> {
    let networks = common.find_networks(only)?;
    let node = NodeView::read().await?;
    let mut report = SyncReport { version: 1, networks: Vec::new(), problems: Vec::new() };
    for problem in &networks.problems {
        report.problems.push(format!("{}: {}", problem.path.display(), problem.text));
    }
    for network in &networks.known {
        let Some(meaning) = network.meaning.as_ref().filter(|it| it.role == Role::Main) else { continue };
        report.networks.push(sync_network(network, meaning, &node).await);
    }
    Ok(report)
}

async fn sync_network(network: &KnownNetwork, meaning: &Network, node: &NodeView) -> SyncedNetwork {
    let mut done = SyncedNetwork { name: network.name.to_string(), ..SyncedNetwork::default() };
    let mut state = NodeState::of(meaning, node.facts.has_ipv6);
    state.gateways = network.named_gateways().collect();
    if let Err(error) = prepare_in(&node.netlink, &meaning.data_dir, &state, &node.boot).await {
        done.problems.push(error.to_string());
    }
    if let Err(error) = allow_metadata(&node.netlink, &state).await {
        done.problems.push(error.to_string());
    }
    // Routes to peers that no conf lists belong to the agent.
    if matches!(meaning.peers, Peers::Listed(_)) {
        match peers::synchronise(&node.netlink, &state).await {
            Ok(routes) => {
                (done.routes_set, done.routes_removed) = (routes.set, routes.removed);
                done.problems.extend(routes.failures.iter().map(ToString::to_string));
            }
            Err(error) => done.problems.push(error.to_string()),
        }
    }
    let taken_up = take_up::take_up(
        &node.netlink,
        &network.data_dir,
        &network.name,
        &node.boot,
        meaning.masquerade.is_on,
    );
    match taken_up.await {
        Ok(found) => {
            done.records_restored = found.records.len();
            done.problems.extend(found.left.into_iter().map(|it| {
                format!("pod {} (link {}) has no record and gets none: {}", it.pod, it.link, it.reason)
            }));
        }
        Err(error) => done.problems.push(error.to_string()),
    }
    match repair_pods(network, meaning, &state, node).await {
        Ok(repaired) => done.pods_repaired = repaired,
        Err(error) => done.problems.push(error.to_string()),
    }
    match rebuild_table(network, meaning, &state, node).await {
        Ok(rebuilt) => {
            done.table_made = rebuilt.made;
            (done.elements_added, done.elements_removed) = (rebuilt.added, rebuilt.removed);
        }
        Err(error) => done.problems.push(error.to_string()),
    }
    let subnets = foreign_firewall::own_subnets(&state);
    done.forward(&network.name, meaning.forward_accept, &subnets).await;
    if let (Some(delegate), true) = (&network.delegate, meaning.forward_accept) {
        let text = format!("forwardAccept: only {delegate} knows which subnets the pods are in");
        done.problems.push(text);
    }
    done
}

/// Makes the node's side of running pods again.
async fn repair_pods(
    network: &KnownNetwork,
    meaning: &Network,
    state: &NodeState,
    node: &NodeView,
) -> Result<usize, CniError> {
    let Some(store) = Store::open_existing(&network.data_dir, &network.name)? else { return Ok(0) };
    let uplink = find_uplink(&node.netlink, state, None).await?;
    let gateways = gateways_of(meaning, &node.facts)?;
    pod_repair::repair(&node.netlink, &store, &node.facts, &uplink, gateways, Depth::All).await
}

/// Without a store there are no pods, and the first ADD makes the table.
async fn rebuild_table(
    network: &KnownNetwork,
    meaning: &Network,
    state: &NodeState,
    node: &NodeView,
) -> Result<Rebuilt, CniError> {
    if Store::open_existing(&network.data_dir, &network.name)?.is_none() {
        return Ok(Rebuilt::default());
    }
    let uplink = find_uplink(&node.netlink, state, None).await?;
    pod_rules::sync(&node.netlink, meaning, &uplink, &node.boot).await
}

impl SyncedNetwork {
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
            accepted.into_iter().for_each(|it| self.add_accepting(it));
        } else {
            self.rules_removed.extend(foreign_firewall::remove(&nft, Some(network)).await?);
        }
        for chain in foreign_firewall::unaccepted(&nft, network, subnets).await? {
            self.add_dropping(&chain, subnets);
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
            legacy.accept(network, subnets)?.into_iter().for_each(|it| self.add_accepting(it));
            return Ok(());
        }
        self.rules_removed.extend(legacy.remove(Some(network))?);
        if let Some(chain) = legacy.drop_chain().filter(|chain| !chain.concerns(subnets).is_empty()) {
            self.add_dropping(&chain, subnets);
        }
        Ok(())
    }

    fn add_accepting(&mut self, it: foreign_firewall::Accepted) {
        self.accepting.push(Accepting { chain: it.chain, inserted: it.inserted, removed: it.removed });
    }

    fn add_dropping(&mut self, chain: &DropChain, subnets: &[IpNetwork]) {
        self.dropping.push(Dropping { chain: chain.to_string(), remedy: chain.remedy(subnets) });
    }
}

impl Report for SyncReport {
    fn is_success(&self) -> bool {
        let is_well = |it: &SyncedNetwork| it.problems.is_empty();
        self.problems.is_empty() && self.networks.iter().all(is_well)
    }

    fn to_text(&self, colour: bool) -> String {
        let mut table = Table::new(["NETWORK", "WHAT", "STATE"]);
        let mut rest = String::new();
        for network in &self.networks {
            let name = network.name.as_str();
            let mut add = |what: &str, state: Cell| table.push([name.into(), what.into(), state]);
            let routes = match (network.routes_set, network.routes_removed) {
                (0, 0) => "up to date".to_owned(),
                (set, removed) => format!("{set} installed, {removed} removed"),
            };
            add("routes to peers", routes.into());
            if network.records_restored > 0 {
                let restored = format!("{} restored", network.records_restored);
                add("records of running pods", restored.into());
            }
            let pods = match network.pods_repaired {
                0 => "up to date".to_owned(),
                repaired => format!("{repaired} of links, routes and settings repaired"),
            };
            add("running pods", pods.into());
            let table = match (network.table_made, network.elements_added, network.elements_removed) {
                (true, ..) => "created".to_owned(),
                (false, 0, 0) => "up to date".to_owned(),
                (false, added, removed) => format!("{added} elements added, {removed} removed"),
            };
            add("table inet ferrule", table.into());
            for it in &network.accepting {
                let state = match it.inserted {
                    0 => "accepts the pods' packets".to_owned(),
                    inserted => format!("{inserted} rules inserted, {} removed", it.removed),
                };
                add(&format!("chain {}", it.chain), state.into());
            }
            for rule in &network.rules_removed {
                add(&format!("rule {rule}"), "removed".into());
            }
            for it in &network.dropping {
                add(&it.chain, Cell::toned("may drop the pods' packets to other nodes", Tone::Odd));
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
        let table = if table.is_empty() { "no ferrule network on this node\n".to_owned() } else { table };
        if rest.is_empty() { table } else { format!("{table}\n{rest}") }
    }
}
