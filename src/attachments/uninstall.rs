//! Removes all that ferrule made on a node, for `ferrulectl uninstall` and `ferruled --uninstall`.
//!
//! In this order: links, the VXLAN device, routes and rules, the nftables tables, changed sysctls, the stores, rules in iptables'
//! chains. If it is killed on the way, running it again removes the rest. Nothing here asks whether pods may lose their
//! network: the caller looks at [`Uninstall::is_in_use`] first.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::PathBuf;

use crate::attachments::judged::{JudgedAttachment, judge_network};
use crate::attachments::networks::Networks;
use crate::attachments::node_view::NodeView;
use crate::attachments::{LOCK_DEADLINE, pod_rules};
use crate::cni::error::{CniError, Code};
use crate::cni::ids::{AttachmentKey, NetworkName};
use crate::datapath::nftables::NftError;
use crate::datapath::node::pod_rules_of_node;
use crate::datapath::{detach, nftables, overlay, policy};
use crate::desired::names::{self, ROUTE_PROTOCOL};
use crate::foreign_firewall::{self, legacy::LegacyTable};
use crate::linux::change::Change;
use crate::linux::error::KernelError;
use crate::linux::link::Link;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::route::{Family, Route, RouteFilter};
use crate::linux::rule::Rule;
use crate::linux::sysctl;
use crate::store::{Store, SysctlBackup};

/// The nftables tables, in `nft`'s words.
const OWN_TABLE: &str = "inet ferrule";
const POLICY_TABLE: &str = "inet ferrule-policy";

/// What there is to be removed, and who uses it.
pub struct Uninstall {
    /// Attachments that may be in use.
    pub in_use: Vec<JudgedAttachment>,
    /// Links without a record, whose pods may be running.
    pub unrecorded_links: Vec<Link>,
    links: Vec<Link>,
    overlay: overlay::Leftovers,
    routes: Vec<Route>,
    rules: Vec<Rule>,
    has_table: bool,
    has_policy_table: bool,
    /// Settings that still are what ferrule changed them to; the last change first.
    sysctls: Vec<SysctlBackup>,
    stores: Vec<PlannedStore>,
}

/// A store as it was when its attachments were judged.
struct PlannedStore {
    data_dir: PathBuf,
    network: NetworkName,
    keys: HashSet<AttachmentKey>,
}

/// Something that was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedObject {
    /// `link`, `route`, `table`, `rule`, `sysctl` or `store`.
    pub kind: &'static str,
    /// Its name, in the words of `ip` and `nft`.
    pub name: String,
}

/// What became of an [`Uninstall`].
#[derive(Debug, Default)]
pub struct Removed {
    /// What was removed, or would be.
    pub objects: Vec<RemovedObject>,
    /// What could not be removed, and why.
    pub problems: Vec<String>,
}

impl Uninstall {
    /// Finds what there is. Changes nothing.
    ///
    /// # Errors
    /// Where store or kernel cannot be read.
    pub async fn plan(networks: &Networks, node: &NodeView) -> Result<Self, CniError> {
        let (mut in_use, mut stores) = (Vec::new(), Vec::new());
        let mut recorded = HashSet::new();
        let mut sysctls: Vec<SysctlBackup> = Vec::new();
        for network in &networks.known {
            let (Some(store), judged) = judge_network(network, node).await? else { continue };
            recorded.extend(judged.iter().flat_map(|it| names::node_links(&it.key)));
            for change in store.sysctl_backup(&node.boot).unwrap_or_default() {
                if !sysctls.iter().any(|it| it.path == change.path) && is_still_set(&change) {
                    sysctls.push(change);
                }
            }
            stores.push(PlannedStore {
                data_dir: network.data_dir.clone(),
                network: network.name.clone(),
                keys: judged.iter().map(|it| it.key.clone()).collect(),
            });
            // A record that cannot be read may be a running pod's.
            in_use.extend(judged.into_iter().filter(|it| !it.is_dead() || it.has_link));
        }
        sysctls.reverse();
        let links: Vec<Link> = node.marked_links().cloned().collect();
        let unrecorded = links.iter().filter(|link| !recorded.contains(&link.name));
        Ok(Self {
            in_use,
            unrecorded_links: unrecorded.cloned().collect(),
            overlay: overlay::find(&node.netlink).await?,
            routes: own_routes(node).await?,
            rules: pod_rules_of_node(&node.netlink).await?,
            has_table: nftables::is_there(&pod_rules::open()?).await?,
            has_policy_table: pod_rules::open()?.has_table(&policy::table()).await.map_err(NftError::from)?,
            links,
            sysctls,
            stores,
        })
    }

