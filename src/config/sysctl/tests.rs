//! Names as people write them, and all that is refused.

use serde_json::{Value, json};

use super::*;
use crate::cni::json::Document;

const ETH0: SysctlPolicy<'static> = SysctlPolicy { link: Some("eth0"), has_ipv6: true };

fn read(conf: Value, policy: SysctlPolicy<'_>) -> (Vec<String>, Vec<String>) {
    let document = Document::new(&conf);
    let settings = merge(read_settings(&document.root(), policy), Vec::new());
    let shown = settings.iter().map(|it| format!("{} = {}", it.path.join("/"), it.value)).collect();
    (shown, document.into_problems().shown().iter().map(ToString::to_string).collect())
}

#[test]
fn both_spellings_mean_the_same_also_with_dots_in_a_links_name() {
    let (settings, problems) = read(
        json!({ "sysctl": {
            "net.core.somaxconn": "500", "net/ipv4/tcp_syncookies": 1, "net.ipv4.conf.eth0/100.arp_filter": "1",
            "net/ipv4/conf/eth0.200/arp_filter": "1", "net.ipv4.conf.IFNAME.arp_notify": "1",
            "net.ipv4.ip_local_port_range": "32768 60999", "net.ipv4.tcp_retries1": null, "net.ipv4.tcp_rfc1337": "",
            "net.core.optmem_max": 18_446_744_073_709_551_615_u64, "net.ipv4.ping_group_range": "-1 -1",
        } }),
        ETH0,
    );
    assert_eq!(problems, Vec::<String>::new());
    let wanted = [
        "net/core/optmem_max = 18446744073709551615",
        "net/core/somaxconn = 500",
        "net/ipv4/conf/eth0/arp_notify = 1",
        "net/ipv4/conf/eth0.100/arp_filter = 1",
        "net/ipv4/conf/eth0.200/arp_filter = 1",
        "net/ipv4/ip_local_port_range = 32768 60999",
        "net/ipv4/ping_group_range = -1 -1",
        "net/ipv4/tcp_syncookies = 1",
    ];
    assert_eq!(settings, wanted);
}

/// Writing `ip_forward` sets `accept_redirects` of `all`, and that of `all` reaches every link.
#[test]
fn what_changes_others_is_written_before_them() {
    let (settings, _) = read(
        json!({ "sysctl": {
            "net.ipv4.conf.aaa.forwarding": "0", "net.ipv4.conf.all.accept_redirects": "1", "net.ipv4.ip_forward": "1",
            "net.ipv4.conf.default.forwarding": "0", "net.ipv6.conf.all.forwarding": "1",
        } }),
        ETH0,
    );
    let names: Vec<&str> = settings.iter().map(|it| it.split(' ').next().unwrap()).collect();
    assert_eq!(
        names,
        [
            "net/ipv4/ip_forward",
            "net/ipv6/conf/all/forwarding",
            "net/ipv4/conf/all/accept_redirects",
            "net/ipv4/conf/default/forwarding",
            "net/ipv4/conf/aaa/forwarding",
        ]
    );
}

#[test]
fn every_problem_has_its_place() {
    let long = format!("net.{}", "x".repeat(NAME_MAX));
    for (name, value, why) in [
        ("kernel.shmmax", json!("1"), "below net."),
        ("net", json!("1"), "below net."),
        (".net.core.somaxconn", json!("1"), "below net."),
        ("/net/core/somaxconn", json!("1"), "below net."),
        ("network.core", json!("1"), "below net."),
        ("net..somaxconn", json!("1"), "empty"),
        ("net.core.", json!("1"), "empty"),
        ("net/../kernel/panic", json!("1"), "leaves its directory"),
        ("net.//.kernel.panic", json!("1"), "leaves its directory"),
        ("net/./core/somaxconn", json!("1"), "leaves its directory"),
        ("net.core.so max", json!("1"), "no name of a sysctl"),
        ("net.core.*", json!("1"), "no name of a sysctl"),
        ("net.ipv4.route.flush", json!("1"), "is a command"),
        ("net.core.somaxconn", json!("1\n2"), "control character"),
        ("net.core.somaxconn", json!("1".repeat(4096)), "4095 are the most"),
        ("net.core.somaxconn", json!(true), "is a boolean where a string"),
        ("net.core.somaxconn", json!(1.5), "is a number where a string"),
        ("net.core.somaxconn", json!(["1"]), "is a list where a string"),
    ] {
        let (settings, problems) = read(json!({ "sysctl": { name: value.clone() } }), ETH0);
        assert_eq!((settings.len(), problems.len()), (0, 1), "{name} {value}: {problems:?}");
        let path = if name == "net" { "sysctl.net: ".into() } else { format!("sysctl[{name:?}]: ") };
        assert!(problems[0].starts_with(&path) && problems[0].contains(why), "{problems:?}");
    }
    for name in ["", long.as_str(), "net.core.\u{1b}[2J"] {
        let (settings, problems) = read(json!({ "sysctl": { name: "1" } }), ETH0);
        assert_eq!((settings.len(), problems.len()), (0, 1));
        assert!(problems[0].starts_with("sysctl: has the key ") && problems[0].len() < 200, "{problems:?}");
    }
    let many: Value = (0..=COUNT_MAX).map(|at| (format!("net.core.x{at}"), json!("1"))).collect();
    let (settings, problems) = read(json!({ "sysctl": many }), ETH0);
    assert_eq!((settings.len(), problems.len()), (0, 1));
    assert!(problems[0].starts_with("sysctl: has 1025 elements; 1024"), "{problems:?}");
    let (_, problems) = read(json!({ "sysctl": ["net.core.somaxconn=1"] }), ETH0);
    assert_eq!(problems, ["sysctl: is a list where an object is needed"]);
}

