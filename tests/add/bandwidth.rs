//! Bandwidth: a pod gets what its limits say, in both directions, and what holds it to them goes with it.

use serde_json::{Value, json};

use kit::ip;
use kit::node::Node;
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::tc::{self, Server};

/// A node, a pod on it, and what ADD said.
struct Attached {
    node: Node,
    pod: Pod,
    conf: Value,
    result: Value,
}

impl Attached {
    fn with(bandwidth: Value) -> Self {
        let (node, pod) = (Node::new(), Pod::new("pod"));
        let mut conf = node.conf();
        conf["runtimeConfig"] = json!({ "bandwidth": bandwidth });
        let result = node.add(&pod, &conf);
        Self { node, pod, conf, result }
    }

    fn host(&self) -> String {
        host_link_of(&self.result)
    }

    fn ifb(&self) -> String {
        self.host().replace("veth", "ifb")
    }

    /// The token bucket on a link of the node.
    fn bucket(&self, link: &str) -> Option<Value> {
        let qdiscs = tc::qdiscs(self.node.namespace(), link);
        qdiscs.into_iter().find(|qdisc| qdisc["kind"] == "tbf" && qdisc["root"] == true)
    }

    fn differences(&self) -> String {
        self.node.check(&self.pod, &self.conf, &self.result).complaint(105)
    }

    fn expect_check(&self) {
        self.node.check(&self.pod, &self.conf, &self.result).success();
    }
}

