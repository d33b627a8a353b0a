//! A network: what a conf means to ADD, CHECK, GC and STATUS.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;

use super::annotations::Annotations;
use super::bandwidth::Bandwidth;
use super::host_port::{HostPort, read_host_ports};
use super::log::LogConf;
use super::masquerade::Masquerade;
use super::peer::{Peers, read_own_addresses, read_peers};
use super::policy::PolicyUnknown;
use super::range::RangeSet;
use super::role::{Role, Types, read_data_dir};
use super::sets::read_sets;
use super::sysctl::{self, Pattern, Setting, SysctlPolicy};
use super::valid_attachments::read_valid_attachments;
use super::values::{MTU_MAX, check_mtu, parse_absolute, parse_ip, parse_mac};
use crate::cni::conf::Conf;
use crate::cni::dns::Dns;
use crate::cni::env::{Command, Environment};
use crate::cni::error::CniError;
use crate::cni::ids::{ContainerId, IfName, NetworkName};
use crate::cni::json::{Document, Node};
use crate::cni::problem::Problems;
use crate::cni::result::AddResult;
use crate::cni::route::Route;
use crate::cni::version::SpecVersion;
use crate::mac::MacAddr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressManagement {
    /// From ferrule's own store: one address of each set. The sets do not overlap. None at all only in
    /// a GC, which hands out nothing.
    Ranges(Vec<RangeSet>),
    /// From another IPAM plugin of this name, which is a plain file name.
    Delegate(String),
}

/// A conf whose every value is usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub name: NetworkName,
    /// `cniVersion`, in which is answered.
    pub version: SpecVersion,
    pub role: Role,
    /// `ferrule.dev/mtu` of the pod, else `mtu`, in bytes; `None`: that of the link that carries the node's address.
    pub mtu: Option<u32>,
    /// The hardware address asked for: `runtimeConfig.mac`, else `args.cni.mac`, else `MAC` of `CNI_ARGS`, else
    /// `ferrule.dev/mac` of the pod.
    pub mac: Option<MacAddr>,
    /// `runtimeConfig.bandwidth`: how much the pod may send and receive.
    pub bandwidth: Bandwidth,
    /// `runtimeConfig.portMappings`: ports of the node that lead to the pod.
    pub host_ports: Vec<HostPort>,
    /// `ipMasq` and `nonMasqueradeCIDRs`.
    pub masquerade: Masquerade,
    /// `sysctl`, and `ferrule.dev/sysctl` of the pod as far as `allowedSysctls` lists it, in the order in which they
    /// are to be written.
    pub sysctls: Vec<Setting>,
    pub address_management: AddressManagement,
    /// The store's directory, an absolute path.
    pub data_dir: PathBuf,
    /// `ipam.routes`: the pod's routes. Empty where another IPAM plugin gives them.
    pub routes: Vec<Route>,
    /// `ferrule.dev/routes` of the pod.
    pub pod_routes: Vec<Route>,
    pub dns: Dns,
    /// `ipam.resolvConf`: the file from which the result's DNS is read, an absolute path.
    pub resolv_conf: Option<PathBuf>,
    pub peers: Peers,
    /// `forwardAccept`: iptables' chain FORWARD, where it drops, may be given a rule that lets the pods pass. Never by
    /// a command of the protocol.
    pub forward_accept: bool,
    /// `policyUnknown`: what a pod starts with whose NetworkPolicies are not known yet.
    pub policy_unknown: PolicyUnknown,
    /// `blockInstanceMetadata`: pods are kept from the cloud's metadata service.
    pub block_metadata: bool,
    /// `nodeIPs`: this node's own address, one of a family at most.
    pub node_ips: Vec<IpAddr>,
    /// Addresses asked for, each once: `runtimeConfig.ips`, `args.cni.ips`, `IP` of `CNI_ARGS`; where none of these
    /// asks, `ferrule.dev/ips` of the pod. Whether a range set has them is for the store to say.
    pub requested: Vec<IpAddr>,
    pub prev_result: Option<AddResult>,
    /// `cni.dev/valid-attachments`, for GC; empty for other commands.
    pub valid_attachments: Vec<(ContainerId, IfName)>,
    pub log: LogConf,
}

