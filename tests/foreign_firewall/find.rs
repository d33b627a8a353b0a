//! What is in the way is told, and what is not is not.

use ferrule::foreign_firewall::{Traffic, obstacles};
use ferrule::linux::netns::Netns;
use ferrule::linux::nfnetlink::Nfnetlink;

use super::{World, run};
use kit::block_on;
use kit::node::Node;
use kit::pod::Pod;

/// As docker leaves it, with iptables on nf_tables.
#[test]
fn a_policy_of_drop_is_told_by_status_and_doctor_and_no_add_touches_it() {
    let world = World::new();
    world.node().status(&world.conf()).success();
    assert_eq!(world.findings(), Vec::<serde_json::Value>::new());
    world.run("iptables -P FORWARD DROP");
    assert_eq!(world.passing(), "6");
    let said = world.node().status(&world.conf()).complaint(51);
    for word in
        ["chain ip filter FORWARD (policy drop)", "forwardAccept", "iptables -I FORWARD -s 10.244.0.0/24"]
    {
        assert!(said.contains(word), "{word}: {said}");
    }
    world.expect_one("forward-drops", &["podnet", "chain ip filter FORWARD", "ferrule sync"]);

    world.run("ip6tables -P FORWARD DROP; iptables -P FORWARD ACCEPT");
    assert_eq!(world.passing(), "4");
    let said = world.node().status(&world.conf()).complaint(51);
    assert!(
        said.contains("ip6 filter FORWARD") && said.contains("ip6tables -I FORWARD -d fd00:244::/64"),
        "{said}"
    );

    let before = world.ruleset();
    let pod = Pod::new("more");
    world.node().add(&pod, &world.accepting());
    world.node().del(&pod, &world.accepting());
    assert_eq!(world.ruleset(), before);
    // Where an agent keeps the routes to other nodes, the conf names none of them.
    let mut without_peers = world.conf();
    without_peers["peers"] = serde_json::json!([]);
    world.node().status(&without_peers).failure(51);
    // Without other nodes nothing is forwarded between nodes.
    world.install(&without_peers);
    assert_eq!(world.sync(0)["routesRemoved"], 2);
    world.node().status(&without_peers).success();
    assert_eq!(world.findings(), Vec::<serde_json::Value>::new());
}

#[test]
fn rules_of_an_administrator_that_let_the_pods_pass_are_understood() {
    let world = World::new();
    world.run("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
    for (set, clear) in [
        (
            "iptables -A FORWARD -s 10.244.0.0/16 -d 10.244.0.0/16 -j ACCEPT",
            "ip6tables -A FORWARD -s fd00:244::/32 -m comment --comment pods -j ACCEPT",
        ),
        (
            "iptables -A FORWARD -m conntrack --ctstate NEW,ESTABLISHED -i veth+ -j ACCEPT; \
             iptables -A FORWARD -o veth+ -j ACCEPT",
            "ip6tables -A FORWARD ! -i docker0 -j ACCEPT",
        ),
        (
            "iptables -N pods; iptables -A pods -p udp -j DROP; iptables -A pods -j ACCEPT; \
             iptables -A FORWARD -i up0 -g pods; iptables -A FORWARD -o up0 -j pods",
            "ip6tables -A FORWARD -p tcp -j ACCEPT",
        ),
    ] {
        world.run(set);
        world.run(clear);
        let findings = world.findings();
        assert!(findings.is_empty(), "{set}; {clear}: {findings:#?}");
        world.node().status(&world.conf()).success();
        world.run("iptables -F FORWARD; ip6tables -F FORWARD");
    }
    world.node().status(&world.conf()).failure(51);
}

/// As RHEL's iptables service has it.
#[test]
fn a_reject_at_the_end_is_as_good_as_a_policy() {
    let world = World::new();
    world.run(
        "iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; \
         iptables -A FORWARD -i docker0 -j ACCEPT; \
         iptables -A FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT; \
         iptables -A FORWARD -j REJECT --reject-with icmp-host-prohibited",
    );
    assert_eq!(world.passing(), "6");
    world.expect_one("forward-drops", &["chain ip filter FORWARD (a drop at its end)"]);
    world.install(&world.accepting());
    assert_eq!(world.sync(0)["accepting"][0]["inserted"], 2);
    assert_eq!(world.passing(), "46");
}

#[test]
fn a_table_of_somebody_else_is_told_and_never_written_to() {
    let world = World::new();
    world.run(
        "nft 'add table inet mine; add chain inet mine routed { type filter hook forward priority 5; policy drop; }; \
         add rule inet mine routed ct state vmap { established : accept, related : accept, invalid : drop }; \
         add rule inet mine routed ip daddr { 10.0.0.0/9, 192.0.2.1 } accept; \
         add table ip nat2; add chain ip nat2 fine { type filter hook forward priority 0; policy accept; }; \
         add rule ip nat2 fine accept'",
    );
    assert_eq!(world.passing(), "");
    let words = [
        "chain inet mine routed (policy drop)",
        "nft insert rule inet mine routed ip6 saddr fd00:244::/64 accept",
    ];
    world.expect_one("forward-drops", &words);
    let said = world.node().status(&world.conf()).complaint(51);
    assert!(said.contains("inet mine routed") && !said.contains("forwardAccept"), "{said}");
    let before = world.ruleset();
    world.install(&world.accepting());
    let done = world.sync(1);
    assert_eq!(done["dropping"][0]["chain"], "chain inet mine routed (policy drop)", "{done}");
    assert_eq!(done["accepting"].as_array().unwrap().len(), 0);
    assert_eq!(world.ruleset(), before);
    // The remedy is one.
    let remedy = done["dropping"][0]["remedy"].as_str().unwrap();
    world.run(remedy.split(" for example: ").nth(1).unwrap());
    assert_eq!(world.passing(), "46");
    assert_eq!(world.sync(0)["dropping"].as_array().unwrap().len(), 0);
}

#[test]
fn firewalld_is_told_with_its_own_remedy() {
    let world = World::new();
    // What `nft list table inet firewalld` prints where nothing was configured, in brief.
    world.run(
        "nft 'table inet firewalld {
            chain filter_FORWARD {
                type filter hook forward priority filter + 10; policy accept;
                ct state { established, related } accept
                ct status dnat accept
                iifname lo accept
                ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24 } reject with icmpv6 type addr-unreachable
                jump filter_FORWARD_ZONES
                ct state { invalid } drop
                reject with icmpx type admin-prohibited
            }
            chain filter_FORWARD_ZONES {
                iifname eth9 goto filter_FWD_public
                jump filter_FWD_trusted
                goto filter_FWD_public
            }
            chain filter_FWD_public {
                meta l4proto { icmp, ipv6-icmp } ip saddr 198.51.100.0/24 accept
            }
            chain filter_FWD_trusted { }
        }'",
    );
    assert_eq!(world.passing(), "");
    let words = [
        "chain inet firewalld filter_FORWARD",
        "firewall-cmd",
        "--add-source=10.244.0.0/24",
        "fd00:244:1::/64",
    ];
    world.expect_one("forward-drops", &words);
    world.node().status(&world.conf()).failure(51);
    world.run(
        "nft 'add rule inet firewalld filter_FWD_trusted ip saddr { 10.244.0.0/24, 10.244.1.0/24 } accept; \
         add rule inet firewalld filter_FWD_trusted ip6 saddr fd00:244::/32 accept'",
    );
    assert_eq!(world.passing(), "46");
    world.node().status(&world.conf()).success();
    assert_eq!(world.findings(), Vec::<serde_json::Value>::new());
}

