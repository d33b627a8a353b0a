//! What the runtime remembers of an attachment: libcni's cache of results, one file per attachment.
//!
//! host-local's directory says whose an address is, and no more. The cache has the namespace, the pod's name, the links
//! and the ports (libcni, api.go, `cachedInfo`; before 0.8 the bare result). It is evidence, not truth: what cannot be
//! read is left out, and nothing is ever written.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cni::args::{Args, PodName};
use crate::cni::error::{CniError, Code};
use crate::cni::ids::{ContainerId, IfName, NetnsPath, NetworkName};
use crate::cni::result::AddResult;
use crate::cni::version::SpecVersion;

/// Largest file that is read: a conflist and a result, in base64 and in JSON.
const FILE_MAX: u64 = 8 * 1024 * 1024;

/// An attachment as the runtime remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// Its container's id.
    pub container: ContainerId,
    /// The interface's name in the container.
    pub ifname: IfName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its namespace.
    pub netns: Option<NetnsPath>,
    /// The links of the node that belong to it: the pod's, and maybe a bridge.
    pub node_links: Vec<String>,
    /// The pod.
    pub pod: Option<PodName>,
    /// The ports of the node that lead to it.
    pub host_ports: Vec<HostPort>,
}

/// A port of the node that leads to a pod (capability `portMappings`).
///
/// containerd writes the keys with capitals: its type has no JSON names (go-cni, `PortMapping`), and Go's plugins do not
/// mind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// The port.
    #[serde(alias = "HostPort")]
    pub host_port: u16,
    /// That of the pod.
    #[serde(alias = "ContainerPort")]
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    #[serde(default, alias = "Protocol")]
    pub protocol: String,
    /// The address that it is on, if not all.
    #[serde(default, rename = "hostIP", alias = "HostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip.as_str() {
            "" => write!(f, "{}/{}", self.host_port, self.protocol),
            address => write!(f, "{address} {}/{}", self.host_port, self.protocol),
        }
    }
}

/// A file of the cache, as far as it matters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    container_id: String,
    if_name: String,
    network_name: String,
    #[serde(default)]
    netns: Option<String>,
    #[serde(default)]
    cni_args: Option<Vec<(String, String)>>,
    #[serde(default)]
    capability_args: Option<Value>,
    #[serde(default)]
    result: Value,
}

/// Every attachment of `network` in the cache, and how many of its files could not be read. `None` if there is no such
/// directory.
///
/// # Errors
/// Where the directory cannot be listed.
pub fn read(directory: &Path, network: &NetworkName) -> Result<Option<(Vec<Cached>, usize)>, CniError> {
    let refuse = |error: io::Error| {
        CniError::new(Code::Io, format!("cannot read {}", directory.display()))
            .with_details(format!("{error}; say with --results where the runtime's results are"))
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(refuse)?,
    };
    let (mut found, mut unread) = (Vec::new(), 0);
    for entry in entries {
        let name = entry.map_err(refuse)?.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = name.strip_prefix(&format!("{network}-")) else { continue };
        let Ok(text) = read_regular(&directory.join(name)) else {
            unread += 1;
            continue;
        };
        match parse(network, rest, &text) {
            Some(cached) => found.extend(cached),
            None => unread += 1,
        }
    }
    found.sort_by(|one, other| {
        one.container.cmp(&other.container).then_with(|| one.ifname.cmp(&other.ifname))
    });
    Ok(Some((found, unread)))
}

/// The content of a regular file. Links are not followed, and nothing is waited for.
fn read_regular(path: &Path) -> io::Result<String> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Reads one file; `rest` is its name behind that of the network. `None` if it is nothing that libcni wrote;
/// `Some(None)` if it is another network's, whose name begins the same.
fn parse(network: &NetworkName, rest: &str, text: &str) -> Option<Option<Cached>> {
    let document: Value = serde_json::from_str(text).ok()?;
    let written = match document.get("kind") {
        Some(_) => serde_json::from_value(document).ok()?,
        None if !document.is_object() => return None,
        None => {
            let (container_id, if_name) = rest.rsplit_once('-')?;
            Written {
                container_id: container_id.to_owned(),
                if_name: if_name.to_owned(),
                network_name: network.to_string(),
                netns: None,
                cni_args: None,
                capability_args: None,
                result: document,
            }
        }
    };
    if written.network_name != network.as_str() {
        return Some(None);
    }
    let result = AddResult::parse(SpecVersion::V0_1_0, &written.result).unwrap_or_default();
    let in_pod = result.interfaces.iter().filter(|it| it.name == written.if_name);
    let sandbox = in_pod.filter_map(|it| it.sandbox.clone()).find(|path| !path.is_empty());
    let on_node = result.interfaces.iter().filter(|it| it.sandbox.as_ref().is_none_or(String::is_empty));
    let netns = written.netns.filter(|path| !path.is_empty()).or(sandbox);
    Some(Some(Cached {
        container: ContainerId::parse(&written.container_id).ok()?,
        ifname: IfName::parse(&written.if_name).ok()?,
        addresses: result.ips.iter().map(|ip| ip.address.ip()).collect(),
        netns: netns.and_then(|path| NetnsPath::parse(&path).ok()),
        node_links: on_node.map(|it| it.name.clone()).collect(),
        pod: written.cni_args.as_deref().and_then(name_pod),
        host_ports: written.capability_args.as_ref().map(list_host_ports).unwrap_or_default(),
    }))
}

