//! Confs as people write them, and everything that can be wrong with them.

mod anything;

use serde_json::{Value, json};

use super::*;
use crate::cni::args::Args;
use crate::cni::error::Code;
use crate::config::log::LogLevel;
use crate::config::removal::Removal;

fn environment(command: Command) -> Environment {
    Environment {
        command,
        container: None,
        netns: None,
        ifname: None,
        args: Args::default(),
        path: Vec::new(),
    }
}

fn read_for(command: Command, document: Value) -> Result<Network, CniError> {
    let conf = Conf::parse(document.to_string().as_bytes()).unwrap();
    Network::read(&conf, &environment(command))
}

fn read(document: Value) -> Result<Network, CniError> {
    read_for(Command::Add, document)
}

/// The paths of all problems of a conf, in order.
fn wrong_with(command: Command, document: Value) -> Vec<String> {
    let error = read_for(command, document).unwrap_err();
    assert_eq!(error.code, Code::InvalidConf);
    let problems = error.details.split(" | ");
    problems.map(|problem| problem.split(": ").next().unwrap_or_default().to_owned()).collect()
}

fn full() -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "podnet", "type": "ferrule", "mtu": 1450, "ipMasq": true,
        "ipam": {
            "type": "ferrule",
            "ranges": [
                [{ "subnet": "10.244.1.0/24", "rangeStart": "10.244.1.10", "rangeEnd": "10.244.1.250", "gateway": "10.244.1.1" }],
                [{ "subnet": "fd00:10:244:1::/64" }]
            ],
            "routes": [{ "dst": "0.0.0.0/0", "mtu": 1400 }, { "dst": "::/0" }],
            "dataDir": "/var/lib/elsewhere", "resolvConf": "/etc/resolv.conf"
        },
        "dns": { "nameservers": ["10.96.0.10"] },
        "peers": [{
            "node": "node-b", "podCIDRs": ["10.244.2.0/24", "fd00:10:244:2::/64"],
            "nodeIPs": ["192.168.1.11", "fd00:1::11"]
        }],
        "nodeIPs": ["192.168.1.10", "fd00:1::10"],
        "sysctl": { "net.core.somaxconn": "500", "net/ipv4/conf/eth0.5/arp_notify": 1 },
        "allowedSysctls": ["net.core.somaxconn", "net.ipv4.*"],
        "forwardAccept": true, "policyUnknown": "open",
        "log": { "level": "debug", "file": "/var/log/ferrule.log" },
        "capabilities": { "ips": true, "mac": true },
        "runtimeConfig": { "ips": ["10.244.1.20/24", "10.244.1.20"], "mac": "0a:58:00:00:00:01",
            "io.kubernetes.cri.pod-annotations": { "ferrule.dev/sysctl": "{\"net.core.somaxconn\": \"700\"}" } },
        "args": { "cni": { "ips": ["fd00:10:244:1::20"], "mac": "0a:58:00:00:00:02" } },
        "prevResult": { "interfaces": [], "ips": [{ "address": "10.244.1.5/24" }] },
        "cni.dev/valid-attachments": [{ "containerID": "8e5d", "ifname": "eth0" }]
    })
}

