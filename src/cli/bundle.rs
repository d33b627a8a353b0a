//! `ferrulectl bundle`: what a report of a defect needs of this node, as one document: what `inspect`, `doctor` and
//! `policy show` say, and what the kernel has of ferrule's, read without `ip` and `nft`. Changes nothing.
//!
//! No conflist and no environment is in it: another plugin's conf may hold anything.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use crate::attachments::networks::Networks;
use crate::attachments::node_view::NodeView;
use crate::attachments::pod_rules;
use crate::cli::Report;
use crate::cli::arguments::Common;
use crate::cli::doctor::{self, DoctorReport};
use crate::cli::inspect::{self, InspectReport};
use crate::cli::policy::known::Known;
use crate::cli::policy::show::{self, ShowReport};
use crate::cni::error::CniError;
use crate::datapath::policy;
use crate::desired::nftables::table;
use crate::linux::link::Link;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::table::Table;
use crate::linux::route::{Family, RouteFilter};
use crate::linux::sysctl;
use crate::policy::object::ObjectName;

/// Pods whose policies are shown. A node with more than the kubelet's limit is told of in part.
const PODS: usize = 250;

/// Routes of each family. A node that speaks BGP may have a million.
const ROUTES: usize = 5000;

/// Settings that decide about pods' packets.
const SYSCTLS: [&[&str]; 8] = [
    &["net", "ipv4", "ip_forward"],
    &["net", "ipv6", "conf", "all", "forwarding"],
    &["net", "ipv4", "conf", "all", "rp_filter"],
    &["net", "ipv4", "conf", "default", "rp_filter"],
    &["net", "ipv6", "conf", "all", "disable_ipv6"],
    &["net", "netfilter", "nf_conntrack_max"],
    &["net", "netfilter", "nf_conntrack_count"],
    &["net", "ipv4", "neigh", "default", "gc_thresh3"],
];

/// All of it. What could not be read is among the problems.
#[derive(Serialize, Default)]
pub struct BundleReport {
    version: u32,
    /// Of the program that wrote it.
    ferrulectl: &'static str,
    /// The kernel's.
    kernel: String,
    inspect: Option<InspectReport>,
    doctor: Option<DoctorReport>,
    policies: Vec<ShowReport>,
    links: Vec<String>,
    addresses: Vec<String>,
    routes: Vec<String>,
    /// Of policy routing.
    rules: Vec<String>,
    tables: Vec<TableReport>,
    sysctls: BTreeMap<String, String>,
    problems: Vec<String>,
}

/// A table of nftables, in the order of its rules.
#[derive(Serialize)]
struct TableReport {
    name: String,
    chains: Vec<ChainReport>,
    /// Each with the number of its elements.
    sets: BTreeMap<String, usize>,
}

#[derive(Serialize)]
struct ChainReport {
    name: String,
    /// Where packets enter it; null if only other chains send them there.
    hook: Option<String>,
    rules: Vec<RuleReport>,
}

#[derive(Serialize)]
struct RuleReport {
    comment: Option<String>,
    steps: Vec<String>,
    packets: Option<u64>,
    bytes: Option<u64>,
}

/// Collects.
///
/// # Errors
/// Where nothing can be read at all.
pub async fn bundle(common: &Common) -> Result<BundleReport, CniError> {
    let networks = common.find_networks(None)?;
    let node = NodeView::read().await?;
    let mut report = BundleReport {
        version: 1,
        ferrulectl: env!("CARGO_PKG_VERSION"),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        links: node.links.iter().map(show_link).collect(),
        ..BundleReport::default()
    };
    report.inspect =
        inspect::inspect(common, None).await.map_err(|error| report.fail("inspect", &error)).ok();
    report.doctor = doctor::doctor(common, None).await.map_err(|error| report.fail("doctor", &error)).ok();
    report.read_policies(common, &networks, &node).await;
    report.read_routes(&node).await;
    match pod_rules::open() {
        Ok(nft) => {
            for table in [table::table(), policy::table()] {
                match read_table(&nft, &table).await {
                    Ok(found) => report.tables.extend(found),
                    Err(error) => report.fail(&table.to_string(), &error),
                }
            }
        }
        Err(error) => report.fail("nftables", &error),
    }
    for key in SYSCTLS {
        match sysctl::read(key) {
            Ok(value) => drop(report.sysctls.insert(key.join("."), value)),
            Err(error) => report.fail(&key.join("."), &error),
        }
    }
    Ok(report)
}

