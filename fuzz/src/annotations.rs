//! What a pod's annotations ask for: `ferrule.dev/mtu=1400` and the like, parted by NUL.
//!
//! The conf around them is always the same and has no fault: whatever is refused, the pod asked for it.

use ferrule::cni::args::Args;
use ferrule::cni::conf::Conf;
use ferrule::cni::env::{Command, Environment};
use ferrule::cni::version::SpecVersion;
use ferrule::config::Network;
use serde_json::{Value, json};

use crate::promises;

/// Reads the annotations, as the main plugin and as the IPAM plugin of another.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let annotations = text.split('\0').filter_map(|it| it.split_once('='));
    let annotations: Value = annotations.map(|(key, text)| (key.to_owned(), Value::from(text))).collect();
    for main in ["ferrule", "bridge"] {
        let document = json!({
            "cniVersion": "1.1.0", "name": "podnet", "type": main,
            "ipam": { "type": "ferrule", "ranges": [[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00::/64" }]] },
            "allowedSysctls": ["net.core.somaxconn", "net.ipv4.*"],
            "runtimeConfig": { "io.kubernetes.cri.pod-annotations": annotations.clone() },
        });
        let conf = Conf { version: SpecVersion::V1_1_0, document };
        match Network::read(&conf, &environment()) {
            Ok(network) => granted(&network, main == "ferrule"),
            Err(error) => {
                promises::refusal(&error, conf.version);
                // Keys are read as Go does, in either case.
                let names = |problem: &str| problem.to_ascii_lowercase().contains("[\"ferrule.dev/");
                assert!(error.details.split(" | ").next().is_some_and(names), "{error}");
            }
        }
    }
}

fn environment() -> Environment {
    let (container, netns, args) = (None, None, Args::default());
    let ifname = ferrule::cni::ids::IfName::parse("eth0").ok();
    Environment { command: Command::Add, container, netns, ifname, args, path: Vec::new() }
}

/// A pod gets nothing but what pods may ask for.
fn granted(network: &Network, is_main: bool) {
    assert!(network.mtu.is_none_or(|mtu| is_main && (1280..=65535).contains(&mtu)));
    assert!(network.mac.is_none_or(|mac| is_main && mac.is_unicast()));
    for (at, address) in network.requested.iter().enumerate() {
        assert!(!network.requested[..at].contains(address));
    }
    for route in &network.pod_routes {
        assert_eq!(route.dst.ip(), route.dst.network());
        assert!(route.gw.is_none_or(|gw| gw.is_ipv4() == route.dst.is_ipv4()));
    }
    let routes = network.with_pod_routes(&network.routes);
    assert_eq!(network.with_pod_routes(&routes), routes);
    for setting in &network.sysctls {
        let path = setting.path.join("/");
        assert!(is_main && (path == "net/core/somaxconn" || path.starts_with("net/ipv4/")), "{path}");
        setting.path.iter().for_each(|part| promises::file_name(part));
        promises::one_line(&setting.value);
        // Without these the pod would have no network, or the node no pod.
        assert!(path != "net/ipv4/conf/eth0/disable_ipv6", "{path}");
    }
}