#[test]
fn the_conf_of_the_design_is_read_whole() {
    let network = read(full()).unwrap();
    assert_eq!(
        (network.name.as_str(), network.version, network.role),
        ("podnet", SpecVersion::V1_0_0, Role::Main)
    );
    assert_eq!(network.mtu, Some(1450));
    assert_eq!(network.mac, Some(MacAddr([0x0a, 0x58, 0, 0, 0, 1])));
    assert_eq!(network.range_sets().iter().map(RangeSet::is_ipv4).collect::<Vec<_>>(), [true, false]);
    assert_eq!(network.data_dir, PathBuf::from("/var/lib/elsewhere"));
    assert_eq!((network.routes.len(), network.routes[0].mtu), (2, Some(1400)));
    assert_eq!(network.dns.nameservers, ["10.96.0.10"]);
    assert_eq!(network.resolv_conf, Some(PathBuf::from("/etc/resolv.conf")));
    let peer = &network.peers.listed()[0];
    let hops: Vec<_> = peer.pod_cidrs.iter().map(|cidr| peer.next_hop(*cidr).unwrap().to_string()).collect();
    assert_eq!(hops, ["192.168.1.11", "fd00:1::11"]);
    assert_eq!((network.node_ips.len(), network.forward_accept), (2, true));
    assert_eq!(network.policy_unknown, PolicyUnknown::Open);
    let requested: Vec<_> = network.requested.iter().map(ToString::to_string).collect();
    assert_eq!(requested, ["10.244.1.20", "fd00:10:244:1::20"]);
    let sysctls: Vec<_> =
        network.sysctls.iter().map(|it| format!("{}={}", it.path.join("/"), it.value)).collect();
    assert_eq!(sysctls, ["net/core/somaxconn=700", "net/ipv4/conf/eth0.5/arp_notify=1"]);
    assert_eq!(network.prev_result.unwrap().ips.len(), 1);
    assert_eq!(network.valid_attachments, []);
    assert_eq!(
        network.log,
        LogConf { level: LogLevel::Debug, file: Some(PathBuf::from("/var/log/ferrule.log")) }
    );
    let gc = read_for(Command::Gc, full()).unwrap();
    assert_eq!(gc.valid_attachments[0].0.as_str(), "8e5d");
}

#[test]
fn the_smallest_conf_has_defaults() {
    let network = read(json!({ "name": "n", "type": "ferrule", "mtu": 0,
        "ipam": { "type": "ferrule", "subnet": "10.1.2.0/24" } }))
    .unwrap();
    assert_eq!((network.version, network.mtu, network.mac), (SpecVersion::V0_1_0, None, None));
    assert_eq!(network.data_dir, PathBuf::from("/var/lib/cni/ferrule"));
    assert_eq!((network.log.level, network.range_sets().len()), (LogLevel::Warn, 1));
    assert!(!network.forward_accept);
    assert_eq!(network.policy_unknown, PolicyUnknown::Hold);
}