    /// Whether pods would lose their network.
    pub fn is_in_use(&self) -> bool {
        !self.in_use.is_empty() || !self.unrecorded_links.is_empty()
    }

    /// Says what [`Uninstall::carry_out`] would remove.
    pub async fn foresee(&self, node: &NodeView) -> Removed {
        let mut removed = Removed::default();
        self.links.iter().for_each(|link| removed.add("link", show_link(link)));
        removed.add_overlay(&self.overlay);
        // Routes by a link of ours go with it.
        let links: HashSet<u32> =
            self.links.iter().chain(&self.overlay.device).map(|link| link.index).collect();
        let of_its_own = |route: &&Route| route.device.is_none_or(|device| !links.contains(&device));
        let routes = self.routes.iter().filter(of_its_own);
        routes.for_each(|route| removed.add("route", node.show_route(route)));
        self.rules.iter().for_each(|rule| removed.add("rule", rule));
        if self.has_table {
            removed.add("table", OWN_TABLE);
        }
        if self.has_policy_table {
            removed.add("table", POLICY_TABLE);
        }
        self.sysctls.iter().for_each(|it| removed.add("sysctl", show_restored(it)));
        self.stores.iter().for_each(|store| removed.add("store", store.path().display()));
        removed.iptables_rules(true).await;
        removed
    }

    /// Removes it. What cannot be removed does not stop the rest, unless it may still be in use.
    pub async fn carry_out(&self, node: &NodeView) -> Removed {
        let mut removed = Removed::default();
        match detach::detach_all(&node.netlink, &self.links).await {
            Ok(()) => self.links.iter().for_each(|link| removed.add("link", show_link(link))),
            // Their addresses may be in use: without the store nobody would know.
            Err(error) => {
                removed.fail(error);
                return removed;
            }
        }
        match overlay::remove(&node.netlink).await {
            Ok(overlay) => removed.add_overlay(&overlay),
            Err(error) => removed.fail(error),
        }
        if let Err(error) = removed.routes(node).await {
            removed.fail(error);
        }
        if let Err(error) = removed.rules(node).await {
            removed.fail(error);
        }
        if self.has_table {
            match remove_table().await {
                Ok(()) => removed.add("table", OWN_TABLE),
                Err(error) => removed.fail(error),
            }
        }
        if self.has_policy_table {
            match remove_policy_table().await {
                Ok(()) => removed.add("table", POLICY_TABLE),
                Err(error) => removed.fail(error),
            }
        }
        for change in &self.sysctls {
            match sysctl::write(&parts(change), &change.before) {
                Ok(()) => removed.add("sysctl", show_restored(change)),
                Err(error) => removed.fail(error),
            }
        }
        let mut data_dirs = BTreeSet::new();
        for store in &self.stores {
            match store.remove(node) {
                Ok(()) => removed.add("store", store.path().display()),
                Err(error) => removed.fail(format!("network {}: {error}", store.network)),
            }
            data_dirs.insert(&store.data_dir);
        }
        for data_dir in data_dirs {
            // Only if it is empty: what else is in it is not ours.
            let _ = fs::remove_dir(data_dir);
        }
        removed.iptables_rules(false).await;
        removed
    }
}

impl Removed {
    fn add(&mut self, kind: &'static str, name: impl ToString) {
        self.objects.push(RemovedObject { kind, name: name.to_string() });
    }

    fn fail(&mut self, problem: impl ToString) {
        self.problems.push(problem.to_string());
    }

    fn add_overlay(&mut self, overlay: &overlay::Leftovers) {
        overlay.device.iter().for_each(|link| self.add("link", show_link(link)));
        overlay.rules.iter().for_each(|rule| self.add("rule", rule));
    }

