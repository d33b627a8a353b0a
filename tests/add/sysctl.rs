//! Settings of a pod's namespace: `sysctl` of the conf, and `ferrule.dev/sysctl` of the pod where the conf lets it.
//!
//! Read back with sysctl(8) inside the namespace. Where the reference plugin `tuning` has the case, it is given the
//! same conf behind ferrule and must come to the same.

use serde_json::{Value, json};

use kit::binaries::REFERENCE_PLUGINS;
use kit::call::Call;
use kit::node::{Node, OUTSIDE_V4};
use kit::packets::answers_ping;
use kit::pod::Pod;

const CAPABILITY: &str = "io.kubernetes.cri.pod-annotations";

/// What `sysctl -n` prints inside the pod's namespace, words parted by one space.
fn shown(pod: &Pod, name: &str) -> String {
    let shown = pod.namespace().sh(&format!("sysctl -n {name}"));
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn with_sysctl(mut conf: Value, sysctl: Value) -> Value {
    conf["sysctl"] = sysctl;
    conf
}

/// A conf of a pod that asks for `sysctl`, which may ask for `allowed`.
fn annotated(node: &Node, allowed: Value, sysctl: &Value) -> Value {
    let mut conf = node.conf();
    conf["allowedSysctls"] = allowed;
    conf["runtimeConfig"] = json!({ CAPABILITY: { "ferrule.dev/sysctl": format!("{sysctl}\n") } });
    conf
}

#[test]
fn a_pod_has_the_sysctls_of_the_conf_in_every_spelling() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = with_sysctl(
        node.conf(),
        json!({
            "net.core.somaxconn": "500",
            "net/ipv4/ip_local_port_range": "20000 30000",
            "net.ipv4.tcp_syncookies": 0,
            "net.ipv4.conf.IFNAME.arp_notify": "0x1",
            "net.ipv6.conf.eth0.hop_limit": "33",
            "net.ipv4.conf.all.rp_filter": "1",
            "net.ipv4.conf.lo.rp_filter": "1",
            "net.ipv6.conf.all.forwarding": "1",
        }),
    );
    let result = node.add(&pod, &conf);
    for (name, value) in [
        ("net.core.somaxconn", "500"),
        ("net.ipv4.ip_local_port_range", "20000 30000"),
        ("net.ipv4.tcp_syncookies", "0"),
        ("net.ipv4.conf.eth0.arp_notify", "1"),
        ("net.ipv6.conf.eth0.hop_limit", "33"),
        ("net.ipv4.conf.all.rp_filter", "1"),
        ("net.ipv4.conf.lo.rp_filter", "1"),
        ("net.ipv6.conf.eth0.forwarding", "1"),
    ] {
        assert_eq!(shown(&pod, name), value, "{name}");
    }
    assert_ne!(node.namespace().sysctl("net/core/somaxconn"), "500", "the node's is the node's");
    node.check(&pod, &conf, &result).success();
    for from_the_pod in ["10.88.0.2", "fd00:88::2"] {
        assert!(answers_ping(node.namespace(), from_the_pod), "{from_the_pod}");
    }
    node.del(&pod, &conf);
    node.expect_nothing_left();
}

/// A link's name may have a dot in it. tuning cannot say it, sysctl(8) can.
#[test]
fn an_interface_with_a_dot_is_reached_in_all_three_ways() {
    let node = Node::new();
    for name in [
        "net.ipv4.conf.IFNAME.arp_notify",
        "net/ipv4/conf/eth0.5/arp_notify",
        "net.ipv4.conf.eth0/5.arp_notify",
    ] {
        let pod = Pod::new("pod");
        let conf = with_sysctl(node.conf(), json!({ name: "1" }));
        let add = node.call_for("ADD", &pod, &conf).ifname("eth0.5");
        add.run().success();
        assert_eq!(shown(&pod, "net/ipv4/conf/eth0.5/arp_notify"), "1", "{name}");
        node.call_for("DEL", &pod, &conf).ifname("eth0.5").run().success();
    }
}

#[test]
fn check_names_each_setting_that_is_another_one_now() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = with_sysctl(
        node.conf(),
        json!({ "net.core.somaxconn": "500", "net.ipv4.ip_local_port_range": "20000 30000",
            "net.ipv4.tcp_syncookies": "1" }),
    );
    let result = node.add(&pod, &conf);
    pod.namespace().set_sysctl("net/core/somaxconn", "400");
    pod.namespace().set_sysctl("net/ipv4/ip_local_port_range", "20000 30001");
    let told = node.check(&pod, &conf, &result).complaint(105);
    for words in [
        "pod: sysctl net/core/somaxconn = 500: it is 400",
        "pod: sysctl net/ipv4/ip_local_port_range = 20000 30000: it is 20000\t30001",
        "2 difference(s)",
    ] {
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
    assert_eq!(shown(&pod, "net.core.somaxconn"), "400", "CHECK changes nothing");
}