impl Network {
    /// Reads what the conf means to the command of `environment`. Of a conf of another main plugin only
    /// what concerns IPAM is looked at: `mtu` or `log` may mean something else there.
    ///
    /// # Errors
    /// Code 7 with every problem of the conf, each with its JSON path. Unknown keys are none.
    pub fn read(conf: &Conf, environment: &Environment) -> Result<Self, CniError> {
        let document = Document::new(&conf.document);
        let root = document.root();
        let types = Types::read(&root);
        let name = read_name(&root);
        types.refuse_nonsense(&root);

        let is_gc = environment.command == Command::Gc;
        let ipam = root.object("ipam").filter(|_| types.has_own_ipam());
        let sets = if types.has_own_ipam() { read_sets(&root, conf.version, is_gc) } else { Vec::new() };
        let has_ipv6 = sets.iter().any(|set| !set.is_ipv4());
        let policy = SysctlPolicy { link: environment.ifname.as_ref().map(IfName::as_str), has_ipv6 };
        let main = Main::read(&root, types.role(), &sets, policy);
        let pod = Annotations::read(&root, types.role(), policy, &main.allowed_sysctls);
        let routes = ipam.as_ref().map(|ipam| Route::read_list(ipam, SpecVersion::NEWEST));
        let resolv_conf = ipam.as_ref().and_then(|ipam| ipam.parsed("resolvConf", parse_absolute));
        let data_dir = read_data_dir(&root, types);
        let requested = read_requested(&root, environment.args.ip, pod.ips);
        let prev_result = root.member("prevResult").map(|node| AddResult::read(&node, conf.version));
        let valid_attachments = if is_gc { read_valid_attachments(&root) } else { Vec::new() };
        let address_management = match types.delegate() {
            Some(name) => AddressManagement::Delegate(name.to_owned()),
            None => AddressManagement::Ranges(sets),
        };

        let name = conclude(name, document.into_problems())?;
        Ok(Self {
            name,
            version: conf.version,
            role: types.role(),
            mtu: pod.mtu.or(main.mtu),
            mac: main.mac.or(environment.args.mac).or(pod.mac),
            bandwidth: main.bandwidth,
            host_ports: main.host_ports,
            masquerade: main.masquerade,
            sysctls: sysctl::merge(main.sysctls, pod.sysctls),
            address_management,
            data_dir,
            routes: routes.unwrap_or_default(),
            pod_routes: pod.routes,
            dns: main.dns,
            resolv_conf,
            peers: main.peers,
            forward_accept: main.forward_accept,
            policy_unknown: main.policy_unknown,
            block_metadata: main.block_metadata,
            node_ips: main.node_ips,
            requested,
            prev_result,
            valid_attachments,
            log: main.log,
        })
    }

    /// The pod's routes: those `given` by the conf or by another IPAM plugin, and the pod's own, each of which replaces
    /// a given one to the same destination. Idempotent.
    pub fn with_pod_routes(&self, given: &[Route]) -> Vec<Route> {
        let is_kept = |route: &&Route| self.pod_routes.iter().all(|own| own.dst != route.dst);
        given.iter().filter(is_kept).chain(&self.pod_routes).cloned().collect()
    }

    /// The range sets; none where another plugin manages addresses.
    pub fn range_sets(&self) -> &[RangeSet] {
        match &self.address_management {
            AddressManagement::Ranges(sets) => sets,
            AddressManagement::Delegate(_) => &[],
        }
    }
}

/// The keys that are ferrule's only in a conf of its own.
#[derive(Default)]
struct Main {
    mtu: Option<u32>,
    mac: Option<MacAddr>,
    bandwidth: Bandwidth,
    host_ports: Vec<HostPort>,
    masquerade: Masquerade,
    sysctls: Vec<Setting>,
    allowed_sysctls: Vec<Pattern>,
    dns: Dns,
    peers: Peers,
    forward_accept: bool,
    policy_unknown: PolicyUnknown,
    block_metadata: bool,
    node_ips: Vec<IpAddr>,
    log: LogConf,
}

