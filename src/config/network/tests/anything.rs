//! Confs with anything anywhere: refused, or as good as a conf that a person wrote with care.

use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::Value;

use super::super::*;
use super::{environment, full};
use crate::cni::error::Code;
use crate::config::removal::Removal;

/// Any JSON, with words in it that mean something.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "ferrule",
            "host-local",
            "10.1.0.0/24",
            "10.1.0.5",
            "fd00::/64",
            "::",
            "0.0.0.0/0",
            "/d",
            "../x",
            "net.*",
            "{\"net.core.x\": 1, \"net/../x\": 1}"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let key = prop::sample::select(vec![
            "subnet",
            "rangeStart",
            "dst",
            "gw",
            "podCIDRs",
            "nodeIPs",
            "type",
            "cni",
            "ips",
            "level",
            "net.core.x",
            "net/../x",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4).prop_map(|members| members
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect()),
        ]
    })
}

/// Every place of a document, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(key, value)| places(value, &format!("{at}/{}", escape(key)), found))
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(key, value)| places(value, &format!("{at}/{key}"), found))
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn any_conf_is_refused_or_keeps_every_promise(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..4),
        gc in any::<bool>(),
    ) {
        let mut document = full();
        for (at, value) in changes {
            let mut all = Vec::new();
            places(&document, "", &mut all);
            let place: &String = at.get(&all);
            *document.pointer_mut(place).unwrap() = value;
        }
        let Ok(conf) = Conf::parse(document.to_string().as_bytes()) else { return Ok(()) };
        let _ = Removal::read(&conf);
        let network = match Network::read(&conf, &environment(if gc { Command::Gc } else { Command::Add })) {
            Ok(network) => network,
            Err(error) => {
                prop_assert_eq!(error.code, Code::InvalidConf);
                prop_assert!(!error.details.is_empty() && !error.details.contains(char::is_control));
                return Ok(());
            }
        };
        prop_assert_eq!(Removal::read(&conf).unwrap(), Removal::of(&network));
        prop_assert!(network.data_dir.is_absolute());
        prop_assert!(network.mtu.is_none_or(|mtu| (68..=65535).contains(&mtu)));
        prop_assert!(network.mac.is_none_or(MacAddr::is_unicast));
        let sets = network.range_sets();
        let is_delegated = matches!(network.address_management, AddressManagement::Delegate(_));
        prop_assert!(is_delegated || gc || !sets.is_empty());
        for (at, set) in sets.iter().enumerate() {
            for other in &sets[at + 1..] {
                prop_assert!(!set.ranges().iter().any(|range| other.ranges().iter().any(|other| range.overlaps(other))));
            }
        }
        let mut cidrs = HashSet::new();
        for peer in network.peers.listed() {
            for cidr in &peer.pod_cidrs {
                prop_assert!(peer.next_hop(*cidr).is_some());
                prop_assert!(cidrs.insert(*cidr));
            }
        }
        for setting in &network.sysctls {
            let leaves = |part: &String| ["", ".", ".."].contains(&part.as_str()) || part.contains('/');
            prop_assert!(setting.path[0] == "net" && setting.path.len() > 1 && !setting.path.iter().any(leaves));
            prop_assert!(!setting.value.is_empty() && !setting.value.contains(char::is_control));
        }
        for route in &network.routes {
            prop_assert_eq!(route.dst.ip(), route.dst.network());
            prop_assert!(route.gw.is_none_or(|gw| gw.is_ipv4() == route.dst.is_ipv4()));
        }
        prop_assert_eq!(network.requested.iter().collect::<HashSet<_>>().len(), network.requested.len());
    }
}
