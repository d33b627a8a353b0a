//! The conflist that the runtime reads: a pure function of the settings and of this node's part in the cluster.

use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use crate::agent::cluster::desired_state::OwnNode;
use crate::cni::conf::Conf;
use crate::cni::env::Environment;
use crate::cni::ids::NetworkName;
use crate::cni::version::SpecVersion;
use crate::config::Network;
use crate::config::policy::PolicyUnknown;

/// What the settings say about the conf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfOptions {
    /// Name of the network.
    pub network: NetworkName,
    /// The store's directory.
    pub data_dir: PathBuf,
    /// Pods' MTU in bytes; `None` leaves it to each ADD to take the uplink's.
    pub mtu: Option<u32>,
    /// Whether what leaves the cluster has the node's address.
    pub masquerade: bool,
    /// Destinations that see the pod's own address besides those in the cluster.
    pub non_masquerade: Vec<IpNetwork>,
    /// Versions of the specification that the runtime may choose from.
    pub cni_versions: Vec<SpecVersion>,
    /// Whether `ferrulectl sync` inserts accept rules where iptables' FORWARD drops.
    pub forward_accept: bool,
    /// What a pod starts with whose NetworkPolicies this agent does not know yet.
    pub policy_unknown: PolicyUnknown,
    /// `blockInstanceMetadata`.
    pub block_metadata: bool,
}

/// The conflist with our entry alone. The same for the same input.
pub fn render(options: &ConfOptions, own: &OwnNode) -> Value {
    let sets: Vec<Value> = own.pod_cidrs.iter().map(|cidr| json!([{ "subnet": cidr.to_string() }])).collect();
    let default_route = |(ipv4, destination): (bool, &str)| {
        let is_needed = own.pod_cidrs.iter().any(|cidr| cidr.is_ipv4() == ipv4);
        is_needed.then(|| json!({ "dst": destination }))
    };
    let routes: Vec<Value> =
        [(true, "0.0.0.0/0"), (false, "::/0")].into_iter().filter_map(default_route).collect();
    let mut plugin = json!({
        "type": "ferrule",
        "capabilities": {
            "bandwidth": true,
            "io.kubernetes.cri.pod-annotations": true,
            "ips": true,
            "mac": true,
            "portMappings": true,
        },
        "ipMasq": options.masquerade,
        "nodeIPs": own.node_ips.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "peers": "agent",
        "log": { "level": "info", "file": log_file(&options.data_dir, &options.network) },
        "ipam": {
            "type": "ferrule",
            "dataDir": options.data_dir,
            "ranges": families(&sets, own),
            "routes": routes,
        },
    });
    if !options.non_masquerade.is_empty() {
        let exempt: Vec<String> = options.non_masquerade.iter().map(ToString::to_string).collect();
        plugin["nonMasqueradeCIDRs"] = json!(exempt);
    }
    if options.block_metadata {
        plugin["blockInstanceMetadata"] = json!(true);
    }
    if options.forward_accept {
        plugin["forwardAccept"] = json!(true);
    }
    if options.policy_unknown != PolicyUnknown::default() {
        plugin["policyUnknown"] = json!(options.policy_unknown.as_str());
    }
    if let Some(mtu) = options.mtu {
        plugin["mtu"] = json!(mtu);
    }
    let versions = options.cni_versions.iter();
    // What containerd 1.6 reads; newer runtimes choose from all.
    let alone = versions.clone().filter(|version| **version <= SpecVersion::V1_0_0).max();
    let alone = alone.or(options.cni_versions.first()).copied().unwrap_or(SpecVersion::V1_0_0);
    json!({
        "cniVersion": alone.as_str(),
        "cniVersions": versions.map(|version| version.as_str()).collect::<Vec<_>>(),
        "name": options.network.as_str(),
        "plugins": [plugin],
    })
}

/// Reads a rendered conflist as the plugin will.
///
/// # Errors
/// Each of its problems: a node must not get a conf that its plugin rejects.
pub fn check(conflist: &Value) -> Result<Network, String> {
    let mut plugin = conflist["plugins"][0].clone();
    plugin["name"] = conflist["name"].clone();
    let conf = Conf { version: SpecVersion::V1_0_0, document: plugin };
    Environment::read(|name| (name == "CNI_COMMAND").then(|| "STATUS".into()))
        .and_then(|environment| Network::read(&conf, &environment))
        .map_err(|error| error.to_string())
}

/// One range set a family, so that a pod gets one address of each; podCIDRs of one family are ranges of its set.
fn families(sets: &[Value], own: &OwnNode) -> Vec<Value> {
    let ranges = |ipv4: bool| -> Vec<Value> {
        let of_family = sets.iter().zip(&own.pod_cidrs).filter(|(_, cidr)| cidr.is_ipv4() == ipv4);
        of_family.map(|(set, _)| set[0].clone()).collect()
    };
    let first_is_ipv4 = own.pod_cidrs.first().is_none_or(IpNetwork::is_ipv4);
    [ranges(first_is_ipv4), ranges(!first_is_ipv4)]
        .into_iter()
        .filter(|ranges| !ranges.is_empty())
        .map(Value::Array)
        .collect()
}

