//! The shape of each version, and that what is written is what is read.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::cni::version::SpecVersion;

/// What ADD answers for a pod of both families.
fn dual_stack() -> AddResult {
    AddResult {
        interfaces: vec![
            Interface {
                name: "veth1".to_owned(),
                mac: Some("0a:58:00:00:00:02".to_owned()),
                mtu: Some(1450),
                ..Default::default()
            },
            Interface {
                name: "eth0".to_owned(),
                mac: Some("0a:58:00:00:00:01".to_owned()),
                mtu: Some(1450),
                sandbox: Some("/run/netns/cni-1".to_owned()),
                socket_path: Some("/run/s".to_owned()),
                pci_id: Some("0000:00:1f.6".to_owned()),
            },
        ],
        ips: vec![
            IpConfig {
                address: "10.244.1.5/24".parse().unwrap(),
                gateway: Some("10.244.1.1".parse().unwrap()),
                interface: Some(1),
            },
            IpConfig { address: "fd00::5/64".parse().unwrap(), gateway: None, interface: Some(1) },
            IpConfig { address: "10.9.0.5/16".parse().unwrap(), gateway: None, interface: Some(1) },
        ],
        routes: vec![
            Route {
                mtu: Some(1400),
                priority: Some(7),
                table: Some(0),
                scope: Some(0),
                advmss: Some(1360),
                ..Route::new("0.0.0.0/0".parse().unwrap(), None)
            },
            Route::new("::/0".parse().unwrap(), Some("fe80::1".parse().unwrap())),
        ],
        dns: Dns {
            nameservers: vec!["10.96.0.10".to_owned()],
            domain: Some("cluster.local".to_owned()),
            ..Dns::default()
        },
    }
}

fn written(result: &AddResult, version: SpecVersion) -> Value {
    let json = result.to_json(version);
    assert!(json.ends_with("}\n"));
    serde_json::from_str(&json).unwrap()
}

#[test]
fn versions_0_1_and_0_2_have_one_address_of_each_family() {
    for version in [SpecVersion::V0_1_0, SpecVersion::V0_2_0] {
        assert_eq!(
            written(&dual_stack(), version),
            json!({
                "cniVersion": version.as_str(),
                "ip4": { "ip": "10.244.1.5/24", "gateway": "10.244.1.1", "routes": [{ "dst": "0.0.0.0/0" }] },
                "ip6": { "ip": "fd00::5/64", "routes": [{ "dst": "::/0", "gw": "fe80::1" }] },
                "dns": { "nameservers": ["10.96.0.10"], "domain": "cluster.local" }
            })
        );
    }
}

#[test]
fn versions_0_3_and_0_4_name_the_family_of_each_address() {
    for version in [SpecVersion::V0_3_0, SpecVersion::V0_3_1, SpecVersion::V0_4_0] {
        assert_eq!(
            written(&dual_stack(), version),
            json!({
                "cniVersion": version.as_str(),
                "interfaces": [
                    { "name": "veth1", "mac": "0a:58:00:00:00:02" },
                    { "name": "eth0", "mac": "0a:58:00:00:00:01", "sandbox": "/run/netns/cni-1" }
                ],
                "ips": [
                    { "version": "4", "interface": 1, "address": "10.244.1.5/24", "gateway": "10.244.1.1" },
                    { "version": "6", "interface": 1, "address": "fd00::5/64" },
                    { "version": "4", "interface": 1, "address": "10.9.0.5/16" }
                ],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0", "gw": "fe80::1" }],
                "dns": { "nameservers": ["10.96.0.10"], "domain": "cluster.local" }
            })
        );
    }
}

#[test]
fn version_1_0_has_no_families_and_not_yet_the_fields_of_1_1() {
    assert_eq!(
        written(&dual_stack(), SpecVersion::V1_0_0),
        json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                { "name": "veth1", "mac": "0a:58:00:00:00:02" },
                { "name": "eth0", "mac": "0a:58:00:00:00:01", "sandbox": "/run/netns/cni-1" }
            ],
            "ips": [
                { "interface": 1, "address": "10.244.1.5/24", "gateway": "10.244.1.1" },
                { "interface": 1, "address": "fd00::5/64" },
                { "interface": 1, "address": "10.9.0.5/16" }
            ],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0", "gw": "fe80::1" }],
            "dns": { "nameservers": ["10.96.0.10"], "domain": "cluster.local" }
        })
    );
}