impl BundleReport {
    fn fail(&mut self, what: &str, error: &impl ToString) {
        self.problems.push(format!("{what}: {}", error.to_string()));
    }

    async fn read_policies(&mut self, common: &Common, networks: &Networks, node: &NodeView) {
        let known = match Known::read(networks, node).await {
            Ok(known) => known,
            Err(error) => return self.fail("policies", &error),
        };
        let names = known.attached.iter().filter_map(|it| it.attached.name.split_once('/'));
        for (namespace, name) in names.take(PODS) {
            let name = ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
            match show::show(common, &name).await {
                Ok(shown) => self.policies.push(shown),
                Err(error) => self.fail(&format!("policies of {namespace}/{}", name.name), &error),
            }
        }
    }

    async fn read_routes(&mut self, node: &NodeView) {
        match node.netlink.addresses(None).await {
            Ok(found) => {
                let name =
                    |index| node.links.iter().find(|link| link.index == index).map(|it| it.name.as_str());
                let show = |it: &crate::linux::addr::Address| {
                    format!("{} dev {}", it.network, name(it.device).unwrap_or("?"))
                };
                self.addresses = found.iter().map(show).collect();
            }
            Err(error) => self.fail("addresses", &error),
        }
        for family in [Family::V4, Family::V6] {
            match node.netlink.routes(RouteFilter::all(family)).await {
                Ok(routes) => self.routes.extend(routes.iter().take(ROUTES).map(|it| node.show_route(it))),
                Err(error) => self.fail("routes", &error),
            }
            match node.netlink.all_rules(family).await {
                Ok(rules) => self.rules.extend(rules.into_iter().map(|it| it.text)),
                Err(error) => self.fail("rules of policy routing", &error),
            }
        }
    }
}

fn show_link(link: &Link) -> String {
    format!("{link:?}")
}

/// `None`: there is none.
async fn read_table(nft: &Nfnetlink, table: &Table) -> Result<Option<TableReport>, CniError> {
    if !nft.has_table(table).await? {
        return Ok(None);
    }
    let rules = nft.placed_rules(table).await?;
    let mut chains = Vec::new();
    for placed in nft.all_chains(table).await? {
        let of_chain = rules.iter().filter(|it| it.rule.chain == placed.chain.name);
        let rules = of_chain.map(|it| RuleReport {
            comment: it.rule.comment.clone(),
            steps: it.rule.exprs.iter().map(|step| format!("{step:?}")).collect(),
            packets: it.counted.map(|counted| counted.packets),
            bytes: it.counted.map(|counted| counted.bytes),
        });
        let rules = rules.collect();
        let hook = placed.chain.base.map(|base| format!("{base:?}"));
        chains.push(ChainReport { name: placed.chain.name, hook, rules });
    }
    let mut sets = BTreeMap::new();
    for set in nft.all_sets(table).await?.0 {
        let keys = nft.keys(table, &set.name, |_, ends_range| (!ends_range).then_some(())).await?;
        sets.insert(set.name, keys.len());
    }
    Ok(Some(TableReport { name: table.to_string(), chains, sets }))
}

impl Report for BundleReport {
    /// The document is the report; there is no table of it.
    fn to_text(&self, _: bool) -> String {
        serde_json::to_string_pretty(self).map(|json| json + "\n").unwrap_or_default()
    }
}