/// A pod without IPv6 may be told so outright, as many do; one with IPv6 may not lose it.
#[test]
fn ipv6_can_be_switched_off_only_where_the_pod_has_none() {
    let switch = json!({ "net.ipv6.conf.all.disable_ipv6": "1" });
    let node = Node::new();
    let pod = Pod::new("pod");
    let ipv4 = with_sysctl(node.conf_with(json!([[{ "subnet": "10.88.0.0/24" }]])), switch.clone());
    let result = node.add(&pod, &ipv4);
    assert_eq!(shown(&pod, "net.ipv6.conf.eth0.disable_ipv6"), "1");
    node.check(&pod, &ipv4, &result).success();
    assert!(answers_ping(pod.namespace(), OUTSIDE_V4));
    node.del(&pod, &ipv4);

    let told = node.try_add(&pod, &with_sysctl(node.conf(), switch.clone())).complaint(7);
    assert!(told.contains("sysctl[\"net.ipv6.conf.all.disable_ipv6\"]: "), "{told}");
    node.expect_nothing_left();

    // Which families another IPAM plugin gives is known only when it has.
    for (subnet, is_refused) in [("10.99.0.0/24", false), ("fd00:99::/64", true)] {
        let mut conf = with_sysctl(node.conf(), switch.clone());
        conf["cniVersion"] = json!("1.0.0");
        conf["dataDir"] = json!(node.data_dir());
        let data_dir = node.scratch().path().join("host-local");
        conf["ipam"] = json!({ "type": "host-local", "subnet": subnet, "dataDir": data_dir });
        let answer = node.try_add(&pod, &conf);
        if is_refused {
            let told = answer.complaint(7);
            assert!(told.contains("sysctl net.ipv6.conf.all.disable_ipv6: is \"1\""), "{told}");
        } else {
            answer.success();
            node.del(&pod, &conf);
        }
        node.expect_nothing_left();
        let held = std::fs::read_dir(data_dir.join("podnet")).unwrap().filter_map(Result::ok);
        let held: Vec<_> = held.map(|it| it.file_name().into_string().unwrap()).collect();
        assert!(!held.iter().any(|name| name.starts_with("10.99.") || name.starts_with("fd00")), "{held:?}");
    }
}

#[test]
fn every_problem_of_the_conf_has_its_place_and_nothing_is_made() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = with_sysctl(
        node.conf(),
        json!({ "kernel.shmmax": "1", "net/../kernel/panic": "1", "net..x": "1", "net.core.somaxconn": "1\n2",
            "net.core.optmem_max": "1".repeat(5000), "net.ipv4.ip_forward": true }),
    );
    conf["allowedSysctls"] = json!(["kernel.*"]);
    let told = node.try_add(&pod, &conf).complaint(7);
    for name in
        ["kernel.shmmax", "net/../kernel/panic", "net..x", "net.core.somaxconn", "net.core.optmem_max"]
    {
        assert!(told.contains(&format!("sysctl[{name:?}]: ")), "{name} is not in {told}");
    }
    assert!(told.contains("allowedSysctls[0]: ") && told.contains("7 problems"), "{told}");
    node.expect_nothing_left();
}

/// What the kernel refuses shows when it is written: then all that was made is taken back.
#[test]
fn a_setting_that_the_kernel_refuses_fails_the_add() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    for (name, value, words) in [
        ("net.core.no_such_thing", "1", "no such setting per namespace"),
        // One for all: not there in another namespace, or there for reading only, as the kernel's version has it.
        ("net.core.netdev_max_backlog", "1", "counts for the whole node"),
        ("net.ipv4.conf.eth7.arp_notify", "1", "names an interface that the pod has not"),
        ("net.core.somaxconn", "many", "does not take that value"),
        ("net.ipv4.tcp_congestion_control", "no-such-algorithm", "No such"),
    ] {
        let told = node.try_add(&pod, &with_sysctl(node.conf(), json!({ name: value }))).complaint(103);
        let file = format!("/proc/sys/{}", name.replace('.', "/"));
        for words in [words, file.as_str(), "in the pod's namespace"] {
            assert!(told.contains(words), "{words:?} is not in {told}");
        }
        node.expect_nothing_left();
        assert_eq!(kit::ip::link(pod.namespace(), "eth0"), None);
    }
    node.add(&pod, &node.conf());
}

