//! The pair, its names and marks, and what stands on either side of it.

use serde_json::{Value, json};

use kit::ip;
use kit::node::{NODE_V4, NODE_V6, Node};
use kit::pod::{Pod, addresses_of, host_link_of};

/// A node with one pod of both families on it.
struct Attached {
    node: Node,
    pod: Pod,
    result: Value,
    host: String,
}

impl Attached {
    fn new() -> Self {
        let (node, pod) = (Node::new(), Pod::new("pod"));
        let call = node.call_for("ADD", &pod, &node.conf());
        let answer = call.args("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0").run();
        let result = answer.result();
        let host = host_link_of(&result);
        Self { node, pod, result, host }
    }

    fn host_link(&self) -> Value {
        ip::link(self.node.namespace(), &self.host).expect("the node's end")
    }

    fn pod_link(&self) -> Value {
        ip::link(self.pod.namespace(), "eth0").expect("the pod's end")
    }
}

/// containerd takes `result.Interfaces["eth0"]` and wants an address on it ("failed to find network info for
/// sandbox", sandbox_run.go); the order of the addresses is that of podIPs.
#[test]
fn the_result_tells_the_runtime_all_that_it_asks_for() {
    let Attached { pod, result, host, .. } = Attached::new();
    let interfaces = result["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 2);
    assert_eq!(interfaces[0]["name"], host.as_str());
    assert_eq!(interfaces[1]["name"], "eth0");
    assert_eq!(interfaces[1]["sandbox"], pod.namespace().path().to_str().unwrap());
    assert_eq!((&interfaces[0]["mtu"], &interfaces[1]["mtu"]), (&json!(1500), &json!(1500)));
    assert_eq!(
        result["ips"],
        json!([
            { "address": "10.88.0.2/32", "gateway": "169.254.1.1", "interface": 1 },
            { "address": "fd00:88::2/128", "gateway": "fe80::1", "interface": 1 },
        ])
    );
    assert_eq!(result["routes"], json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]));
    assert_eq!(result["cniVersion"], "1.1.0");
}

/// udev's MACAddressPolicy=persistent rewrites the address of every link whose address was not set when it was
/// made; then the permanent neighbours lead nowhere (aws-vpc-cni#2103, systemd#21185).
#[test]
fn both_ends_have_their_hardware_address_from_birth() {
    let attached = Attached::new();
    let interfaces = &attached.result["interfaces"];
    assert_eq!(attached.host_link()["address"], interfaces[0]["mac"]);
    assert_eq!(attached.pod_link()["address"], interfaces[1]["mac"]);
    let assigned = |it: &str| format!("class/net/{it}/addr_assign_type");
    // NET_ADDR_SET
    assert_eq!(attached.node.namespace().in_sys(&assigned(&attached.host)), "3");
    assert_eq!(attached.pod.namespace().in_sys(&assigned("eth0")), "3");
}

#[test]
fn whoever_looks_at_the_nodes_links_sees_whose_they_are() {
    let attached = Attached::new();
    let link = attached.host_link();
    let alias = format!("ferrule:podnet/{}/eth0 shop/web-0", attached.pod.container());
    assert_eq!(link["ifalias"], alias);
    // udev and NetworkManager leave links of this name alone (cni#77).
    assert!(attached.host.starts_with("veth") && attached.host.len() == 15, "{}", attached.host);
    // `ip link show group` finds those that died before they had an alias.
    let group: u32 = link["group"].as_str().unwrap().parse().unwrap();
    assert_eq!(group >> 24, 0x66);
}

#[test]
fn both_ends_are_up_and_are_each_others_peer() {
    let attached = Attached::new();
    let (host, pod) = (attached.host_link(), attached.pod_link());
    assert_eq!((&host["operstate"], &pod["operstate"]), (&json!("UP"), &json!("UP")));
    assert_eq!((&host["link_index"], &pod["link_index"]), (&pod["ifindex"], &host["ifindex"]));
    let lo = ip::link(attached.pod.namespace(), "lo").unwrap();
    assert!(lo["flags"].as_array().unwrap().contains(&json!("UP")), "{lo}");
}

/// An address that is still tentative cannot be bound to: pods started 3 to 16 s late (k8s#54651).
#[test]
fn the_pods_addresses_stand_alone_and_can_be_used_at_once() {
    let attached = Attached::new();
    assert_eq!(attached.pod.addresses(), ["10.88.0.2/32", "fd00:88::2/128"]);
    for address in ip::addresses(attached.pod.namespace(), "eth0") {
        assert!(address.get("tentative").is_none(), "{address}");
        let is_v6 = address["family"] == "inet6";
        assert_eq!(address.get("nodad").is_some(), is_v6, "{address}");
        assert!(address.get("dynamic").is_none(), "{address}");
    }
}

#[test]
fn the_nodes_end_has_no_address_at_all() {
    let attached = Attached::new();
    assert_eq!(ip::addresses(attached.node.namespace(), &attached.host), Vec::<Value>::new());
}

