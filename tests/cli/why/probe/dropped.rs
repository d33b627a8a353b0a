//! Packets that do not arrive, and what is said of where they ended.

use ferrule::desired::overlay::Routing;
use serde_json::json;

use super::{door, probe, says};
use crate::cli::why::scene::{PORT, Scene, connects_to};
use kit::nft;
use kit::traffic::Server;

/// A table of somebody else with one chain, which has these rules.
fn plant(scene: &Scene, node: usize, base: &str, rules: &[&str]) {
    nft::run(scene.on(node), &format!("add table inet other; add chain inet other theirs {{ {base}; }}"))
        .unwrap();
    for rule in rules {
        nft::run(scene.on(node), &format!("add rule inet other theirs {rule}")).unwrap();
    }
}

fn remove(scene: &Scene, node: usize) {
    nft::run(scene.on(node), "delete table inet other").unwrap();
}

#[test]
fn a_rule_of_somebody_else_is_named_at_each_hook() {
    let scene = Scene::new(Routing::Direct);
    for ipv4 in [true, false] {
        let asked = format!("shop/client {}", door(&scene, "web", ipv4, PORT));
        for (hook, before) in [
            ("prerouting", "it was dropped on"),
            ("forward", "it went through prerouting of"),
            ("postrouting", "it went through prerouting and forward of"),
        ] {
            let base = format!("type filter hook {hook} priority 0");
            plant(
                &scene,
                0,
                &base,
                &["tcp dport 1 accept", "meta mark 0 tcp dport 8080 drop comment \"by hand\""],
            );
            assert!(!scene.connects("client", "web", ipv4));
            let found = probe(scene.node(0), &asked, 1);
            says(
                &found,
                "dropped",
                &[before, "by the rule with handle", "of chain theirs of table inet other (\"by hand\")"],
            );
            let by = &found["droppedBy"];
            let handle = by["rule"].as_u64().unwrap();
            let listed = scene.on(0).sh("nft -a list chain inet other theirs");
            assert!(
                listed
                    .lines()
                    .any(|it| it.contains("by hand") && it.ends_with(&format!("# handle {handle}"))),
                "{listed}"
            );
            assert_eq!(
                *by,
                json!({ "family": "inet", "table": "other", "chain": "theirs", "rule": handle,
                "comment": "by hand", "rejects": false })
            );
            remove(&scene, 0);
        }
        says(&probe(scene.node(0), &asked, 0), "answered", &[]);
    }
}

#[test]
fn a_reject_and_a_policy_are_named() {
    let scene = Scene::new(Routing::Direct);
    let web = door(&scene, "web", true, PORT);
    let asked = format!("shop/client {web}");
    plant(
        &scene,
        0,
        "type filter hook forward priority 0",
        &["tcp dport 8080 reject with icmpx admin-prohibited"],
    );
    let found = probe(scene.node(0), &asked, 1);
    says(
        &found,
        "dropped",
        &["was rejected on", "chain theirs of table inet other", "administratively prohibited"],
    );
    assert_eq!(found["answer"]["icmp"], json!([3, 13]));
    remove(&scene, 0);
    plant(&scene, 0, "type filter hook forward priority 0; policy drop", &["tcp dport 1 accept"]);
    let found = probe(scene.node(0), &asked, 1);
    says(&found, "dropped", &["by the policy of chain theirs of table inet other"]);
    assert_eq!(found["droppedBy"].get("rule"), None);
    remove(&scene, 0);
    // By iptables-nft, in a chain of its own.
    scene.on(0).sh("iptables -N MINE; iptables -A FORWARD -j MINE");
    scene.on(0).sh("iptables -A MINE -p tcp --dport 8080 -m comment --comment 'of ours' -j REJECT --reject-with tcp-reset");
    let found = probe(scene.node(0), &asked, 1);
    says(
        &found,
        "dropped",
        &["was rejected on", "chain MINE of table ip filter (\"of ours\"), with a reset from"],
    );
    scene.on(0).sh("iptables -F MINE");
    // What the node itself sends.
    plant(&scene, 0, "type filter hook output priority 0", &["tcp dport 8080 drop"]);
    let found = probe(scene.node(0), &format!("192.168.77.10 {web}"), 1);
    says(&found, "dropped", &["it was dropped on", "chain theirs of table inet other"]);
}

#[test]
fn an_answer_that_is_dropped_is_named() {
    let scene = Scene::new(Routing::Direct);
    let asked = format!("shop/client {}", door(&scene, "web", true, PORT));
    plant(&scene, 0, "type filter hook forward priority 0", &["tcp sport 8080 drop"]);
    let found = probe(scene.node(0), &asked, 1);
    says(
        &found,
        "answer-dropped",
        &["left by up0", "its answer came to", "that was dropped on", "table inet other"],
    );
    // As the node sees it, with its address rewritten.
    let found = probe(scene.node(0), &format!("shop/client {}", door(&scene, "outside", true, PORT)), 1);
    says(&found, "answer-dropped", &["left by up0", "that was dropped on"]);
}

