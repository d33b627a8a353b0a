//! A command: what the runtime puts into the environment and writes to stdin.
//!
//! The bytes are variables as in /proc/PID/environ, `NAME=value`, each ended by NUL; an empty one ends them, and the
//! rest is stdin.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ferrule::cni::env::Command;
use ferrule::cni::request::{Failure, Request, version_answer};
use ferrule::config::loopback::LoopbackConf;
use ferrule::config::{AddressManagement, Network, Removal};
use ferrule::desired::names;
use ferrule::desired::nftables::element::{NoMasquerade, PodRules, last_address};
use ferrule::desired::nftables::table::show;
use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::promises;

/// Addresses of a set that are looked at.
const SOME: usize = 8;

/// Reads a command and its conf.
pub fn check(data: &[u8]) {
    let (variables, stdin) = split(data);
    let lookup = |name: &str| -> Option<OsString> {
        let has_name = |variable: &&&[u8]| {
            variable.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
        };
        let variable = variables.iter().find(has_name)?;
        variable.get(name.len() + 1..).map(|value| OsStr::from_bytes(value).to_owned())
    };
    match Request::read(lookup, stdin) {
        Err(Failure { error, version }) => promises::refusal(&error, version),
        Ok(request) => obey(&request),
    }
}

fn split(data: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut variables = Vec::new();
    let mut rest = data;
    while let Some(end) = rest.iter().position(|&byte| byte == 0) {
        let (variable, behind) = rest.split_at(end);
        rest = behind.get(1..).unwrap_or_default();
        if variable.is_empty() {
            break;
        }
        variables.push(variable);
    }
    (variables, rest)
}

fn obey(request: &Request) {
    let version = request.conf.version;
    let command = request.environment.command;
    if command == Command::Version {
        let answer: Value = serde_json::from_str(&version_answer(version)).expect("VERSION's answer is JSON");
        assert_eq!(answer["cniVersion"], version.as_str());
        return;
    }
    assert!(version >= command.since());
    if let Err(error) = LoopbackConf::read(&request.conf) {
        promises::refusal(&error, version);
    }
    let removal = Removal::read(&request.conf);
    match &removal {
        Ok(removal) => removed(request, removal),
        Err(error) => promises::refusal(error, version),
    }
    match Network::read(&request.conf, &request.environment) {
        Ok(network) => {
            // What was attached can be removed, with the same conf.
            assert_eq!(removal.ok(), Some(Removal::of(&network)));
            added(request, &network);
        }
        Err(error) => promises::refusal(&error, version),
    }
}

fn removed(request: &Request, removal: &Removal) {
    path(&removal.data_dir);
    removal.log.file.iter().for_each(|file| path(file));
    removal.delegate.iter().for_each(|plugin| promises::file_name(plugin));
    promises::file_name(removal.name.as_str());
    let pod = request.environment.args.pod.as_ref().map(ToString::to_string);
    if let Ok(key) = request.environment.attachment(removal.name.clone()) {
        promises::names_of(&key, pod.as_deref());
    }
}

/// Everything that commands go on with.
fn added(request: &Request, network: &Network) {
    let is_gc = request.environment.command == Command::Gc;
    assert!(network.mtu.is_none_or(|mtu| (68..=65535).contains(&mtu)));
    assert!(network.mac.is_none_or(|mac| mac.is_unicast()));
    network.resolv_conf.iter().for_each(|file| path(file));
    for (at, address) in network.requested.iter().enumerate() {
        assert!(!network.requested[..at].contains(address), "{address} is asked for twice");
    }
    for (container, ifname) in &network.valid_attachments {
        assert!(is_gc);
        promises::file_name(&format!("{container}@{ifname}"));
    }
    if let AddressManagement::Delegate(plugin) = &network.address_management {
        promises::file_name(plugin);
    }
    ranges(network, is_gc);
    routes(network);
    peers(network);
    sysctls(network);
    table(request, network);
}

fn path(path: &Path) {
    assert!(path.is_absolute(), "{}", path.display());
    promises::one_line(path.to_str().expect("JSON is UTF-8"));
}

/// No address is handed out that is not the set's to give, and none by two sets.
fn ranges(network: &Network, is_gc: bool) {
    let sets = network.range_sets();
    let is_delegated = matches!(network.address_management, AddressManagement::Delegate(_));
    assert!(!sets.is_empty() || is_delegated || is_gc);
    for (at, set) in sets.iter().enumerate() {
        assert!(sets[..at].iter().all(|other| !other.overlaps(set)));
        for cursor in [None, Some(set.ranges()[0].first()), Some(set.ranges()[0].last())] {
            let mut seen = Vec::new();
            for address in set.addresses_after(cursor).take(SOME) {
                assert!(set.hands_out(address) && !seen.contains(&address), "{address}");
                assert!(set.range_of(address).is_some_and(|range| range.subnet().contains(address)));
                seen.push(address);
            }
            assert!(seen.len() as u128 == set.capacity().min(SOME as u128));
        }
    }
}

fn routes(network: &Network) {
    let routes = network.with_pod_routes(&network.routes);
    assert_eq!(network.with_pod_routes(&routes), routes);
    for route in routes {
        assert_eq!(route.dst.ip(), route.dst.network());
        assert!(route.gw.is_none_or(|gw| gw.is_ipv4() == route.dst.is_ipv4()));
    }
}

fn peers(network: &Network) {
    let mut seen: Vec<IpNetwork> = Vec::new();
    for peer in network.peers.listed() {
        promises::one_line(&peer.node);
        for &cidr in &peer.pod_cidrs {
            assert!(peer.next_hop(cidr).is_some_and(|hop| hop.is_ipv4() == cidr.is_ipv4()));
            assert!(!seen.contains(&cidr), "{cidr} is of two peers");
            seen.push(cidr);
        }
    }
}

/// A setting is below /proc/sys/net, and its text is what one line can hold.
fn sysctls(network: &Network) {
    for setting in &network.sysctls {
        assert!(setting.path.len() > 1 && setting.path[0] == "net", "{setting:?}");
        setting.path.iter().for_each(|part| promises::file_name(part));
        assert!(!setting.value.is_empty());
        promises::one_line(&setting.value);
    }
}

/// What goes into the table can stand there together.
fn table(request: &Request, network: &Network) {
    let exempt = network.masquerade.exempt.iter().copied();
    let networks = network.range_sets().iter().flat_map(|set| set.ranges()).map(|range| range.subnet());
    let inside = NoMasquerade { network: network.name.clone(), networks: exempt.chain(networks).collect() };
    assert_eq!(inside.marks().len(), 2);
    assert!(names::is_link_group(inside.group()));
    for cidr in &inside.networks {
        assert!(cidr.contains(last_address(*cidr)));
    }
    let Ok(key) = request.environment.attachment(network.name.clone()) else { return };
    let addresses = network.range_sets().iter().filter_map(|set| set.addresses_after(None).next());
    let rules = PodRules {
        network: network.name.clone(),
        host_link: names::host_link(&key),
        name: request.environment.args.pod.as_ref().map(ToString::to_string),
        addresses: addresses.collect(),
        masquerade: network.masquerade.is_on,
        host_ports: network.host_ports.clone(),
    };
    let elements = rules.elements();
    for (at, element) in elements.iter().enumerate() {
        promises::one_line(&show(element));
        element.comment.as_deref().map(promises::one_line);
        let same =
            elements[..at].iter().any(|other| (&other.set, &other.key) == (&element.set, &element.key));
        assert!(!same, "{} is there twice", show(element));
    }
}
