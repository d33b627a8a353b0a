//! Which local addresses hostPorts answer on: those that a client would call the node's.

use serde_json::{Value, json};

use kit::netns::Namespace;
use kit::nft;
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::pod::{Pod, addresses_of};
use kit::traffic::{Reply, Server, UdpClient, reply, tcp};

/// The hostPort, and the port at which others of the node listen.
const PORT: u16 = 443;
const TARGET: u16 = 8080;

fn conf_with_port(node: &Node, host_ip: &str, protocol: &str) -> Value {
    let mut conf = node.conf();
    conf["runtimeConfig"] = json!({ "portMappings": [
        { "hostPort": PORT, "containerPort": TARGET, "protocol": protocol, "hostIP": host_ip } ] });
    conf
}

fn server_name(answer: Option<Reply>) -> Option<String> {
    answer.map(|it| it.server)
}

/// Local addresses of a node that are none of its own, and which kind of link has each.
const OF_OTHERS: [&str; 9] = [
    "10.96.0.1",
    "fd00:96::1",
    // A Service's external address, in the node's own subnet.
    "198.18.0.200",
    "fd00:18::200",
    "169.254.20.10",
    "192.168.122.1",
    "fd00:122::1",
    "203.0.113.5",
    "fd00:5::5",
];

/// All on bridges: not every kernel that runs the tests has dummy links.
fn add_addresses_of_others(node: &Namespace) {
    node.ip_batch(
        "link add kube-ipvs0 type bridge\n\
         address add 10.96.0.1/32 dev kube-ipvs0\naddress add fd00:96::1/128 dev kube-ipvs0 nodad\n\
         address add 198.18.0.200/32 dev kube-ipvs0\naddress add fd00:18::200/128 dev kube-ipvs0 nodad\n\
         link add nodelocaldns type bridge\naddress add 169.254.20.10/32 dev nodelocaldns\n\
         link set nodelocaldns up\n\
         link add virbr0 type bridge\naddress add 192.168.122.1/24 dev virbr0\n\
         address add fd00:122::1/64 dev virbr0 nodad\nlink set virbr0 up\n\
         address add 203.0.113.5/32 dev lo\naddress add fd00:5::5/128 dev lo\n",
    );
}

/// kube-proxy in IPVS mode: what it accepts in its own nat chains, a hostPort took.
#[test]
fn what_is_local_but_not_the_nodes_stays_whose_it_is() {
    let (node, pod, other) = (Node::new(), Pod::new("pod"), Pod::new("other"));
    add_addresses_of_others(node.namespace());
    let of_others = Server::tcp(node.namespace(), PORT, "node");
    node.add(&pod, &conf_with_port(&node, "", "tcp"));
    node.add(&other, &node.conf());
    let _server = Server::tcp(pod.namespace(), TARGET, "pod");
    // Nobody answers neighbour discovery for an IPv6 address of another link.
    node.outside().ip_batch(&format!(
        "route add 10.96.0.1 via {NODE_V4}\nroute add fd00:96::1 via {NODE_V6}\nroute add fd00:18::200 via {NODE_V6}\n"
    ));
    let asked = |from: &Namespace, to: &str| server_name(tcp(from, to, PORT));
    for to in OF_OTHERS {
        for (who, from) in
            [("node", node.namespace()), ("pod", pod.namespace()), ("other", other.namespace())]
        {
            assert_eq!(asked(from, to).as_deref(), Some("node"), "{to} from {who}");
        }
    }
    for to in ["10.96.0.1", "fd00:96::1", "198.18.0.200", "fd00:18::200"] {
        assert_eq!(asked(node.outside(), to).as_deref(), Some("node"), "{to} from outside");
    }
    for to in [NODE_V4, NODE_V6] {
        for from in [node.namespace(), pod.namespace(), other.namespace(), node.outside()] {
            assert_eq!(asked(from, to).as_deref(), Some("pod"), "{to}");
        }
    }
    assert_eq!(asked(node.namespace(), "127.0.0.1").as_deref(), Some("pod"));
    drop(of_others);
}