fn name_pod(args: &[(String, String)]) -> Option<PodName> {
    let pairs = args.iter().filter(|(key, value)| key.starts_with("K8S_POD_") && !value.contains(';'));
    let text: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
    Args::parse(&text.join(";")).ok()?.pod
}

fn list_host_ports(capabilities: &Value) -> Vec<HostPort> {
    let mappings = capabilities.get("portMappings").and_then(Value::as_array).into_iter().flatten();
    let ports = mappings.filter_map(|mapping| HostPort::deserialize(mapping).ok());
    ports.filter(|port| port.host_port != 0).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn network() -> NetworkName {
        NetworkName::parse("cbr0").unwrap()
    }

    fn result() -> Value {
        json!({
            "cniVersion": "0.3.1",
            "interfaces": [
                { "name": "cni0", "mac": "1e:ce:67:d7:39:f5" },
                { "name": "veth2101277f" },
                { "name": "eth0", "sandbox": "/run/netns/cni-1" },
            ],
            "ips": [
                { "version": "4", "interface": 2, "address": "10.88.0.2/24", "gateway": "10.88.0.1" },
                { "version": "6", "interface": 2, "address": "fd00:88::2/64" },
            ],
            "dns": {},
        })
    }

    #[test]
    fn what_libcni_writes_is_read() {
        let text = json!({
            "kind": "cniCacheV1", "containerId": "c0ffee", "config": "e30=", "ifName": "eth0",
            "networkName": "cbr0", "netns": "/run/netns/cni-2",
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web-0"]],
            "capabilityArgs": { "portMappings": [
                { "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "" },
                { "hostPort": 0, "containerPort": 81, "protocol": "tcp" },
                { "HostPort": 53, "ContainerPort": 5353, "Protocol": "udp", "HostIP": "192.0.2.1" },
            ] },
            "result": result(),
        });
        let cached = parse(&network(), "c0ffee-eth0", &text.to_string()).unwrap().unwrap();
        assert_eq!((cached.container.as_str(), cached.ifname.as_str()), ("c0ffee", "eth0"));
        assert_eq!(cached.addresses, ["10.88.0.2", "fd00:88::2"].map(|it| it.parse::<IpAddr>().unwrap()));
        assert_eq!(cached.netns.unwrap().to_string(), "/run/netns/cni-2");
        assert_eq!(cached.node_links, ["cni0", "veth2101277f"]);
        assert_eq!(cached.pod.unwrap().to_string(), "default/web-0");
        let ports: Vec<String> = cached.host_ports.iter().map(HostPort::to_string).collect();
        assert_eq!(ports, ["8080/tcp", "192.0.2.1 53/udp"]);
    }

    #[test]
    fn a_bare_result_is_known_by_its_file_name_and_its_sandbox() {
        let cached = parse(&network(), "a-b-eth0", &result().to_string()).unwrap().unwrap();
        assert_eq!((cached.container.as_str(), cached.ifname.as_str()), ("a-b", "eth0"));
        assert_eq!(cached.netns.unwrap().to_string(), "/run/netns/cni-1");
    }

    #[test]
    fn another_networks_is_passed_over_and_nonsense_is_counted() {
        let other =
            json!({ "kind": "cniCacheV1", "containerId": "c", "ifName": "eth0", "networkName": "cbr0-x" });
        assert_eq!(parse(&network(), "x-c-eth0", &other.to_string()), Some(None));
        for text in ["", "[]", "{\"kind\":\"cniCacheV1\"}", "\0\0"] {
            assert_eq!(parse(&network(), "c-eth0", text).flatten(), None, "{text:?}");
        }
    }
}