/// Stale ARP and neighbour entries after fast address reuse left new pods unreachable for a minute
/// (plugins#858, aws-vpc-cni#3628); arp_ignore made the gateway mute (kind#3880). Nobody asks here.
#[test]
fn neighbours_are_permanent_on_both_sides() {
    let attached = Attached::new();
    let entries = |neighbours: Vec<Value>, dev: &str| {
        let mut entries: Vec<String> = neighbours
            .iter()
            // What the kernel adds by itself for multicast is none of ours.
            .filter(|it| it["dev"] == dev && it["state"] != json!(["NOARP"]))
            .map(|it| format!("{} {} {}", it["dst"], it["lladdr"], it["state"]).replace('"', ""))
            .collect();
        entries.sort();
        entries
    };
    let mac = |end: usize| attached.result["interfaces"][end]["mac"].as_str().unwrap().to_owned();
    let (host_mac, pod_mac) = (mac(0), mac(1));
    assert_eq!(
        entries(ip::neighbours(attached.pod.namespace()), "eth0"),
        [format!("169.254.1.1 {host_mac} [PERMANENT]"), format!("fe80::1 {host_mac} [PERMANENT]")]
    );
    assert_eq!(
        entries(ip::neighbours(attached.node.namespace()), &attached.host),
        [format!("10.88.0.2 {pod_mac} [PERMANENT]"), format!("fd00:88::2 {pod_mac} [PERMANENT]")]
    );
}

/// The source address matters on nodes with several: kubelet's probes left with another link's (calico#9293,
/// kube-router#549).
#[test]
fn the_route_to_a_pod_has_the_nodes_source_and_our_protocol() {
    let attached = Attached::new();
    for (family, address, source) in [("-4", "10.88.0.2", NODE_V4), ("-6", "fd00:88::2", NODE_V6)] {
        let routes =
            ip::routes(attached.node.namespace(), &format!("{family} dev {} proto 102", attached.host));
        assert_eq!(routes.len(), 1, "{routes:?}");
        assert_eq!((&routes[0]["dst"], &routes[0]["prefsrc"]), (&json!(address), &json!(source)));
        assert!(routes[0].get("gateway").is_none());
    }
}

#[test]
fn the_pods_routes_lead_through_its_node() {
    let attached = Attached::new();
    for (family, gateway) in [("-4", "169.254.1.1"), ("-6", "fe80::1")] {
        let routes = ip::routes(attached.pod.namespace(), &format!("{family} default"));
        assert_eq!(routes.len(), 1, "{routes:?}");
        assert_eq!((&routes[0]["gateway"], &routes[0]["dev"]), (&json!(gateway), &json!("eth0")));
    }
    // Nothing goes out directly: neither the subnet nor anything else is on the link, but for the gateway.
    let direct = ip::routes(attached.pod.namespace(), "-4 scope link");
    assert_eq!(direct.iter().map(|route| &route["dst"]).collect::<Vec<_>>(), ["169.254.1.1"]);
}

#[test]
fn the_node_has_a_catch_all_for_its_own_subnets() {
    let attached = Attached::new();
    for (family, subnet) in [("-4", "10.88.0.0/24"), ("-6", "fd00:88::/64")] {
        let routes = ip::routes(attached.node.namespace(), &format!("{family} type unreachable proto 102"));
        assert_eq!(routes.len(), 1, "{routes:?}");
        assert_eq!(routes[0]["dst"], subnet);
    }
}

#[test]
fn the_sysctls_are_those_of_a_router_that_trusts_no_pod() {
    let attached = Attached::new();
    let node = |path: &str| attached.node.namespace().sysctl(path);
    let of_host = |version: &str, name: &str| node(&format!("net/{version}/conf/{}/{name}", attached.host));
    assert_eq!(of_host("ipv4", "rp_filter"), "1");
    assert_eq!(of_host("ipv6", "accept_ra"), "0");
    // Who forwards does not listen to redirects.
    assert_eq!(of_host("ipv6", "forwarding"), "1");
    assert_eq!(of_host("ipv6", "addr_gen_mode"), "1");
    assert_eq!(of_host("ipv4", "proxy_arp"), "0");
    assert_eq!(node("net/ipv4/ip_forward"), "1");
    assert_eq!(node("net/ipv6/conf/all/forwarding"), "1");
    let pod = |path: &str| attached.pod.namespace().sysctl(path);
    assert_eq!(pod("net/ipv6/conf/eth0/accept_ra"), "0");
    assert_eq!(pod("net/ipv6/conf/eth0/addr_gen_mode"), "1");
}

/// A second interface of the same pod, under another name.
#[test]
fn a_pod_may_have_two_interfaces() {
    let node = Node::new();
    let (pod, conf) = (Pod::new("pod"), node.conf_with(json!([[{ "subnet": "10.88.0.0/24" }]])));
    let first = node.add(&pod, &conf);
    let mut second = conf.clone();
    second["ipam"]["routes"] = json!([]);
    let second = node.call_for("ADD", &pod, &second).ifname("net1").run().result();
    assert_ne!(host_link_of(&first), host_link_of(&second));
    assert_eq!(
        (addresses_of(&first), addresses_of(&second)),
        (vec!["10.88.0.2".into()], vec!["10.88.0.3".into()])
    );
    assert!(ip::link(pod.namespace(), "net1").is_some());
}