/// What a virtual machine asks of the bridge's address is libvirt's to answer, though it comes by that very link.
#[test]
fn a_bridge_of_others_keeps_what_comes_by_it() {
    let (node, pod, machine) = (Node::new(), Pod::new("pod"), Namespace::new("machine"));
    add_addresses_of_others(node.namespace());
    node.namespace().ip_batch(&format!(
        "link add vnet0 master virbr0 type veth peer name eth0 netns {}\nlink set vnet0 up\n",
        machine.name()
    ));
    machine.ip_batch(
        "link set lo up\nlink set eth0 up\naddress add 192.168.122.7/24 dev eth0\n\
         route add default via 192.168.122.1\n",
    );
    let _of_others = Server::tcp(node.namespace(), PORT, "node");
    node.add(&pod, &conf_with_port(&node, "", "tcp"));
    let _server = Server::tcp(pod.namespace(), TARGET, "pod");
    assert_eq!(tcp(&machine, "192.168.122.1", PORT), reply("192.168.122.7", "node"));
    assert_eq!(tcp(&machine, NODE_V4, PORT), reply("192.168.122.7", "pod"));
}

/// UDP as well, and a hostIP of each family's "all".
#[test]
fn a_service_by_udp_is_not_taken_either() {
    for (host_ip, service, of_node, seen) in
        [("0.0.0.0", "10.96.0.1", NODE_V4, OUTSIDE_V4), ("::", "fd00:96::1", NODE_V6, OUTSIDE_V6)]
    {
        let (node, pod) = (Node::new(), Pod::new("pod"));
        add_addresses_of_others(node.namespace());
        let index = usize::from(host_ip == "::");
        let addresses = addresses_of(&node.add(&pod, &conf_with_port(&node, host_ip, "udp")));
        let _of_others = Server::udp(node.namespace(), service, PORT, "node");
        let _server = Server::udp(pod.namespace(), &addresses[index], TARGET, "pod");
        let client = |from: &Namespace| UdpClient::new(from, if index == 0 { "0.0.0.0" } else { "::" });
        assert_eq!(server_name(client(pod.namespace()).ask(service, PORT)).as_deref(), Some("node"));
        assert_eq!(client(node.outside()).ask(of_node, PORT), reply(seen, "pod"));
    }
}

#[test]
fn a_host_ip_is_answered_exactly_on_that() {
    for host_ip in ["10.96.0.1", "fd00:96::1", "203.0.113.5"] {
        let (node, pod, other) = (Node::new(), Pod::new("pod"), Pod::new("other"));
        add_addresses_of_others(node.namespace());
        let _of_others = Server::tcp(node.namespace(), PORT, "node");
        node.add(&pod, &conf_with_port(&node, host_ip, "tcp"));
        node.add(&other, &node.conf());
        let _server = Server::tcp(pod.namespace(), TARGET, "pod");
        for to in OF_OTHERS.into_iter().chain([NODE_V4, NODE_V6, "127.0.0.1"]) {
            let wanted = if to == host_ip { "pod" } else { "node" };
            assert_eq!(
                server_name(tcp(node.namespace(), to, PORT)).as_deref(),
                Some(wanted),
                "{to} of {host_ip}"
            );
        }
        assert_eq!(server_name(tcp(other.namespace(), host_ip, PORT)).as_deref(), Some("pod"), "{host_ip}");
    }
}

/// A node that announces its address by BGP has it on `lo`.
#[test]
fn an_address_that_the_conf_names_is_the_nodes_wherever_it_is() {
    let (node, pod, other) = (Node::new(), Pod::new("pod"), Pod::new("other"));
    add_addresses_of_others(node.namespace());
    let mut conf = conf_with_port(&node, "", "tcp");
    conf["nodeIPs"] = json!(["203.0.113.5", "fd00:5::5"]);
    node.add(&pod, &conf);
    conf["runtimeConfig"] = Value::Null;
    node.add(&other, &conf);
    let _server = Server::tcp(pod.namespace(), TARGET, "pod");
    node.outside()
        .ip_batch(&format!("route add 203.0.113.5 via {NODE_V4}\nroute add fd00:5::5 via {NODE_V6}\n"));
    for to in ["203.0.113.5", "fd00:5::5", NODE_V4, NODE_V6] {
        for from in [node.namespace(), pod.namespace(), other.namespace(), node.outside()] {
            assert_eq!(server_name(tcp(from, to, PORT)).as_deref(), Some("pod"), "{to}");
        }
    }
}

