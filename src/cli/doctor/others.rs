//! What other CNI plugins left on this node: confs that come first, links and routes.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;

use crate::attachments::networks::{KnownNetwork, Networks};
use crate::attachments::node_view::NodeView;
use crate::cli::doctor::Finding;
use crate::cni::error::CniError;
use crate::config::Role;
use crate::datapath::overruled::{self, Overruled, delete};
use crate::datapath::peers::own_routes;
use crate::desired::attachment::covers;
use crate::desired::names::ROUTE_PROTOCOL;
use crate::desired::node::NodeState;
use crate::linux::route::{Family, Route, RouteFilter};

/// Links by whose names other plugins are known.
const LINKS_OF_OTHERS: [(&str, &str); 8] = [
    ("cni0", "flannel or the bridge plugin"),
    ("flannel.1", "flannel"),
    ("flannel-v6.1", "flannel"),
    ("cilium_host", "cilium"),
    ("cilium_vxlan", "cilium"),
    ("vxlan.calico", "calico"),
    ("kube-bridge", "kube-router"),
    ("weave", "weave"),
];

/// Looks at the conf directory.
pub fn examine_confs(networks: &Networks, conf_dir: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let directory = conf_dir.display();
    for problem in &networks.problems {
        findings.push(
            Finding::new("conf-unusable", format!("{}: {}", problem.path.display(), problem.text))
                .because("no pod can be added with such a conf")
                .remedy("correct it; the runtime notices the change by itself"),
        );
    }
    let is_main = |network: &KnownNetwork| network.role == Some(Role::Main);
    if networks.known.is_empty() && networks.problems.is_empty() {
        findings.push(
            Finding::new("no-network", format!("no conf in {directory} names ferrule"))
                .because("ferrule is not installed, or the runtime uses another directory")
                .remedy("see conf_dir in the runtime's configuration, and pass it with --conf-dir"),
        );
    }
    if networks.known.iter().any(is_main) {
        findings.extend(examine_order(networks));
    }
    findings.extend(examine_copies(networks));
    findings
}

/// Meta plugins of which it cannot be told where they lead: what they name may be an object of the API.
pub fn unclear_confs(networks: &Networks) -> Vec<String> {
    let first = networks.files.first().filter(|file| file.mains.is_empty() && file.is_unclear);
    let Some((file, meta)) = first.and_then(|file| Some((file, file.meta.as_ref()?))) else {
        return Vec::new();
    };
    let names = match meta.references.join(", ") {
        names if names.is_empty() => "its daemon's configuration".to_owned(),
        names => names,
    };
    vec![format!(
        "where {} leads to: {} asks the API server or {names}; pods get ferrule if that is its network",
        file.path.display(),
        meta.plugin
    )]
}

/// The runtime takes the first file. That may be one of a meta plugin which leads to ferrule.
fn examine_order(networks: &Networks) -> Option<Finding> {
    let first = networks.files.first().filter(|file| file.mains.is_empty() && !file.is_unclear)?;
    let ours = networks.files.iter().find(|file| !file.mains.is_empty())?;
    let (path, ours_path) = (first.path.display(), ours.path.display());
    let finding = Finding::new("conf-order", format!("{path} comes before {ours_path}"))
        .because("containerd and CRI-O take the first file in alphabetical order for every pod");
    let network = ours.mains.first().map(|(name, _)| name.to_string()).unwrap_or_default();
    Some(match &first.meta {
        Some(meta) => finding.remedy(format!(
            "{} in it does not lead to ferrule: let its clusterNetwork, or the first of its delegates, be {network}",
            meta.plugin
        )),
        None => finding.remedy(format!("remove {path}, or rename {ours_path} so that it comes first")),
    })
}

/// Multus may contain a copy of our conf, made when its daemon started.
fn examine_copies(networks: &Networks) -> Vec<Finding> {
    let mut findings = Vec::new();
    for copy in networks.files.iter().filter(|file| file.meta.is_some()) {
        for (network, conf) in &copy.mains {
            let own = networks.files.iter().filter(|file| file.meta.is_none());
            let original = own.flat_map(|file| file.mains.iter().map(move |main| (file, main)));
            let differs = original.filter(|(_, (name, other))| name == network && other != conf);
            let Some((file, _)) = differs.take(1).next() else { continue };
            let (copy, file) = (copy.path.display(), file.path.display());
            findings.push(
                Finding::warning(
                    "conf-copy-differs",
                    format!("{copy} has another conf of the network than {file}"),
                )
                .of(network)
                .because("it is a copy of an earlier time, and new pods get the network as it was then")
                .remedy(format!(
                    "restart the daemon that wrote {copy}, or let its clusterNetwork name {network} instead"
                )),
            );
        }
    }
    findings
}