/// Where the plugin's log is: in the network's directory, which every node has and which goes with the network.
pub fn log_file(data_dir: &Path, network: &NetworkName) -> PathBuf {
    data_dir.join(network.as_str()).join("log")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ConfOptions {
        ConfOptions {
            network: NetworkName::parse("podnet").unwrap(),
            data_dir: "/var/lib/cni/ferrule".into(),
            mtu: None,
            masquerade: true,
            non_masquerade: vec![],
            cni_versions: vec![SpecVersion::V0_4_0, SpecVersion::V1_0_0, SpecVersion::V1_1_0],
            forward_accept: false,
            policy_unknown: PolicyUnknown::Hold,
            block_metadata: false,
        }
    }

    fn own(pod_cidrs: &[&str]) -> OwnNode {
        OwnNode {
            pod_cidrs: pod_cidrs.iter().map(|text| text.parse().unwrap()).collect(),
            node_ips: vec!["172.18.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        }
    }

    fn plugin(options: &ConfOptions, own: &OwnNode) -> Value {
        let conflist = render(options, own);
        let meaning = check(&conflist).unwrap();
        assert_eq!(meaning.range_sets().len(), if own.pod_cidrs.len() > 1 { 2 } else { 1 });
        conflist["plugins"][0].clone()
    }

    #[test]
    fn a_dual_stack_node_has_a_set_per_family_in_order() {
        let plugin = plugin(&options(), &own(&["fd00:1::/64", "10.244.1.0/24", "10.244.9.0/24"]));
        assert_eq!(
            plugin["ipam"]["ranges"],
            json!([
                [{ "subnet": "fd00:1::/64" }],
                [{ "subnet": "10.244.1.0/24" }, { "subnet": "10.244.9.0/24" }]
            ])
        );
        assert_eq!(plugin["ipam"]["routes"], json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]));
        assert_eq!(plugin["nodeIPs"], json!(["172.18.0.2", "fd00::2"]));
        assert_eq!((&plugin["peers"], &plugin["ipMasq"]), (&json!("agent"), &json!(true)));
        for absent in ["mtu", "nonMasqueradeCIDRs", "forwardAccept", "policyUnknown", "blockInstanceMetadata"]
        {
            assert_eq!(plugin[absent], Value::Null);
        }
    }

    #[test]
    fn what_unknown_pods_start_with_is_read_as_it_was_set() {
        for wanted in [PolicyUnknown::Hold, PolicyUnknown::Open] {
            let options = ConfOptions { policy_unknown: wanted, ..options() };
            let meaning = check(&render(&options, &own(&["10.244.1.0/24"]))).unwrap();
            assert_eq!(meaning.policy_unknown, wanted);
        }
    }

    /// A runtime of before libcni 1.2 knows `cniVersion` alone.
    #[test]
    fn a_plugin_behind_that_is_older_can_be_served() {
        let versions = |cni_versions: &[SpecVersion]| {
            let options = ConfOptions { cni_versions: cni_versions.to_vec(), ..options() };
            let list = render(&options, &own(&["10.244.1.0/24"]));
            (list["cniVersion"].clone(), list["cniVersions"].clone())
        };
        use SpecVersion::{V0_3_1, V0_4_0, V1_0_0, V1_1_0};
        assert_eq!(versions(&[V0_4_0, V1_0_0, V1_1_0]), (json!("1.0.0"), json!(["0.4.0", "1.0.0", "1.1.0"])));
        assert_eq!(versions(&[V0_4_0, V0_3_1]), (json!("0.4.0"), json!(["0.4.0", "0.3.1"])));
        assert_eq!(versions(&[V1_1_0]), (json!("1.1.0"), json!(["1.1.0"])));
    }

    #[test]
    fn a_single_family_has_one_set_and_one_default_route() {
        let options =
            ConfOptions { mtu: Some(1450), non_masquerade: vec!["10.0.0.0/8".parse().unwrap()], ..options() };
        let plugin = plugin(&options, &own(&["10.244.1.0/24"]));
        assert_eq!(plugin["ipam"]["ranges"], json!([[{ "subnet": "10.244.1.0/24" }]]));
        assert_eq!(plugin["ipam"]["routes"], json!([{ "dst": "0.0.0.0/0" }]));
        assert_eq!((&plugin["mtu"], &plugin["nonMasqueradeCIDRs"]), (&json!(1450), &json!(["10.0.0.0/8"])));
    }
}