    async fn routes(&mut self, node: &NodeView) -> Result<(), KernelError> {
        let routes = own_routes(node).await?;
        let removals = routes.iter().map(|route| Change::DeleteRoute(route.clone()));
        for (outcome, route) in node.netlink.submit(removals).await.iter().zip(&routes) {
            match outcome {
                Err(error) if !KernelError::is_not_found(error) => self.fail(error),
                _ => self.add("route", node.show_route(route)),
            }
        }
        Ok(())
    }

    /// The rules of policy routing for the node's pods.
    async fn rules(&mut self, node: &NodeView) -> Result<(), KernelError> {
        let rules = pod_rules_of_node(&node.netlink).await?;
        let removals = rules.iter().map(|&rule| Change::DeleteRule(rule));
        for (outcome, rule) in node.netlink.submit(removals).await.iter().zip(&rules) {
            match outcome {
                Err(error) if !KernelError::is_not_found(error) => self.fail(error),
                _ => self.add("rule", rule),
            }
        }
        Ok(())
    }

    /// The rules in iptables' chains that accept pods' packets.
    async fn iptables_rules(&mut self, dry_run: bool) {
        if let Ok(nft) = Nfnetlink::open_here() {
            let rules = match dry_run {
                true => foreign_firewall::accept_rules(&nft, None).await,
                false => foreign_firewall::remove(&nft, None).await,
            };
            match rules {
                Ok(rules) => rules.into_iter().for_each(|rule| self.add("rule", rule)),
                Err(error) => self.fail(error),
            }
        }
        for legacy in LegacyTable::find() {
            let rules =
                legacy.and_then(|it| if dry_run { Ok(it.accept_rules(None)) } else { it.remove(None) });
            match rules {
                Ok(rules) => rules.into_iter().for_each(|rule| self.add("rule", rule)),
                Err(error) => self.fail(error),
            }
        }
    }
}

impl PlannedStore {
    fn path(&self) -> PathBuf {
        self.data_dir.join(self.network.as_str())
    }

    /// Removes the store, unless a pod was added since it was judged.
    fn remove(&self, node: &NodeView) -> Result<(), CniError> {
        let Some(store) = Store::open_existing(&self.data_dir, &self.network)? else { return Ok(()) };
        // An ADD that waits for the lock finds the store gone, and fails without a trace.
        let _guard = store.lock(&node.boot, LOCK_DEADLINE)?;
        if let Some(entry) = store.attachments()?.iter().find(|entry| !self.keys.contains(&entry.key)) {
            let message = format!("{} was attached meanwhile, so its store stays", entry.key);
            let details = "remove the conf first, then run this again";
            return Err(CniError::new(Code::TryAgain, message).with_details(details));
        }
        let path = self.path();
        fs::remove_dir_all(&path).map_err(|error| {
            CniError::new(Code::Io, format!("cannot remove {}", path.display()))
                .with_details(error.to_string())
        })
    }
}

/// A link as people know it: its name, and the alias that says whose it is.
pub fn show_link(link: &Link) -> String {
    match &link.alias {
        Some(alias) => format!("{} ({alias})", link.name),
        None => link.name.clone(),
    }
}

async fn remove_table() -> Result<(), CniError> {
    Ok(nftables::remove_table(&pod_rules::open()?).await?)
}

async fn remove_policy_table() -> Result<(), CniError> {
    Ok(policy::remove(&pod_rules::open()?).await?)
}

/// Every route of ferrule's protocol, in every table.
async fn own_routes(node: &NodeView) -> Result<Vec<Route>, KernelError> {
    let mut routes = Vec::new();
    for family in [Family::V4, Family::V6] {
        let filter = RouteFilter { protocol: Some(ROUTE_PROTOCOL), ..RouteFilter::all(family) };
        routes.extend(node.netlink.routes(filter).await?);
    }
    Ok(routes)
}

/// Whether ferrule changed it, and nobody has changed it since.
fn is_still_set(change: &SysctlBackup) -> bool {
    change.before != change.after && sysctl::read(&parts(change)).is_ok_and(|value| value == change.after)
}

fn show_restored(change: &SysctlBackup) -> String {
    format!("{} is {} again", change.path.join("/"), change.before)
}

fn parts(change: &SysctlBackup) -> Vec<&str> {
    change.path.iter().map(String::as_str).collect()
}