#[test]
fn version_1_1_says_everything() {
    assert_eq!(
        written(&dual_stack(), SpecVersion::V1_1_0),
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                { "name": "veth1", "mac": "0a:58:00:00:00:02", "mtu": 1450 },
                { "name": "eth0", "mac": "0a:58:00:00:00:01", "mtu": 1450, "sandbox": "/run/netns/cni-1",
                  "socketPath": "/run/s", "pciID": "0000:00:1f.6" }
            ],
            "ips": [
                { "interface": 1, "address": "10.244.1.5/24", "gateway": "10.244.1.1" },
                { "interface": 1, "address": "fd00::5/64" },
                { "interface": 1, "address": "10.9.0.5/16" }
            ],
            "routes": [
                { "dst": "0.0.0.0/0", "mtu": 1400, "advmss": 1360, "priority": 7, "table": 0, "scope": 0 },
                { "dst": "::/0", "gw": "fe80::1" }
            ],
            "dns": { "nameservers": ["10.96.0.10"], "domain": "cluster.local" }
        })
    );
}

#[test]
fn the_answer_of_host_local_is_read() {
    let answer = json!({
        "cniVersion": "0.3.1",
        "ips": [{ "version": "4", "address": "203.0.113.2/24", "gateway": "203.0.113.1" }],
        "routes": [{ "dst": "0.0.0.0/0" }], "dns": {}, "unknown": [1]
    });
    let result = AddResult::parse(SpecVersion::V1_0_0, &answer).unwrap();
    assert_eq!(result.ips.len(), 1);
    assert_eq!(result.ips[0].address.to_string(), "203.0.113.2/24");
    assert_eq!((result.routes.len(), result.interfaces.len(), result.dns.is_empty()), (1, 0, true));
}

#[test]
fn a_result_is_read_in_its_own_version_or_the_confs() {
    let families = json!({ "ip4": { "ip": "10.0.0.5/24" } });
    assert_eq!(AddResult::parse(SpecVersion::V0_2_0, &families).unwrap().ips.len(), 1);
    assert_eq!(AddResult::parse(SpecVersion::V1_0_0, &families).unwrap().ips.len(), 0);
    let own = json!({ "cniVersion": "0.2.0", "ip4": { "ip": "10.0.0.5/24" } });
    assert_eq!(AddResult::parse(SpecVersion::V1_0_0, &own).unwrap().ips.len(), 1);
}

#[test]
fn everything_wrong_with_a_result_is_named() {
    let value = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{ "mtu": "x" }, 7],
        "ips": [{ "address": "10.0.0.5", "interface": 2, "gateway": "here" }, { "interface": -1 }],
        "routes": [{ "dst": "10.0.0.1/8" }, { "gw": "::1" }, { "dst": "::/0", "gw": "10.0.0.1" }, { "dst": "::/0", "scope": 256 }],
        "dns": { "search": "x" }
    });
    let problems = AddResult::parse(SpecVersion::V1_0_0, &value).unwrap_err();
    let paths: Vec<&str> = problems.shown().iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "interfaces[0].name",
            "interfaces[0].mtu",
            "interfaces[1]",
            "ips[0].gateway",
            "ips[0].interface",
            "ips[0].address",
            "ips[1].interface",
            "ips[1].address",
            "routes[0].dst",
            "routes[1].dst",
            "routes[2].gw",
            "routes[3].scope",
            "dns.search",
        ]
    );
    let families = json!({ "ip4": { "ip": "fd00::1/64" }, "ip6": { "gateway": 1 } });
    let problems = AddResult::parse(SpecVersion::V0_1_0, &families).unwrap_err();
    let paths: Vec<&str> = problems.shown().iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["ip4.ip", "ip6.gateway", "ip6.ip"]);
}

prop_compose! {
    fn prefix()(v4 in any::<bool>(), bits in any::<u128>(), length in 0u8..=128) -> IpNetwork {
        if v4 {
            IpNetwork::new(IpAddr::V4((bits as u32).into()), length % 33).unwrap()
        } else {
            // Not an IPv4 address in disguise: that one is read as the IPv4 address it is.
            IpNetwork::new(IpAddr::V6((bits | 1 << 127).into()), length).unwrap()
        }
    }
}