/// A node must not be NotReady because of something that ferrule does not understand.
#[test]
fn what_is_not_understood_is_for_the_doctor_alone() {
    let world = World::new();
    world.run(
        "nft 'add table inet mine; add set inet mine pods { type ipv4_addr; flags interval; }; \
         add element inet mine pods { 10.244.0.0/16 }; \
         add chain inet mine routed { type filter hook forward priority 0; policy drop; }; \
         add rule inet mine routed meta nfproto ipv6 accept; add rule inet mine routed ip saddr @pods accept'",
    );
    assert_eq!(world.passing(), "46");
    world.node().status(&world.conf()).success();
    world.expect_one("forward-unclear", &["chain inet mine routed", "cannot be told"]);
    world.run("nft delete table inet mine; iptables -P FORWARD DROP; iptables -A FORWARD -p tcp --dport 80 -j ACCEPT");
    world.node().status(&world.conf()).success();
    world.expect_one("forward-unclear", &["chain ip filter FORWARD"]);
}

/// kube-proxy has thousands of chains, and containerd asks every five seconds.
#[test]
fn chains_that_drop_nothing_cost_no_question() {
    let node = Node::bare("node");
    run(
        node.namespace(),
        "iptables -P FORWARD DROP; iptables -N KUBE-FORWARD; iptables -A FORWARD -j KUBE-FORWARD",
    );
    let ask = || {
        block_on(async {
            let nft = Nfnetlink::open_in(&Netns::open(node.namespace().path()).unwrap()).unwrap();
            let own = vec!["10.244.0.0/24".parse().unwrap()];
            let traffic = Traffic { own, ..Traffic::default() };
            let found = obstacles(&nft, &traffic).await.unwrap();
            assert_eq!(found.len(), 1);
            nft.messages_sent()
        })
    };
    let few = ask();
    let chains =
        (0..2000).map(|n| format!("add chain ip nat KUBE-SVC-{n}\nadd rule ip nat KUBE-SVC-{n} counter\n"));
    let file = node.scratch().path().join("rules.nft");
    std::fs::write(&file, format!("add table ip nat\n{}", chains.collect::<String>())).unwrap();
    run(node.namespace(), &format!("nft -f {}", file.display()));
    assert_eq!(ask(), few);
}

/// Before the first ADD there is no route to the peers' pods. A node that waits for one must not be NotReady because the
/// default route leads elsewhere.
#[test]
fn the_link_to_the_peers_is_known_before_their_routes_stand() {
    let node = Node::new();
    node.namespace()
        .ip_batch("link add lan type veth peer name lan2\nlink set lan2 up\naddress add 192.168.99.1/24 dev lan\nlink set lan up\n");
    run(
        node.namespace(),
        "iptables -P FORWARD DROP; iptables -A FORWARD -o lan -j ACCEPT; iptables -A FORWARD -i lan -j ACCEPT",
    );
    let mut conf = node.conf();
    let peer = |next_hop: &str| serde_json::json!({ "node": next_hop, "podCIDRs": [format!("10.89.{}.0/24", next_hop.len())], "nodeIPs": [next_hop] });
    conf["peers"] = serde_json::json!([peer("192.168.99.2")]);
    node.status(&conf).success();
    conf["peers"] = serde_json::json!([peer(kit::node::OUTSIDE_V4)]);
    node.status(&conf).failure(51);
    // By several links: what is certain of one is not of all.
    conf["peers"] = serde_json::json!([peer(kit::node::OUTSIDE_V4), peer("192.168.99.2")]);
    node.status(&conf).success();
}

#[test]
fn a_node_without_a_firewall_is_well() {
    let node = Node::new();
    let mut conf = node.conf();
    conf["peers"] = serde_json::json!([
        { "node": "b", "podCIDRs": ["10.89.0.0/24"], "nodeIPs": [kit::node::OUTSIDE_V4] },
    ]);
    node.status(&conf).success();
}