/// A second network card without a way to the world, and a bridge that the uplink is a port of.
#[test]
fn a_second_card_and_a_bridge_that_leads_out_are_uplinks() {
    let (node, pod, storage) = (Node::bare("node"), Pod::new("pod"), Namespace::new("storage"));
    node.namespace().ip_batch(&format!(
        "link add br0 type bridge\nlink set br0 up\naddress add 198.18.0.2/24 dev br0\n\
         route add default via 198.18.0.1\n\
         link add eth1 type veth peer name eth0 netns {}\nlink set eth1 up\n\
         address add 10.9.0.2/24 dev eth1\naddress add fd00:9::2/64 dev eth1 nodad\n",
        storage.name()
    ));
    storage.ip_batch(
        "link set eth0 up\naddress add 10.9.0.9/24 dev eth0\naddress add fd00:9::9/64 dev eth0 nodad\n\
         route add default via 10.9.0.2\n",
    );
    node.add(&pod, &conf_with_port(&node, "", "tcp"));
    let _server = Server::tcp(pod.namespace(), TARGET, "pod");
    for to in ["10.9.0.2", "198.18.0.2"] {
        assert_eq!(tcp(&storage, to, PORT), reply("10.9.0.9", "pod"), "{to}");
        assert_eq!(server_name(tcp(pod.namespace(), to, PORT)).as_deref(), Some("pod"), "{to}");
    }
    assert_eq!(tcp(&storage, "fd00:9::2", PORT), reply("fd00:9::9", "pod"));
}

/// keepalived's, DHCP's, a second one: whoever comes from outside reaches the pod by it at once, without an agent.
#[test]
fn an_address_that_comes_later_is_taken_up() {
    let later = ["198.18.0.102", "198.18.0.103", "fd00:18::102"];
    let (node, pod, next) = (Node::new(), Pod::new("pod"), Pod::new("next"));
    add_addresses_of_others(node.namespace());
    let conf = conf_with_port(&node, "", "tcp");
    node.add(&pod, &conf);
    node.namespace().ip_batch(
        "address add 198.18.0.102/24 dev uplink\naddress add 198.18.0.103/32 dev uplink\n\
         address add fd00:18::102/128 dev uplink nodad\naddress add 10.96.0.77/32 dev kube-ipvs0\n",
    );
    let _of_others = Server::tcp(node.namespace(), PORT, "node");
    let _server = Server::tcp(pod.namespace(), TARGET, "pod");
    let asked = |from: &Namespace, to: &str| server_name(tcp(from, to, PORT)).unwrap();
    for to in later {
        assert_eq!(asked(node.outside(), to), "pod", "{to}");
    }
    assert_eq!(asked(pod.namespace(), "10.96.0.77"), "node", "a Service that came later");
    // Those on the node by the next ADD with a hostPort.
    let mut other = conf.clone();
    other["runtimeConfig"]["portMappings"][0]["hostPort"] = json!(444);
    node.add(&next, &other);
    let expect_all = || {
        for to in later {
            for from in [node.namespace(), pod.namespace(), node.outside()] {
                assert_eq!(asked(from, to), "pod", "{to}");
            }
        }
        assert_eq!(asked(pod.namespace(), "10.96.0.77"), "node");
    };
    expect_all();
    // Whoever finds the table flushed makes it with them.
    nft::run(node.namespace(), "flush ruleset").unwrap();
    node.add(&Pod::new("third"), &node.conf());
    expect_all();
    // And GC takes no more than what is a pod's.
    node.gc(&conf, &[&pod, &next]).success();
    expect_all();
}