#[test]
fn a_pod_may_set_what_the_conf_allows_and_comes_before_the_conf() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let wish = json!({ "net.core.somaxconn": 700, "net.ipv4.conf.IFNAME.arp_notify": "1" });
    let mut conf = annotated(&node, json!(["net.core.somaxconn", "net.ipv4.conf.IFNAME.*"]), &wish);
    conf["sysctl"] = json!({ "net.core.somaxconn": "500", "net.ipv4.tcp_syncookies": "0" });
    let result = node.add(&pod, &conf);
    for (name, value) in [
        ("net.core.somaxconn", "700"),
        ("net.ipv4.conf.eth0.arp_notify", "1"),
        ("net.ipv4.tcp_syncookies", "0"),
    ] {
        assert_eq!(shown(&pod, name), value, "{name}");
    }
    node.check(&pod, &conf, &result).success();
    pod.namespace().set_sysctl("net/core/somaxconn", "500");
    let told = node.check(&pod, &conf, &result).complaint(105);
    assert!(told.contains("net/core/somaxconn = 700: it is 500"), "{told}");
    node.del(&pod, &node.conf());
    node.expect_nothing_left();
}

#[test]
fn a_pod_that_wants_more_is_told_the_key_of_the_conf() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    for (allowed, wish) in [
        (json!(null), json!({ "net.core.somaxconn": "700" })),
        (json!(["net.core.somaxconn2", "net.ipv4.*"]), json!({ "net/core/somaxconn": "700" })),
    ] {
        let told = node.try_add(&pod, &annotated(&node, allowed, &wish)).complaint(7);
        let place = format!("runtimeConfig[\"{CAPABILITY}\"][\"ferrule.dev/sysctl\"][");
        assert!(told.contains(&place), "{told}");
        assert!(told.contains("allowedSysctls of the conf: [\"net.core.somaxconn\"]"), "{told}");
    }
    // Not even where all is allowed may a pod undo what its network needs, or leave the network's settings.
    for (wish, words) in [
        (json!({ "net.ipv6.conf.eth0.disable_ipv6": 1 }), "IPv6 address needs 0"),
        (json!({ "net/../kernel/panic": 1 }), "leaves its directory"),
        (json!({ "kernel.panic": 1 }), "below net."),
    ] {
        let told = node.try_add(&pod, &annotated(&node, json!(["net.*"]), &wish)).complaint(7);
        assert!(told.contains(words) && told.contains("ferrule.dev/sysctl"), "{told}");
    }
    node.expect_nothing_left();
}

/// The same conf, once ferrule's and once tuning's.
#[test]
fn the_reference_plugin_comes_to_the_same() {
    let node = Node::new();
    let sysctl = json!({
        "net.core.somaxconn": "500", "net.ipv4.ip_local_port_range": "20000\t30000", "net.ipv4.tcp_syncookies": "0",
        "net.ipv6.conf.all.forwarding": "1", "net.ipv4.conf.IFNAME.arp_notify": "1",
    });
    let names = [
        "net.core.somaxconn",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv6.conf.eth0.forwarding",
        "net.ipv4.conf.eth0.arp_notify",
    ];
    let (ours, theirs) = (Pod::new("ours"), Pod::new("theirs"));
    let mut own = sysctl.clone();
    // A control character is refused in a conf of ferrule's, as everywhere.
    own["net.ipv4.ip_local_port_range"] = json!("20000 30000");
    node.add(&ours, &with_sysctl(node.conf(), own));

    let mut conf = node.conf();
    conf["cniVersion"] = json!("1.0.0");
    let mut tuning = json!({ "cniVersion": "1.0.0", "name": "podnet", "type": "tuning", "sysctl": sysctl });
    tuning["prevResult"] = node.add(&theirs, &conf);
    let call = |command: &str, conf: &Value| {
        let call = Call::reference("tuning", command).on(node.namespace()).env("CNI_PATH", REFERENCE_PLUGINS);
        call.attachment(theirs.container(), theirs.namespace().path()).conf(conf).run()
    };
    call("ADD", &tuning).success();
    assert_eq!(names.map(|name| shown(&ours, name)), names.map(|name| shown(&theirs, name)));
    assert_eq!(shown(&ours, names[1]), "20000 30000");

    // And what tuning refuses, ferrule refuses.
    for (name, value) in [
        ("kernel.shmmax", "1"),
        ("net/../kernel/shmmax", "1"),
        ("net.core.no_such", "1"),
        ("net.core.somaxconn", "many"),
    ] {
        tuning["sysctl"] = json!({ name: value });
        let refused = call("ADD", &tuning);
        assert!(!refused.status.success(), "tuning takes {name}: {refused:?}");
        let pod = Pod::new("refused");
        let refused = node.try_add(&pod, &with_sysctl(node.conf(), json!({ name: value })));
        assert!(!refused.status.success(), "ferrule takes {name}: {refused:?}");
    }
}