impl Main {
    fn read(root: &Node<'_, '_>, role: Role, sets: &[RangeSet], policy: SysctlPolicy<'_>) -> Self {
        let is_set = |key| root.member(key).and_then(|node| node.as_bool()).unwrap_or(false);
        match role {
            Role::Ipam => Self::default(),
            Role::Main => Self {
                mtu: read_mtu(root, policy.has_ipv6),
                mac: read_mac(root),
                bandwidth: Bandwidth::read(root),
                host_ports: read_host_ports(root),
                masquerade: Masquerade::read(root),
                sysctls: sysctl::read_settings(root, policy),
                allowed_sysctls: Pattern::read_list(root, policy),
                dns: Dns::read_member(root),
                peers: read_peers(root, sets),
                policy_unknown: PolicyUnknown::read(root),
                forward_accept: is_set("forwardAccept"),
                block_metadata: is_set("blockInstanceMetadata"),
                node_ips: read_own_addresses(root),
                log: LogConf::read(root),
            },
        }
    }
}

/// Reads `name`; a missing one is a problem.
pub(super) fn read_name(root: &Node<'_, '_>) -> Option<NetworkName> {
    if root.member("name").is_none() {
        root.refuse_member("name", "is missing; every network has one, and keeps it");
    }
    root.parsed("name", NetworkName::parse)
}

/// The name if there were no problems, and otherwise the error that tells them.
pub(super) fn conclude(name: Option<NetworkName>, problems: Problems) -> Result<NetworkName, CniError> {
    match name {
        Some(name) if problems.is_empty() => Ok(name),
        Some(name) => Err(problems.into_error(&format!("the conf of network \"{name}\""))),
        None => Err(problems.into_error("the conf")),
    }
}

fn read_mtu(root: &Node<'_, '_>, has_ipv6: bool) -> Option<u32> {
    let node = root.member("mtu")?;
    let mtu = node.as_number(0..=MTU_MAX)?;
    check_mtu(mtu, has_ipv6).map_err(|error| node.refuse(error)).ok().flatten()
}

fn read_mac(root: &Node<'_, '_>) -> Option<MacAddr> {
    let runtime = root.object("runtimeConfig").and_then(|runtime| runtime.parsed("mac", parse_mac));
    // Read even where the other one counts: what is wrong there is wrong all the same.
    let args = with_cni_args(root, |args| args.parsed("mac", parse_mac)).flatten();
    runtime.or(args)
}

fn read_requested(
    root: &Node<'_, '_>,
    from_environment: Option<IpAddr>,
    from_pod: Vec<IpAddr>,
) -> Vec<IpAddr> {
    let read_ips = |node: &Node<'_, '_>| -> Vec<IpAddr> {
        let Some(list) = node.list("ips") else { return Vec::new() };
        list.items().filter_map(|item| item.parse(parse_ip)).collect()
    };
    let runtime = root.object("runtimeConfig").map(|runtime| read_ips(&runtime));
    let args = with_cni_args(root, read_ips).unwrap_or_default();
    // CNI's conventions: where args names addresses, CNI_ARGS is ignored.
    let from_environment = from_environment.filter(|_| args.is_empty());
    let of_attachment: Vec<IpAddr> =
        runtime.into_iter().flatten().chain(args).chain(from_environment).collect();
    let mut all = if of_attachment.is_empty() { from_pod } else { of_attachment };
    let mut seen = HashSet::new();
    all.retain(|address| seen.insert(*address));
    all
}

/// Reads from `args.cni`, if the conf has that.
fn with_cni_args<T>(root: &Node<'_, '_>, read: impl FnOnce(&Node<'_, '_>) -> T) -> Option<T> {
    let args = root.object("args")?;
    args.object("cni").map(|cni| read(&cni))
}

#[cfg(test)]
mod tests;
