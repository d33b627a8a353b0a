//! One fault at a time.

use ferrule::connectivity::half::Kind;
use ferrule::desired::overlay::Routing;
use serde_json::json;

use super::scene::{PORT, Scene, connects_to, pings};
use kit::nft;
use kit::packets::ping_whole;
use kit::traffic::Server;

#[test]
fn a_firewall_of_somebody_else_drops_what_is_forwarded() {
    let scene = Scene::new(Routing::Direct);
    nft::run(
        scene.on(1),
        "add table inet firewalld; add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy \
         accept; }; add rule inet firewalld filter_FORWARD ct state established,related accept; add rule inet firewalld \
         filter_FORWARD reject with icmpx admin-prohibited",
    )
    .unwrap();
    let words = ["node-1: chain inet firewalld filter_FORWARD", "drops it"];
    scene.expect_broken("client", "web", Kind::Firewall, &words);
    // A rule that lets the pods pass is understood.
    nft::run(scene.on(1), "insert rule inet firewalld filter_FORWARD ip daddr 10.88.1.0/24 accept").unwrap();
    scene.expect_well("client", "web", true);
    scene.on(0).sh("iptables -P FORWARD DROP");
    scene.expect_broken(
        "client",
        "web",
        Kind::Firewall,
        &["node-0: chain ip filter FORWARD (policy drop) drops it"],
    );
    scene.on(0).sh("iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    scene.expect_broken("client", "near", Kind::Firewall, &["FORWARD (policy drop)"]);
    scene.on(0).sh("iptables -A FORWARD -m comment --comment x -s 10.88.0.0/24 -j ACCEPT");
    scene.expect_well("client", "web", true);
    // Without the first rule the answers are dropped.
    scene.on(0).sh("iptables -D FORWARD 1");
    scene.expect_broken("client", "web", Kind::Firewall, &["node-0: answers: chain ip filter FORWARD"]);
    scene.on(0).sh("iptables -I FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    scene.on(0).sh("iptables -I FORWARD -d 10.88.0.0/24 -p tcp -j DROP");
    scene.expect_broken("client", "near", Kind::Firewall, &["a rule of chain FORWARD"]);
}

#[test]
fn a_missing_route_is_named_forth_and_back() {
    let scene = Scene::new(Routing::Direct);
    let far = "10.88.1.0/24";
    scene.on(0).ip(&format!("route delete {far}"));
    scene.expect_broken(
        "client",
        "web",
        Kind::Route,
        &["node-0: there is no route to 10.88.1.", "0.0.0.0/0 via"],
    );
    let back = "web";
    scene.expect_broken(back, "client", Kind::Route, &["node-0: there is no route to 10.88.1."]);
}

#[test]
fn a_route_of_somebody_else_that_wins_is_named() {
    let scene = Scene::new(Routing::Direct);
    let web = scene.end("web").address(true).unwrap();
    scene.on(0).ip(&format!("route add {web} via 192.168.77.1"));
    scene.expect_broken("client", "web", Kind::Route, &["wins over ferrule's", "via 192.168.77.1"]);
}

#[test]
fn a_rule_of_policy_routing_that_leads_elsewhere_is_named() {
    let scene = Scene::new(Routing::Direct);
    scene.on(0).ip_batch(
        "rule add from 10.88.0.0/24 lookup 100 priority 100\nroute add blackhole default table 100\n",
    );
    scene.expect_broken("client", "web", Kind::Rule, &["node-0", "turns packets to", "from 10.88.0.0/24"]);
    scene.on(0).ip("route replace default via 192.168.77.1 table 100");
    scene.expect_broken(
        "client",
        "web",
        Kind::Rule,
        &["a rule of policy routing leads packets", "to table 100"],
    );
}

#[test]
fn a_link_that_is_down_is_named() {
    let scene = Scene::new(Routing::Direct);
    scene.on(0).ip("link set up0 down");
    scene.expect_broken("client", "web", Kind::Link, &["node-0", "up0 is down"]);
    let scene = Scene::new(Routing::Direct);
    scene.underlay.switch.ip("link set port0 down");
    scene.on(0).wait_until("ip link show up0 | grep -q NO-CARRIER");
    scene.expect_broken("client", "web", Kind::Link, &["up0 has no carrier"]);
}

#[test]
fn a_node_that_is_away_is_named() {
    let scene = Scene::new(Routing::Direct);
    scene.underlay.switch.ip("link set port1 nomaster");
    scene.on(0).ip("neighbour flush dev up0");
    assert!(!scene.connects("client", "web", true));
    let question = scene.question("client", "web", true);
    let halves = scene.ask(0, &question).halves;
    let answer = ferrule::connectivity::join::join(&question, &halves);
    assert!(answer.sentence.contains("node-0: next hop 192.168.77.11 does not answer on up0"), "{answer:#?}");
}

#[test]
fn forwarding_that_is_off_is_named() {
    let scene = Scene::new(Routing::Direct);
    scene.on(1).set_sysctl("net/ipv4/ip_forward", "0");
    scene.expect_broken("client", "web", Kind::Forwarding, &["node-1", "net/ipv4/ip_forward is 0"]);
    scene.on(1).set_sysctl("net/ipv4/ip_forward", "1");
    scene.on(1).set_sysctl("net/ipv4/conf/up0/forwarding", "0");
    scene.expect_broken("client", "web", Kind::Forwarding, &["node-1", "conf/up0/forwarding is 0"]);
}

#[test]
fn a_check_of_where_packets_come_from_is_named() {
    let scene = Scene::new(Routing::Direct);
    scene
        .on(1)
        .ip_batch("link add other type veth peer name end\nlink set other up\nlink set end up\naddress add 10.200.0.1/24 dev other\n");
    scene.on(1).set_sysctl("net/ipv4/conf/up0/rp_filter", "1");
    let client = scene.end("client").address(true).unwrap();
    scene.on(1).ip(&format!("route add {client} via 10.200.0.2 dev other"));
    scene.expect_broken(
        "client",
        "web",
        Kind::RpFilter,
        &["node-1", "up0 refuses packets from", "(rp_filter 1)"],
    );
}

#[test]
fn a_pod_that_sends_from_another_address_is_named() {
    let scene = Scene::new(Routing::Direct);
    let pod = scene.pod("client");
    pod.ip("address add 10.88.0.200/32 dev eth0");
    pod.ip("route replace default via 169.254.1.1 dev eth0 onlink src 10.88.0.200");
    let words = ["the pod sends from 10.88.0.200, which is none of its own addresses"];
    scene.expect_broken("client", "web", Kind::SourceAddress, &words);
    // Who binds to the pod's own address gets through.
    pod.ip("route replace default via 169.254.1.1 dev eth0 onlink");
    scene.expect_well("client", "web", true);
}

#[test]
fn a_pod_that_lost_its_link_or_address_is_named() {
    let scene = Scene::new(Routing::Direct);
    scene.pod("web").ip("link set eth0 down");
    scene.expect_broken("client", "web", Kind::Pod, &["node-1", "eth0 is down"]);
    let scene = Scene::new(Routing::Direct);
    let near = scene.end("near").address(true).unwrap();
    scene.pod("near").ip(&format!("address delete {near}/32 dev eth0"));
    scene.expect_broken("client", "near", Kind::Pod, &["the pod has not its address"]);
    let scene = Scene::new(Routing::Direct);
    scene.pod("web").ip("route delete default");
    scene.expect_broken("client", "web", Kind::Pod, &["the pod has no route for answers to"]);
}

#[test]
fn a_pod_that_its_node_has_no_route_to_is_named() {
    let scene = Scene::new(Routing::Direct);
    let web = scene.end("web").address(true).unwrap();
    scene.on(1).ip(&format!("route delete {web}"));
    scene.expect_broken("client", "web", Kind::PodRoute, &["node-1", "no route to its pod"]);
}

#[test]
fn addresses_that_the_table_does_not_know_are_named() {
    let scene = Scene::new(Routing::Direct);
    nft::run(scene.on(0), "flush set inet ferrule sources4").unwrap();
    scene.expect_broken("client", "web", Kind::Antispoof, &["node-0: table inet ferrule does not know"]);
}

/// Without the table the way back from outside is not known.
#[test]
fn a_flushed_table_is_named_where_it_matters() {
    let scene = Scene::new(Routing::Direct);
    scene.expect_well("client", "outside", true);
    nft::run(scene.on(0), "flush ruleset").unwrap();
    scene.expect_broken(
        "client",
        "outside",
        Kind::Masquerade,
        &["does not give the pod's packets the node's address"],
    );
    scene.expect_well("client", "web", true);
}

#[test]
fn a_port_where_nobody_listens_is_named() {
    let scene = Scene::new(Routing::Direct);
    let _local = Server::udp(scene.pod("web"), "127.0.0.1", 5353, "local");
    let mut question = scene.question("client", "web", true);
    let ask = |question: &_| ferrule::connectivity::join::join(question, &scene.halves(question));
    question.port = 9;
    assert!(!connects_to(scene.pod("client"), question.destination.addresses[0], 9));
    assert!(
        ask(&question).sentence.ends_with("node-1: nobody in the pod listens at TCP 9"),
        "{:#?}",
        ask(&question)
    );
    question.port = 5353;
    question.protocol = ferrule::connectivity::question::Protocol::Udp;
    assert!(ask(&question).sentence.contains("does so on 127.0.0.1 only"), "{:#?}", ask(&question));
    let mut question = scene.question("client", "node-1", true);
    question.port = 9;
    assert!(
        ask(&question).sentence.ends_with("node-1: nobody in node-1 listens at TCP 9"),
        "{:#?}",
        ask(&question)
    );
}

#[test]
fn a_host_port_that_takes_the_nodes_own_port_is_named() {
    let mut scene = Scene::new(Routing::Direct);
    let ports = json!({ "runtimeConfig": { "portMappings":
        [{ "hostPort": PORT, "containerPort": 81, "protocol": "tcp" }] } });
    scene.add("greedy", 1, Routing::Direct, &ports);
    scene.expect_broken("client", "node-1", Kind::HostPort, &["port 8080 of the node leads to shop/greedy"]);
}

/// A hostPort is followed to its pod, and what is wrong there is named.
#[test]
fn a_host_port_is_followed_to_its_pod() {
    let mut scene = Scene::new(Routing::Direct);
    let ports = json!({ "runtimeConfig": { "portMappings":
        [{ "hostPort": 8081, "containerPort": 81, "protocol": "tcp" }] } });
    scene.add("served", 1, Routing::Direct, &ports);
    let mut question = scene.question("client", "node-1", true);
    question.port = 8081;
    let ask = || ferrule::connectivity::join::join(&question, &scene.halves(&question));
    let connects = || connects_to(scene.pod("client"), question.destination.addresses[0], 8081);
    assert!(!connects());
    assert!(ask().sentence.ends_with("node-1: nobody in the pod listens at TCP 81"), "{:#?}", ask());
    let _server = Server::tcp(scene.pod("served"), 81, "served");
    assert!(connects());
    let answer = ask();
    assert_eq!(answer.verdict, ferrule::connectivity::answer::Verdict::Works, "{answer:#?}");
}

/// What kube-proxy, docker and firewalld have in their tables for everybody is understood, as far as pods go.
#[test]
fn rules_that_every_node_has_are_no_fault() {
    let scene = Scene::new(Routing::Direct);
    for node in [0, 1] {
        scene.on(node).sh(
            "iptables -N KUBE-FORWARD; iptables -N KUBE-FIREWALL; iptables -N KUBE-SERVICES; iptables -N DOCKER-USER
             iptables -A FORWARD -m conntrack --ctstate NEW -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES
             iptables -A FORWARD -m comment --comment 'kubernetes forwarding rules' -j KUBE-FORWARD
             iptables -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
             iptables -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
             iptables -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
             iptables -A KUBE-SERVICES -d 10.96.0.9/32 -p tcp -m tcp --dport 80 -j REJECT
             iptables -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
             iptables -A INPUT -j KUBE-FIREWALL; iptables -A OUTPUT -j KUBE-FIREWALL
             iptables -A FORWARD -j DOCKER-USER; iptables -A DOCKER-USER -j RETURN",
        );
        nft::run(
            scene.on(node),
            "table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept; ct state { \
             established, related } accept; ct status dnat accept; iifname \"lo\" accept; ct state invalid drop; ip daddr \
             10.88.0.0/16 accept; ip saddr 10.88.0.0/16 accept; reject with icmpx admin-prohibited; }; }",
        )
        .unwrap();
    }
    scene.expect_well("client", "web", true);
    scene.expect_well("client", "near", true);
    scene.expect_well("client", "node-1", true);
    nft::run(scene.on(1), "insert rule inet firewalld filter_FORWARD meta mark 7 drop").unwrap();
    // What is not understood is named, and nothing is said to be broken.
    let answer = scene.why("client", "web", true);
    assert_eq!(answer.verdict, ferrule::connectivity::answer::Verdict::Unknown, "{answer:#?}");
    assert!(
        answer.sentence.contains("a match of a packet's mark or group in chain filter_FORWARD"),
        "{answer:#?}"
    );
}

#[test]
fn what_drops_packets_in_a_pod_itself_is_named() {
    let scene = Scene::new(Routing::Direct);
    let table = |hook: &str, rule: &str| {
        format!(
            "table inet own {{ chain mine {{ type filter hook {hook} priority 0; policy accept; {rule}; }}; }}"
        )
    };
    for (pod, hook, rule, words) in [
        ("client", "output", "meta oifname \"eth0\" drop", "node-0: in the pod, chain inet own mine (a rule"),
        ("web", "input", "tcp dport 8080 reject", "node-1: in the pod, chain inet own mine (a rule"),
        ("web", "output", "tcp sport 8080 drop", "node-1: answers: in the pod, chain inet own mine (a rule"),
        ("client", "input", "ct state established drop", "node-0: answers: in the pod, chain inet own"),
    ] {
        nft::run(scene.pod(pod), &table(hook, rule)).unwrap();
        scene.expect_broken("client", "web", Kind::Firewall, &[words]);
        nft::run(scene.pod(pod), "delete table inet own").unwrap();
    }
    scene.expect_well("client", "web", true);
}

/// What two pods of one node say to each other is forwarded as well, and each flow tracked.
#[test]
fn forwarding_that_is_off_is_named_between_pods_of_one_node() {
    let scene = Scene::new(Routing::Direct);
    for ipv4 in [true, false] {
        scene.expect_well("client", "near", ipv4);
        let answer = scene.why("client", "near", ipv4);
        assert!(answer.flows[0].steps.iter().any(|it| it.step.kind == Kind::Conntrack), "{answer:#?}");
        let key = if ipv4 { "net/ipv4/ip_forward" } else { "net/ipv6/conf/all/forwarding" };
        scene.on(0).set_sysctl(key, "0");
        scene.expect_broken_by(ipv4, "client", "near", Kind::Forwarding, &["is 0"]);
        scene.on(0).set_sysctl(key, "1");
    }
}

/// Of what is not understood, it is not known whether it drops a packet or lets it pass.
#[test]
fn what_is_not_understood_neither_works_nor_is_broken() {
    let scene = Scene::new(Routing::Direct);
    let table = "add table inet mine; add chain inet mine forward { type filter hook forward priority 5; }; add chain \
                 inet mine inner; ";
    let rule = |chain: &str, rule: &str| format!("add rule inet mine {chain} {rule}; ");
    for (rules, passes, words) in [
        // Back from where it was called, and not dropped.
        (
            rule("forward", "jump inner") + &rule("inner", "ct mark 0 return") + &rule("inner", "drop"),
            true,
            "ct",
        ),
        (rule("forward", "ct mark 0 goto inner") + &rule("forward", "drop"), true, "ct"),
        (rule("forward", "meta mark vmap { 0 : drop }"), false, "mark"),
        (rule("forward", "queue num 7"), false, "queue"),
        (rule("forward", "limit rate 100/second accept") + &rule("forward", "drop"), true, "limit"),
    ] {
        match nft::run(scene.on(1), &(table.to_owned() + &rules)) {
            // Not every kernel has queues.
            Err(_) if words == "queue" => continue,
            done => done.unwrap(),
        };
        assert_eq!(scene.connects("client", "web", true), passes, "{rules}");
        let answer = scene.why("client", "web", true);
        assert_eq!(answer.verdict, ferrule::connectivity::answer::Verdict::Unknown, "{rules}: {answer:#?}");
        assert!(answer.sentence.contains(words), "{rules}: {answer:#?}");
        nft::run(scene.on(1), "delete table inet mine").unwrap();
    }
    scene.expect_well("client", "web", true);
}

/// What is between two nodes takes less than they send: small packets pass, which is why a connection can be made.
#[test]
fn a_link_that_takes_less_than_the_other_sends_is_named() {
    let scene = Scene::new(Routing::Direct);
    scene.on(1).ip("link set up0 mtu 1300");
    let web = scene.end("web").address(true).unwrap().to_string();
    assert!(pings(scene.pod("client"), &scene.end("web")));
    assert!(!ping_whole(scene.pod("client"), 1400, &web).0);
    let answer = scene.why("client", "web", true);
    assert!(
        answer.sentence.contains("node-1: its link takes packets of 1300 bytes, and node-0 sends up to 1500"),
        "{answer:#?}"
    );
}

#[test]
fn what_keeps_vxlan_from_working_is_named() {
    let scene = Scene::new(Routing::Vxlan);
    nft::run(
        scene.on(1),
        "add table inet ufw; add chain inet ufw input { type filter hook input priority 0; policy accept; }; add rule inet \
         ufw input udp dport 8472 drop",
    )
    .unwrap();
    scene.expect_broken("client", "web", Kind::Firewall, &["node-1: VXLAN (UDP 8472): chain inet ufw input"]);
    nft::run(scene.on(1), "delete table inet ufw").unwrap();
    scene.expect_well("client", "web", true);
    // Nodes alone may send to the port, and the table knows them.
    for (node, known) in [(1, "192.168.77.99"), (0, "192.168.77.11")] {
        let elements =
            "add element inet ferrule vxlan_ports { udp . 8472 }; add element inet ferrule vxlan_peers4";
        nft::run(scene.on(node), &format!("{elements} {{ {known} }}")).unwrap();
    }
    scene.expect_broken("client", "web", Kind::Tunnel, &["node-1", "does not know 192.168.77.10 for one"]);
    nft::run(scene.on(1), "add element inet ferrule vxlan_peers4 { 192.168.77.10 }").unwrap();
    scene.expect_well("client", "web", true);
    let entries = scene.on(0).sh("bridge fdb show dev ferrule-vxlan");
    let mac = entries.split(' ').next().unwrap();
    scene.on(0).sh(&format!("bridge fdb del {mac} dev ferrule-vxlan dst 192.168.77.11"));
    scene.expect_broken("client", "web", Kind::Tunnel, &["node-0: ferrule-vxlan has no forwarding entry"]);
}

#[test]
fn faults_of_ipv6_are_named_as_well() {
    let scene = Scene::new(Routing::Direct);
    scene.expect_well("client", "web", false);
    let broken = |kind, words: &[&str]| scene.expect_broken_by(false, "client", "web", kind, words);
    scene.on(1).set_sysctl("net/ipv6/conf/all/forwarding", "0");
    broken(Kind::Forwarding, &["node-1: net/ipv6/conf/all/forwarding is 0"]);
    scene.on(1).set_sysctl("net/ipv6/conf/all/forwarding", "1");
    scene.on(0).ip("-6 rule add from fd00:88::/64 lookup 100");
    scene.on(0).ip("-6 route add blackhole default table 100");
    broken(Kind::Rule, &["node-0", "turns packets to fd00:88:1::"]);
    scene.on(0).ip("-6 rule delete from fd00:88::/64 lookup 100");
    nft::run(
        scene.on(1),
        "add table ip6 x; add chain ip6 x y { type filter hook forward priority 0; policy drop; }",
    )
    .unwrap();
    broken(Kind::Firewall, &["node-1: chain ip6 x y (policy drop) drops it"]);
    nft::run(scene.on(1), "delete table ip6 x").unwrap();
    scene.on(0).ip("-6 route delete fd00:88:1::/64");
    broken(Kind::Route, &["there is no route to fd00:88:1::", "::/0 via fd77::1"]);
}

/// The other end's policies are its own node's to say.
#[test]
fn a_policy_that_denies_is_named() {
    let shop = crate::cli::policy::Shop::new(&["web", "client"]);
    let policies = json!([crate::cli::policy::policy("closed", "web", &json!({ "ingress": [] }))]);
    shop.enforce(&shop.objects(&policies, &[]));
    let _server = Server::tcp(shop.pod("web").namespace(), PORT, "web");
    let web = shop.address("web", true).parse().unwrap();
    assert!(!connects_to(shop.pod("client").namespace(), web, PORT));
    let answer = crate::cli::document(&shop.node, &format!("why shop/client {web}:{PORT}"), 1);
    let sentence = answer["answer"]["sentence"].as_str().unwrap();
    assert!(sentence.contains("policy shop/closed isolates it and has no rule of ingress"), "{answer:#}");
    // What leaves it, and what the node sends, is nobody's business.
    let answer = crate::cli::document(&shop.node, &format!("why {} {web}:{PORT}", kit::node::NODE_V4), 0);
    assert_eq!(answer["answer"]["verdict"], "works");
    // A kernel that does something else counts.
    nft::run(shop.node.namespace(), "flush table inet ferrule-policy").unwrap();
    assert!(connects_to(shop.pod("client").namespace(), web, PORT));
    let answer = crate::cli::document(&shop.node, &format!("why shop/client {web}:{PORT}"), 0);
    assert!(answer.to_string().contains("the kernel lets it pass, though policies deny it"), "{answer:#}");
}