fn both(rate: u64, burst: u64) -> Value {
    json!({ "ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst })
}

/// Bits per second and bits in, bytes per second and bytes in `tc`.
#[test]
fn tc_shows_what_was_asked_for_and_check_agrees() {
    let attached = Attached::with(json!({
        "ingressRate": 8_000_000, "ingressBurst": 1_600_000, "egressRate": 16_000_000, "egressBurst": 3_200_000
    }));
    for (link, rate, burst) in
        [(attached.host(), 1_000_000_u64, 200_000.0), (attached.ifb(), 2_000_000, 400_000.0)]
    {
        let options = attached.bucket(&link).expect("a token bucket")["options"].clone();
        assert_eq!(options["rate"], rate, "{options}");
        let shown = options["burst"].as_f64().unwrap();
        assert!((shown / burst - 1.0).abs() < 0.01, "{options}");
    }
    let filters = json!(tc::ingress_filters(attached.node.namespace(), &attached.host())).to_string();
    assert!(filters.contains(&format!("\"to_dev\":\"{}\"", attached.ifb())), "{filters}");
    let ifb = ip::link(attached.node.namespace(), &attached.ifb()).unwrap();
    assert_eq!(ifb["linkinfo"]["info_kind"], "ifb");
    assert!(ifb["flags"].as_array().unwrap().contains(&json!("UP")), "{ifb}");
    let alias = ifb["ifalias"].as_str().unwrap();
    assert!(alias.starts_with(&format!("ferrule:podnet/{}/eth0", attached.pod.container())), "{alias}");
    assert_eq!(ip::addresses(attached.node.namespace(), &attached.ifb()), Vec::<Value>::new());
    attached.expect_check();
}

#[test]
fn each_direction_is_limited_by_itself() {
    let ingress = Attached::with(json!({ "ingressRate": 8_000_000, "ingressBurst": 80_000 }));
    assert!(ingress.bucket(&ingress.host()).is_some());
    assert_eq!(ip::link(ingress.node.namespace(), &ingress.ifb()), None);
    let egress = Attached::with(json!({ "egressRate": 8_000_000, "egressBurst": 80_000, "ingressRate": 0 }));
    assert!(egress.bucket(&egress.host()).is_none() && egress.bucket(&egress.ifb()).is_some());
    let neither = Attached::with(both(0, 0));
    assert_eq!(neither.node.host_links(), [neither.host()]);
    assert_eq!(tc::qdiscs(neither.node.namespace(), &neither.host())[0]["kind"], "noqueue");
    for attached in [ingress, egress, neither] {
        attached.expect_check();
        attached.node.del(&attached.pod, &attached.conf);
        attached.node.expect_nothing_left();
    }
}

/// The largest numbers that containerd can send mean that it was told a rate and nothing else.
#[test]
fn iperf3_measures_the_rate_with_containerds_bursts() {
    let attached = Attached::with(both(40_000_000, u64::from(u32::MAX)));
    expect_rate(&attached, 40.0);
}

#[test]
fn iperf3_measures_the_rate_with_a_burst_of_the_conf() {
    let attached = Attached::with(both(20_000_000, 1_000_000));
    expect_rate(&attached, 20.0);
}

fn expect_rate(attached: &Attached, rate: f64) {
    let _server = Server::start(attached.pod.namespace());
    for address in &addresses_of(&attached.result) {
        // From beyond the node, so that what is forwarded is measured.
        for reverse in [false, true] {
            let measured = tc::megabits_per_second(attached.node.outside(), address, reverse);
            let deviation = (measured / rate - 1.0).abs();
            assert!(deviation < 0.15, "{address} reverse {reverse}: {measured} of {rate} Mbit/s");
        }
    }
}

#[test]
fn check_names_every_part_that_is_missing_or_wrong() {
    let meddle = |words: &str| {
        let attached = Attached::with(both(8_000_000, 80_000));
        let words = words.replace("HOST", &attached.host()).replace("IFB", &attached.ifb());
        match words.strip_prefix("ip ") {
            Some(words) => drop(attached.node.namespace().ip(words)),
            None => tc::tc(attached.node.namespace(), &words),
        }
        (attached.differences(), attached.host(), attached.ifb())
    };
    let (told, host, _) = meddle("qdisc delete dev HOST root");
    assert!(
        told.contains(&format!("qdisc tbf dev {host} rate 1000000bps")) && told.contains("missing"),
        "{told}"
    );
    let (told, _, ifb) = meddle("qdisc delete dev IFB root");
    assert!(told.contains(&format!("qdisc tbf dev {ifb}")) && told.contains("missing"), "{told}");
    let (told, _, _) = meddle("qdisc change dev HOST root tbf rate 9mbit burst 10k limit 75536");
    assert!(told.contains("it has rate 1125000bps limit 75536"), "{told}");
    for removal in ["qdisc delete dev HOST ingress", "filter delete dev HOST ingress"] {
        let (told, host, ifb) = meddle(removal);
        assert!(
            told.contains(&format!("filter dev {host} ingress, redirect to dev {ifb}: missing")),
            "{told}"
        );
        assert!(told.contains("1 difference(s)"), "{told}");
    }
    let (told, _, ifb) = meddle("ip link set IFB down");
    assert!(told.contains(&format!("link {ifb} up")) && told.contains("it is down"), "{told}");
    let (told, _, ifb) = meddle("ip link delete IFB");
    assert!(told.contains(&format!("ifb {ifb} mtu 1500: missing")), "{told}");
}

#[test]
fn del_leaves_nothing_in_every_state_in_which_it_arrives() {
    for meddle in ["", "link delete HOST", "link delete IFB", "link set IFB alias ferrule:podnet/other/eth0"]
    {
        let attached = Attached::with(both(8_000_000, 80_000));
        let words = meddle.replace("HOST", &attached.host()).replace("IFB", &attached.ifb());
        if !words.is_empty() {
            attached.node.namespace().ip(&words);
        }
        // A runtime need not repeat what it asked for.
        attached.node.del(&attached.pod, &attached.node.conf());
        if words.contains("other") {
            assert_eq!(attached.node.host_links(), [attached.ifb()], "another's is left alone");
            continue;
        }
        attached.node.expect_nothing_left();
        attached.node.del(&attached.pod, &attached.conf);
    }
}

#[test]
fn del_and_gc_remove_what_a_dead_pod_leaves_behind() {
    let attached = Attached::with(both(8_000_000, 80_000));
    attached.node.namespace().ip(&format!("link delete {}", attached.host()));
    attached.pod.die();
    assert_eq!(attached.node.host_links(), [attached.ifb()]);
    attached.node.del(&attached.pod, &attached.conf);
    attached.node.expect_nothing_left();

    let attached = Attached::with(both(8_000_000, 80_000));
    let living = Pod::new("living");
    let result = attached.node.add(&living, &attached.conf);
    // Even the record is lost.
    std::fs::remove_dir_all(attached.node.store().path()).unwrap();
    attached.node.gc(&attached.conf, &[&living]).success();
    let mut left = [host_link_of(&result), host_link_of(&result).replace("veth", "ifb")];
    let mut found = attached.node.host_links();
    left.sort();
    found.sort();
    assert_eq!(found, left);
    attached.node.gc(&attached.conf, &[]).success();
    attached.node.expect_nothing_left();
}

/// Where no DEL ever comes, the next pod that needs the address is the one to clean up.
#[test]
fn an_add_that_takes_a_dead_pods_address_removes_what_it_left() {
    let node = Node::new();
    let mut conf = node.conf_with(json!([[{ "subnet": "10.88.0.0/32" }]]));
    let (dead, next) = (Pod::new("dead"), Pod::new("next"));
    conf["runtimeConfig"] = json!({ "bandwidth": both(8_000_000, 80_000) });
    let result = node.add(&dead, &conf);
    node.namespace().ip(&format!("link delete {}", host_link_of(&result)));
    dead.die();
    let ifb = host_link_of(&result).replace("veth", "ifb");
    assert!(ip::link(node.namespace(), &ifb).is_some());
    node.add(&next, &conf);
    assert_eq!(ip::link(node.namespace(), &ifb), None);
    node.del(&next, &conf);
    node.expect_nothing_left();
}

#[test]
fn an_add_that_fails_takes_back_the_limits_too() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = node.conf();
    conf["runtimeConfig"] = json!({ "bandwidth": both(8_000_000, 80_000) });
    // Everything is made by the time the answer is written.
    let first = node.call_for("ADD", &pod, &conf).unread().run();
    assert_eq!(first.status.code(), Some(1), "{first:?}");
    node.expect_nothing_left();
}

/// What an ADD that was killed left without a record is in the way of nobody; what is somebody else's stays.
#[test]
fn a_leftover_ifb_is_replaced_and_a_foreign_link_is_named() {
    let attached = Attached::with(both(8_000_000, 80_000));
    let (node, pod, conf) = (&attached.node, &attached.pod, &attached.conf);
    std::fs::remove_dir_all(node.store().path()).unwrap();
    let result = node.add(pod, conf);
    node.check(pod, conf, &result).success();
    node.del(pod, conf);
    node.namespace().ip(&format!("link add {} type ifb", attached.ifb()));
    let told = node.try_add(pod, conf).complaint(101);
    assert!(told.contains(&attached.ifb()), "{told}");
    assert_eq!(node.host_links(), [attached.ifb()]);
}

#[test]
fn rate_and_burst_are_refused_without_each_other() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = node.conf();
    conf["runtimeConfig"] = json!({ "bandwidth": { "ingressRate": 1000, "egressBurst": 1000 } });
    let told = node.try_add(&pod, &conf).complaint(7);
    for path in ["runtimeConfig.bandwidth.ingressBurst: ", "runtimeConfig.bandwidth.egressRate: "] {
        assert!(told.contains(path), "{told}");
    }
    node.expect_nothing_left();
}