/// What no node's nf_tables see: on the way, or by the kernel's own checks.
#[test]
fn what_is_lost_on_the_way_is_bounded() {
    let scene = Scene::new(Routing::Direct);
    let asked = format!("shop/client {}", door(&scene, "web", true, PORT));
    scene.underlay.switch.sh(
        "nft 'add table bridge cloud; add chain bridge cloud every { type filter hook forward priority 0; }'
         nft add rule bridge cloud every ip protocol tcp tcp dport 8080 drop",
    );
    assert!(!scene.connects("client", "web", true));
    let found = probe(scene.node(0), &asked, 1);
    says(&found, "silent", &["left by up0 towards 192.168.77.11", "no answer came within 4 s"]);
    assert!(found["remedy"].as_str().unwrap().contains("something between the nodes"), "{found:#}");
    // A port that is let through.
    let other = format!("shop/client {}", door(&scene, "web", true, 9));
    says(&probe(scene.node(0), &other, 1), "refused", &["a reset from"]);
    scene.underlay.switch.sh("nft delete table bridge cloud");
    // The same by the other node's own firewall.
    plant(&scene, 1, "type filter hook forward priority 0; policy drop", &[]);
    says(&probe(scene.node(0), &asked, 1), "silent", &["left by up0"]);
    remove(&scene, 1);
    // The kernel discards by itself.
    scene.on(0).ip("rule add to 10.88.1.0/24 lookup 100 priority 1");
    scene.on(0).ip("route add blackhole default table 100");
    let found = probe(scene.node(0), &asked, 1);
    says(&found, "vanished", &["it went through prerouting of", "vanished behind prerouting", "rp_filter"]);
    scene.on(0).ip("rule delete to 10.88.1.0/24 lookup 100 priority 1");
    // Rules of iptables-legacy are not traced: between which two places it vanished is known, and that there are some.
    scene.on(0).sh("iptables-legacy -A FORWARD -p tcp --dport 8080 -j DROP");
    let found = probe(scene.node(0), &asked, 1);
    let tables = "(tables of iptables-legacy are there: filter)";
    says(&found, "vanished", &["vanished in forward, by something that is no rule of nf_tables", tables]);
    scene.on(0).sh("iptables-legacy -F FORWARD; iptables-legacy -A FORWARD -p tcp --dport 8080 -j REJECT");
    let found = probe(scene.node(0), &asked, 1);
    says(
        &found,
        "refused",
        &["vanished in forward", tables, "an ICMP error (port unreachable, type 3, code 3) from"],
    );
    scene.on(0).sh("iptables-legacy -F FORWARD");
    // Inside of the pod that is meant.
    scene
        .pod("near")
        .sh("nft 'add table inet x; add chain inet x y { type filter hook input priority 0; policy drop; }'");
    let found = probe(scene.node(0), &format!("shop/client {}", door(&scene, "near", true, PORT)), 1);
    says(&found, "silent", &["and postrouting of", "left by veth"]);
    assert!(found["remedy"].as_str().unwrap().contains("the pod has got it"), "{found:#}");
    // Before the node sees it.
    scene.pod("client").sh(
        "nft 'add table inet x; add chain inet x y { type filter hook output priority 0; policy drop; }'",
    );
    let found = probe(scene.node(0), &asked, 1);
    says(&found, "unsent", &["it was turned away before this node saw it", "not permitted"]);
}

/// A next hop that is away: the kernel of the node says so, when it has asked three times.
#[test]
fn an_error_of_icmp_is_told() {
    let scene = Scene::new(Routing::Direct);
    scene.underlay.switch.ip("link set port1 nomaster");
    scene.on(0).ip("neighbour flush dev up0");
    let found = probe(scene.node(0), &format!("shop/client {}", door(&scene, "web", true, PORT)), 1);
    says(&found, "refused", &["left by up0", "an ICMP error (host unreachable, type 3, code 1) from"]);
}

/// A policy of Kubernetes, as ferrule has it in its own table.
#[test]
fn a_policy_of_kubernetes_is_named() {
    let shop = crate::cli::policy::Shop::new(&["web", "client"]);
    let policies = json!([crate::cli::policy::policy("closed", "web", &json!({ "ingress": [] }))]);
    shop.enforce(&shop.objects(&policies, &[]));
    let _server = Server::tcp(shop.pod("web").namespace(), PORT, "web");
    let web = shop.address("web", true).parse().unwrap();
    assert!(!connects_to(shop.pod("client").namespace(), web, PORT));
    let found = probe(&shop.node, &format!("shop/client {web}:{PORT}"), 1);
    says(&found, "dropped", &["of table inet ferrule-policy"]);
    assert!(found["remedy"].as_str().unwrap().contains("ferrulectl policy why"), "{found:#}");
    // State says the connection fails; without the table the packet passes, and so does state.
    nft::run(shop.node.namespace(), "flush table inet ferrule-policy").unwrap();
    says(&probe(&shop.node, &format!("shop/client {web}:{PORT}"), 0), "answered", &[]);
}