#[test]
fn the_conf_decides_which_part_ferrule_plays() {
    let part = |main: &str, ipam: &str| {
        read(json!({ "cniVersion": "1.0.0", "name": "n", "type": main, "dataDir": "/top",
            "ipam": { "type": ipam, "subnet": "10.1.2.0/24", "dataDir": "/ipam" } }))
    };
    let main = part("ferrule", "ferrule").unwrap();
    assert_eq!((main.role, main.data_dir), (Role::Main, PathBuf::from("/ipam")));
    let ipam = part("bridge", "ferrule").unwrap();
    assert_eq!((ipam.role, ipam.data_dir), (Role::Ipam, PathBuf::from("/ipam")));
    let delegating = part("ferrule", "host-local").unwrap();
    assert_eq!((delegating.role, &delegating.data_dir), (Role::Main, &PathBuf::from("/top")));
    assert_eq!(delegating.address_management, AddressManagement::Delegate("host-local".to_owned()));
    let error = part("bridge", "host-local").unwrap_err();
    assert!(error.details.starts_with(r#"type: is "bridge" and ipam.type is not "ferrule""#), "{error}");
    for name in ["../host-local", "/bin/sh", "..", "."] {
        let error = part("ferrule", name).unwrap_err();
        assert!(error.details.starts_with("ipam.type: is "), "{error}");
    }
}

#[test]
fn a_missing_ipam_names_the_remedy() {
    let error = read(json!({ "name": "n", "type": "ferrule" })).unwrap_err();
    assert_eq!(
        error.details,
        r#"ipam: is missing; say where addresses come from: {"type": "ferrule", "ranges": [[{"subnet": "10.244.1.0/24"}]]}"#
    );
    assert_eq!(error.message, "the conf of network \"n\" has a problem");
    assert_eq!(wrong_with(Command::Add, json!({ "ipam": {} })), ["name", "type", "ipam.type"]);
    assert_eq!(
        wrong_with(Command::Add, json!({ "name": 7, "type": 7, "ipam": 7 })),
        ["type", "ipam", "name"]
    );
}

#[test]
fn every_problem_is_named_at_once() {
    let conf = json!({
        "cniVersion": "1.0.0", "name": "../n", "type": "ferrule", "mtu": 1200, "dns": [], "nodeIPs": ["10.0.0.1", "10.0.0.2", "::1"],
        "forwardAccept": "yes", "policyUnknown": "deny",
        "ipam": {
            "type": "ferrule", "dataDir": "var/lib", "resolvConf": 1,
            "ranges": [
                [{ "subnet": "10.1.2.0/24" }, { "subnet": "10.1.3.0/24", "rangeStart": "10.9.9.9", "rangeEnd": "x" }],
                [{ "subnet": "10.1.4.7/24" }, "x"],
                { "subnet": "10.1.5.0/24" },
                [],
                [{ "rangeStart": "10.1.6.1" }],
                [{ "subnet": "fd00::/64" }]
            ],
            "routes": [{ "dst": "10.0.0.1/8" }, { "gw": "10.0.0.1" }]
        },
        "runtimeConfig": { "mac": "ff:ff:ff:ff:ff:ff", "ips": ["10.0.0.300", ""] },
        "args": { "cni": { "mac": "x", "ips": "10.0.0.1" } },
        "log": { "level": "loud", "file": "log" },
        "prevResult": { "ips": [{ "address": 5 }] }
    });
    let mut wrong = wrong_with(Command::Add, conf);
    wrong.sort();
    assert_eq!(
        wrong,
        [
            "args.cni.ips",
            "args.cni.mac",
            "dns",
            "forwardAccept",
            "ipam.dataDir",
            "ipam.ranges[0][1].rangeEnd",
            "ipam.ranges[1][0]",
            "ipam.ranges[1][1]",
            "ipam.ranges[2]",
            "ipam.ranges[3]",
            "ipam.ranges[4][0].subnet",
            "ipam.resolvConf",
            "ipam.routes[0].dst",
            "ipam.routes[1].dst",
            "log.file",
            "log.level",
            "mtu",
            "name",
            "nodeIPs",
            "nodeIPs[2]",
            "policyUnknown",
            "prevResult.ips[0].address",
            "runtimeConfig.ips[0]",
            "runtimeConfig.ips[1]",
            "runtimeConfig.mac",
        ]
        .map(|path| path.replace("[1][0]", "[1][0].subnet"))
    );
}

#[test]
fn range_sets_have_host_locals_order_and_must_not_overlap() {
    let conf = |ipam: Value, runtime: Value| json!({ "cniVersion": "1.0.0", "name": "n", "type": "bridge", "runtimeConfig": { "ipRanges": runtime }, "ipam": ipam });
    let ipam = json!({ "type": "ferrule", "subnet": "10.2.0.0/24", "rangeStart": "10.2.0.9", "ranges": [[{ "subnet": "10.3.0.0/24" }]] });
    let network = read(conf(ipam.clone(), json!([[{ "subnet": "10.1.0.0/24" }]]))).unwrap();
    let subnets: Vec<_> =
        network.range_sets().iter().map(|set| set.ranges()[0].subnet().to_string()).collect();
    assert_eq!(subnets, ["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"]);

    let overlapping = conf(ipam, json!([[{ "subnet": "10.2.0.0/16" }], [{ "subnet": "10.3.0.0/25" }]]));
    let error = read(overlapping).unwrap_err();
    assert!(error.details.contains("ipam.subnet: overlaps runtimeConfig.ipRanges[0]; an address"), "{error}");
    assert!(
        error.details.contains("ipam.ranges[0]: overlaps runtimeConfig.ipRanges[1]; an address"),
        "{error}"
    );
}

#[test]
fn a_network_without_ranges_can_be_cleaned_up_and_nothing_else() {
    for ranges in [json!(null), json!([])] {
        let conf = json!({ "cniVersion": "1.1.0", "name": "n", "type": "ferrule", "cni.dev/valid-attachments": [],
            "ipam": { "type": "ferrule", "ranges": ranges } });
        for command in [Command::Add, Command::Check, Command::Status] {
            assert_eq!(wrong_with(command, conf.clone()), ["ipam.ranges"]);
        }
        assert!(read_for(Command::Gc, conf).is_ok());
    }
    let conf = json!({ "cniVersion": "1.1.0", "name": "n", "type": "ferrule", "ipam": { "type": "ferrule", "ranges": {} } });
    assert_eq!(wrong_with(Command::Add, conf), ["ipam.ranges"]);
}

#[test]
fn an_old_version_gets_one_address_of_a_family() {
    let conf = |version: &str| {
        json!({ "cniVersion": version, "name": "n", "type": "ferrule", "ipam": { "type": "ferrule",
            "ranges": [[{ "subnet": "10.1.0.0/24" }], [{ "subnet": "10.2.0.0/24" }], [{ "subnet": "fd00::/64" }]] } })
    };
    assert_eq!(wrong_with(Command::Add, conf("0.2.0")), ["ipam.ranges"]);
    assert!(read(conf("0.3.0")).is_ok());
}

#[test]
fn a_link_too_small_for_its_family_is_refused() {
    let conf = |mtu: Value, subnet: &str| json!({ "cniVersion": "1.0.0", "name": "n", "type": "ferrule", "mtu": mtu, "ipam": { "type": "ferrule", "subnet": subnet } });
    for (mtu, subnet) in [(68, "10.1.0.0/24"), (65535, "10.1.0.0/24"), (1280, "fd00::/64")] {
        assert_eq!(read(conf(json!(mtu), subnet)).unwrap().mtu, Some(mtu));
    }
    for (mtu, subnet) in [
        (json!(67), "10.1.0.0/24"),
        (json!(65536), "10.1.0.0/24"),
        (json!(-1), "10.1.0.0/24"),
        (json!(1279), "fd00::/64"),
        (json!("1500"), "fd00::/64"),
        (json!(1500.5), "fd00::/64"),
    ] {
        assert_eq!(wrong_with(Command::Add, conf(mtu, subnet)), ["mtu"]);
    }
}

#[test]
fn a_peer_without_a_way_to_its_pods_is_refused() {
    let conf = |peers: Value| json!({ "cniVersion": "1.0.0", "name": "n", "type": "ferrule", "peers": peers, "ipam": { "type": "ferrule", "subnet": "10.244.1.0/24" } });
    let wrong = wrong_with(
        Command::Add,
        conf(json!([
            { "node": "a", "podCIDRs": ["10.244.2.0/24", "fd00::/64"], "nodeIPs": ["192.168.1.11"] },
            { "node": "b", "podCIDRs": ["10.244.2.0/24", "10.244.3.1/24"], "nodeIPs": ["192.168.1.12"] },
            { "node": "self", "podCIDRs": ["10.244.1.0/24", "10.244.1.64/26"], "nodeIPs": ["192.168.1.10"] },
            { "podCIDRs": ["0.0.0.0/0"], "nodeIPs": ["224.0.0.1", "127.0.0.1", "fe80::1"] },
            { "node": "e", "nodeIPs": ["192.168.1.14"] },
            "f",
            { "node": "g", "podCIDRs": ["10.0.0.0/8"], "nodeIPs": ["192.168.1.15"] }
        ])),
    );
    assert_eq!(
        wrong,
        [
            "peers[0].podCIDRs[1]",
            "peers[1].podCIDRs[0]",
            "peers[1].podCIDRs[1]",
            "peers[2].podCIDRs[1]",
            "peers[3].node",
            "peers[3].nodeIPs[0]",
            "peers[3].nodeIPs[1]",
            "peers[3].nodeIPs[2]",
            "peers[3].podCIDRs[0]",
            "peers[4].podCIDRs",
            "peers[5]",
        ]
    );
}

#[test]
fn a_gc_that_cannot_read_who_lives_is_stopped() {
    let with = |changes: Value| {
        let mut conf = full();
        conf.as_object_mut().unwrap().remove("cni.dev/valid-attachments");
        conf.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        conf
    };
    let wrong = wrong_with(
        Command::Gc,
        with(json!({ "cni.dev/valid-attachments": [
        { "containerID": "a", "ifname": "eth0" }, { "containerID": "a/b", "ifname": "eth0" }, { "ifname": "" }, "c", null
    ] })),
    );
    let key = r#"["cni.dev/valid-attachments"]"#;
    let expected =
        ["[1].containerID", "[2].containerID", "[2].ifname", "[3]", "[4]"].map(|at| format!("{key}{at}"));
    assert_eq!(wrong, expected);
    for changes in
        [json!({}), json!({ "cni.dev/valid-attachments": "" }), json!({ "cni.dev/valid-attachments": {} })]
    {
        assert_eq!(wrong_with(Command::Gc, with(changes)), [key]);
    }
    // How Go writes an empty list, and where an early draft had the key (cni#1101).
    for changes in [json!({ "cni.dev/valid-attachments": null }), json!({ "cni.dev/attachments": [] })] {
        assert_eq!(read_for(Command::Gc, with(changes)).unwrap().valid_attachments, []);
    }
    assert!(read_for(Command::Status, with(json!({ "cni.dev/valid-attachments": 7 }))).is_ok());
}

#[test]
fn keys_of_another_main_plugin_mean_what_that_plugin_says() {
    let network = read(json!({ "cniVersion": "1.0.0", "name": "n", "type": "bridge", "mtu": "big", "log": "x", "peers": 1, "dns": 2,
        "nodeIPs": {}, "args": { "cni": { "mac": "x" } }, "ipam": { "type": "ferrule", "subnet": "10.1.0.0/24", "routes": [{ "dst": "0.0.0.0/0" }] } }))
    .unwrap();
    assert_eq!((network.role, network.routes.len(), network.mtu), (Role::Ipam, 1, None));
}

#[test]
fn an_address_in_the_environment_counts_unless_args_ask_for_some() {
    let mut document = full();
    document["args"]["cni"] = json!({});
    let conf = Conf::parse(document.to_string().as_bytes()).unwrap();
    let mut environment = environment(Command::Add);
    environment.args = Args::parse("IP=10.244.1.30;MAC=0a:58:00:00:00:09").unwrap();
    let network = Network::read(&conf, &environment).unwrap();
    assert_eq!(network.requested.last().unwrap().to_string(), "10.244.1.30");
    assert_eq!(network.mac, Some(MacAddr([0x0a, 0x58, 0, 0, 0, 1])));

    let conf = Conf::parse(full().to_string().as_bytes()).unwrap();
    let network = Network::read(&conf, &environment).unwrap();
    assert!(network.requested.iter().all(|address| address.to_string() != "10.244.1.30"), "{network:?}");
}

#[test]
fn a_removal_gets_through_with_a_conf_that_has_become_invalid() {
    let removal = |document: Value| Removal::read(&Conf::parse(document.to_string().as_bytes()).unwrap());
    assert_eq!(removal(full()).unwrap(), Removal::of(&read(full()).unwrap()));

    let invalid = json!({ "name": "n", "type": "ferrule", "mtu": "x", "peers": 1, "log": { "level": "loud" },
        "ipam": { "type": "ferrule", "ranges": 5, "dataDir": "/d" }, "prevResult": 1, "runtimeConfig": [], "args": 1 });
    let read_anyway = removal(invalid).unwrap();
    assert_eq!((read_anyway.data_dir, read_anyway.log), (PathBuf::from("/d"), LogConf::default()));
    assert_eq!(removal(json!({ "name": "n" })).unwrap().role, Role::Main);
    assert_eq!(removal(json!({ "name": "n", "type": [], "ipam": [] })).unwrap().delegate, None);
    let delegating = json!({ "name": "n", "type": "ferrule", "dataDir": "/top", "ipam": { "type": "host-local", "dataDir": 7 } });
    let delegating = removal(delegating).unwrap();
    assert_eq!(
        (delegating.delegate.as_deref(), delegating.data_dir),
        (Some("host-local"), PathBuf::from("/top"))
    );

    for unusable in [
        json!({ "type": "ferrule" }),
        json!({ "name": "a/b" }),
        json!({ "name": 1 }),
        json!({ "name": "n", "type": "ferrule", "ipam": { "type": "ferrule", "dataDir": "d" } }),
        json!({ "name": "n", "dataDir": 7 }),
    ] {
        assert_eq!(removal(unusable.clone()).unwrap_err().code, Code::InvalidConf, "{unusable}");
    }
}