#[test]
fn one_setting_spelled_in_two_ways_is_refused() {
    let spelled =
        json!({ "sysctl": { "net.ipv4.conf.eth0.arp_notify": "1", "net.ipv4.conf.IFNAME.arp_notify": "0" } });
    let (_, problems) = read(spelled, ETH0);
    assert!(problems[0].contains("net.ipv4.conf.eth0.arp_notify is set twice"), "{problems:?}");
}

#[test]
fn what_a_pods_ipv6_needs_cannot_be_undone_where_it_has_ipv6() {
    for (name, value) in [
        ("net.ipv6.conf.all.disable_ipv6", "1"),
        ("net.ipv6.conf.IFNAME.disable_ipv6", "1"),
        ("net.ipv6.conf.eth0.accept_ra", "2"),
        ("net.ipv6.conf.all.addr_gen_mode", "0"),
        ("net/ipv6/conf/eth0/addr_gen_mode", "0"),
        ("net.ipv6.conf.default.stable_secret", "2001:db8::1"),
    ] {
        let conf = json!({ "sysctl": { name: value } });
        let (settings, problems) = read(conf.clone(), ETH0);
        assert_eq!((settings.len(), problems.len()), (0, 1), "{name}");
        assert!(problems[0].starts_with(&format!("sysctl[{name:?}]: ")), "{problems:?}");

        let unknown = SysctlPolicy { has_ipv6: false, ..ETH0 };
        let document = Document::new(&conf);
        let settings = read_settings(&document.root(), unknown);
        assert_eq!((settings.len(), document.into_problems().is_empty()), (1, true), "{name}");
        let refused = judge_beside_ipv6(&settings, "eth0").unwrap_err();
        assert!(refused.starts_with("sysctl net.ipv6.conf."), "{refused}");
    }
    for (name, value, kept) in [
        ("net.ipv6.conf.all.disable_ipv6", "0", 0),
        ("net.ipv6.conf.IFNAME.addr_gen_mode", "1", 0),
        ("net.ipv6.conf.default.disable_ipv6", "1", 1),
        ("net.ipv6.conf.other.accept_ra", "2", 1),
        ("net.ipv6.conf.eth0.accept_dad", "0", 1),
    ] {
        let (settings, problems) = read(json!({ "sysctl": { name: value } }), ETH0);
        assert_eq!((settings.len(), problems.len()), (kept, 0), "{name}");
    }
}

#[test]
fn a_pod_may_set_what_the_conf_lists_and_nothing_else() {
    let allowed_by = |patterns: Value, name: &str| {
        let conf = json!({ "allowedSysctls": patterns });
        let document = Document::new(&conf);
        let patterns = Pattern::read_list(&document.root(), ETH0);
        assert_eq!(document.into_problems().to_string(), "");
        let wish = json!({ name: "1" });
        let document = Document::new(&wish);
        let settings = read_overrides(&document.root(), ETH0, &patterns);
        let problems = document.into_problems().to_string();
        assert_eq!(settings.is_empty(), problems.contains("allowedSysctls of the conf"), "{problems}");
        !settings.is_empty()
    };
    for (patterns, name, is_allowed) in [
        (json!([]), "net.core.somaxconn", false),
        (json!(null), "net.core.somaxconn", false),
        (json!(["net.core.somaxconn"]), "net.core.somaxconn", true),
        (json!(["net/core/somaxconn"]), "net.core.somaxconn", true),
        (json!(["net.core.somaxconn"]), "net.core.somaxconn2", false),
        (json!(["net.core.somaxconn"]), "net.core.somaxconn.x", false),
        (json!(["net.core.so*"]), "net.core.somaxconn", true),
        (json!(["net.core.so*"]), "net.core.optmem_max", false),
        (json!(["net.ipv4.*"]), "net.ipv4.conf.eth0.arp_notify", true),
        (json!(["net.ipv4.*"]), "net.ipv6.conf.eth0.accept_dad", false),
        (json!(["net.*"]), "net.unix.max_dgram_qlen", true),
        (json!(["net.ipv4.conf.IFNAME.*"]), "net/ipv4/conf/eth0/arp_notify", true),
        (json!(["net.ipv4.conf.IFNAME.*"]), "net/ipv4/conf/eth1/arp_notify", false),
        (json!(["net.ipv4.conf.eth0.*"]), "net/ipv4/conf/eth0.100/arp_notify", false),
    ] {
        assert_eq!(allowed_by(patterns.clone(), name), is_allowed, "{patterns} {name}");
    }
}

#[test]
fn a_pattern_that_means_more_than_the_network_is_refused() {
    for pattern in
        ["*", "net*", "kernel.*", "net.*.somaxconn", "net..*", "net/../*", "net/..*", "net.core.so max", ".*"]
    {
        let conf = json!({ "allowedSysctls": [pattern] });
        let document = Document::new(&conf);
        assert_eq!(Pattern::read_list(&document.root(), ETH0), [], "{pattern}");
        let problems = document.into_problems().to_string();
        assert!(problems.starts_with("allowedSysctls[0]: "), "{problems}");
    }
}

#[test]
fn where_both_name_one_the_pods_wish_counts() {
    let setting = |name: &str, value: &str| Setting {
        path: name.split('.').map(str::to_owned).collect(),
        value: value.to_owned(),
    };
    let conf = vec![setting("net.core.somaxconn", "100"), setting("net.ipv4.tcp_rfc1337", "1")];
    let merged = merge(conf, vec![setting("net.core.somaxconn", "200")]);
    assert_eq!(merged, [setting("net.core.somaxconn", "200"), setting("net.ipv4.tcp_rfc1337", "1")]);
}