prop_compose! {
    fn route()(
        to in prefix(), with_gw in any::<bool>(), mtu in proptest::option::of(1u32..), advmss in proptest::option::of(1u32..),
        priority in proptest::option::of(1u32..), table in any::<Option<u32>>(), scope in any::<Option<u8>>(),
    ) -> Route {
        let dst = IpNetwork::new(to.network(), to.prefix()).unwrap();
        let gw = with_gw.then_some(to.ip()).filter(|gw| gw.to_canonical() == *gw);
        Route { dst, gw, mtu, advmss, priority, table, scope }
    }
}

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9:/. é-]{1,20}"
}

prop_compose! {
    fn interface()(
        name in word(), mac in proptest::option::of(word()), mtu in proptest::option::of(1u32..),
        sandbox in proptest::option::of(word()), socket_path in proptest::option::of(word()),
        pci_id in proptest::option::of(word()),
    ) -> Interface {
        Interface { name, mac, mtu, sandbox, socket_path, pci_id }
    }
}

prop_compose! {
    fn result()(
        interfaces in proptest::collection::vec(interface(), 0..4),
        addresses in proptest::collection::vec((prefix(), any::<bool>(), any::<usize>()), 0..4),
        routes in proptest::collection::vec(route(), 0..4),
        nameservers in proptest::collection::vec(word(), 0..3), domain in proptest::option::of(word()),
        search in proptest::collection::vec(word(), 0..3), options in proptest::collection::vec(word(), 0..3),
    ) -> AddResult {
        let ips = addresses.into_iter().map(|(address, with_gateway, index)| IpConfig {
            address,
            gateway: with_gateway.then_some(address.network()).filter(|gateway| gateway.to_canonical() == *gateway),
            interface: index.checked_rem(interfaces.len()),
        });
        AddResult { ips: ips.collect(), interfaces, routes, dns: Dns { nameservers, domain, search, options } }
    }
}

proptest! {
    #[test]
    fn the_newest_version_is_read_as_it_was_written(result in result()) {
        let json = written(&result, SpecVersion::NEWEST);
        prop_assert_eq!(AddResult::parse(SpecVersion::V0_1_0, &json), Ok(result));
    }

    #[test]
    fn older_versions_lose_only_what_they_cannot_say(result in result()) {
        for version in SpecVersion::ALL {
            let json = written(&result, version);
            let read = AddResult::parse(version, &json).unwrap();
            prop_assert_eq!(written(&read, version), json, "{}", version);
            if version >= SpecVersion::V0_3_0 {
                prop_assert_eq!(&read.ips, &result.ips);
                prop_assert_eq!(read.routes.len(), result.routes.len());
            } else {
                let first = |ips: &[IpConfig], v4| ips.iter().map(|ip| ip.address).find(|ip| ip.is_ipv4() == v4);
                for v4 in [true, false] {
                    prop_assert_eq!(first(&read.ips, v4), first(&result.ips, v4));
                }
            }
            prop_assert_eq!(&read.dns, &result.dns);
        }
    }

    #[test]
    fn no_field_of_a_wrong_kind_makes_reading_panic(at in 0usize..10, index in 0usize..3, wrong in 0usize..8) {
        let wrong = [json!(null), json!(-1), json!(1e300), json!("x"), json!([]), json!({}), json!([[]]), json!("10.0.0.1/99")][wrong].clone();
        for version in SpecVersion::ALL {
            let mut value = written(&dual_stack(), version);
            let pointers = [
                "/interfaces", "/ips", "/routes", "/dns", "/ip4/ip", "/ip4/routes", "/dns/nameservers", "/ip6",
                &format!("/interfaces/{index}/name"), &format!("/ips/{index}/interface"),
            ].map(str::to_owned);
            if let Some(place) = value.pointer_mut(&pointers[at]) {
                *place = wrong.clone();
            }
            if let Ok(read) = AddResult::parse(version, &value) {
                for ip in &read.ips {
                    prop_assert!(ip.interface.is_none_or(|interface| interface < read.interfaces.len()));
                }
            }
        }
    }
}