/// Looks for links of other plugins.
pub fn examine_links(networks: &Networks, node: &NodeView) -> Vec<Finding> {
    let is_main = |network: &KnownNetwork| network.role == Some(Role::Main);
    // The links of a plugin that has its addresses from ferrule are no leftovers.
    if !networks.known.iter().any(is_main) || !networks.known.iter().all(is_main) {
        return Vec::new();
    }
    let names: HashSet<&str> = node.links.iter().map(|link| link.name.as_str()).collect();
    let left = LINKS_OF_OTHERS.into_iter().filter(|(name, _)| names.contains(name));
    left.map(|(name, whose)| {
        Finding::new("foreign-link", format!("link {name} is here"))
            .because(format!(
                "{whose} made it; its routes and firewall rules may divert or drop pods' packets"
            ))
            .remedy(format!(
                "if no pod uses it any more: ip link delete {name}, or remove its conf and reboot"
            ))
    })
    .collect()
}

/// Looks for routes of others to the network's pods. Those by a link that leads to one of the addresses `imported` are
/// the old plugin's, and are as they should be.
pub async fn examine_routes(
    network: &KnownNetwork,
    node: &NodeView,
    imported: &[IpAddr],
) -> Result<Vec<Finding>, CniError> {
    let meaning = network.meaning.as_ref().filter(|meaning| meaning.role == Role::Main);
    let Some(state) = meaning.map(|it| NodeState::of(it, node.facts.has_ipv6)) else {
        return Ok(Vec::new());
    };
    let peers = state.other_nodes().flat_map(|peer| &peer.pod_cidrs);
    // The agent's peers are in no conf, but their routes are there.
    let routed = own_routes(&node.netlink, &network.name).await?;
    let routed = routed.iter().map(|route| &route.destination);
    let subnets: Vec<IpNetwork> = state.subnets.iter().chain(peers).chain(routed).copied().collect();
    // Of an address on `lo` the kernel makes a route of its own.
    let gateways: HashSet<IpNetwork> = network.named_gateways().map(IpNetwork::from).collect();
    let leads_into = |route: &Route| {
        let mut all = subnets.iter();
        all.find(|it| it.is_ipv4() == route.destination.is_ipv4() && covers(**it, route.destination)).copied()
    };
    let mut routes = node.netlink.routes(RouteFilter::all(Family::V4)).await?;
    routes.extend(node.netlink.routes(RouteFilter::all(Family::V6)).await?);
    let is_imported = |route: &&Route| imported.iter().any(|&address| route.destination.contains(address));
    let of_imported: HashSet<Option<u32>> =
        routes.iter().filter(is_imported).filter(|it| leads_into(it).is_some()).map(|it| it.device).collect();
    let (mut findings, mut routes_told) = (Vec::new(), Vec::new());
    for route in &routes {
        let is_foreign = route.protocol != ROUTE_PROTOCOL
            && route.table.is_none()
            && !gateways.contains(&route.destination)
            && (route.device.is_none() || !of_imported.contains(&route.device));
        let Some(subnet) = leads_into(route).filter(|_| is_foreign) else { continue };
        routes_told.push(route);
        findings.push(
            Finding::new("foreign-route", format!("route {} leads into {subnet}", node.show_route(route)))
                .of(&network.name)
                .because("another program routes the addresses of this network's pods; its route may win over ferrule's")
                .remedy(format!("find out what made it; if nothing needs it any more: {}", delete(route))),
        );
    }
    // What wins without a place in the main table, or turns packets away.
    let (overruled, _) = overruled::find(&node.netlink, &network.name, 0, usize::MAX).await?;
    let is_told = |it: &Overruled| it.by.as_ref().is_some_and(|by| routes_told.contains(&by));
    for it in overruled.iter().filter(|it| !is_told(it)) {
        findings.push(
            Finding::new("route-overruled", it.to_string())
                .of(&network.name)
                .because("the kernel takes it for packets to that node's pods, so they are not reached")
                .remedy(it.remedy()),
        );
    }
    Ok(findings)
}
