//! Why a connection is allowed or denied: what is said is what happens.

use std::fs;
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::{Shop, policy};
use kit::netns::{Namespace, inside};
use kit::node::{OUTSIDE_V4, OUTSIDE_V6};
use kit::packets::answers_ping_at_once;
use kit::traffic::{BRIEF, Server, tcp};

/// `web` lets `client` in by a port with a name and by one with a number, `db` nobody, and `client` may speak to `web`
/// and to the world but for a piece of it.
fn policies() -> Value {
    let client = json!([{ "podSelector": { "matchLabels": { "app": "client" } } }]);
    json!([
        policy(
            "web",
            "web",
            &json!({ "ingress": [
            { "peers": client, "ports": [{ "port": "http" }, { "port": 9000, "endPort": 9003 }] },
            { "peers": [{ "namespaceSelector": { "matchLabels": { "team": "b" } } }], "ports": [{ "port": 8081 }] },
        ] })
        ),
        policy("db", "db", &json!({ "policyTypes": ["Ingress", "Egress"], "egress": [] })),
        policy(
            "out",
            "client",
            &json!({ "policyTypes": ["Egress"], "egress": [
            { "peers": [{ "podSelector": {} }] },
            { "peers": [{ "ipBlock": { "cidr": "0.0.0.0/0", "except": ["198.18.0.0/24"] } }] },
        ] })
        ),
    ])
}

/// The reasons of one direction.
fn reasons(answer: &Value, direction: &str) -> String {
    let directions = answer["flows"][0]["directions"].as_array().unwrap();
    let found = directions.iter().find(|it| it["direction"] == direction).unwrap();
    found["why"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect::<Vec<_>>().join("; ")
}

fn is_denied(from: &Namespace, to: &str, port: u16) -> bool {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    inside(from, || TcpStream::connect_timeout(&to, BRIEF).is_err())
}

fn agrees(answer: &Value) -> bool {
    let flows = answer["flows"].as_array().unwrap().iter();
    let kernels = flows.flat_map(|it| it["directions"].as_array().unwrap()).map(|it| &it["kernel"]);
    kernels.filter(|it| !it.is_null()).all(|it| it["agrees"] == true)
}

#[test]
fn what_is_said_is_what_happens() {
    let shop = Shop::new(&["web", "client", "db", "other"]);
    shop.enforce(&shop.objects(&policies(), &[]));
    let mut servers = Vec::new();
    for name in ["web", "db", "other", "client"] {
        servers.extend([8080, 8081, 9002].map(|port| Server::tcp(shop.pod(name).namespace(), port, name)));
    }
    servers.push(Server::tcp(shop.node.outside(), 8080, "outside"));
    servers.push(Server::tcp(shop.node.namespace(), 8080, "node"));
    let outside = format!("{OUTSIDE_V4}:8080");
    let node = format!("{}:8080", kit::node::NODE_V4);
    for (from, to, allowed, egress, ingress) in [
        (
            "client",
            "shop/web:8080",
            true,
            "rule shop/out egress[0] allows it",
            "rule shop/web ingress[0] allows it",
        ),
        ("client", "shop/web:9002", true, "shop/out egress[0]", "shop/web ingress[0]"),
        (
            "client",
            "shop/web:8081",
            false,
            "egress[0]",
            "its rule ingress[0] comes nearest, but has only TCP http",
        ),
        (
            "other",
            "shop/web:8080",
            false,
            "no policy isolates shop/other for egress",
            "is for pods with app=client, which shop/other is not",
        ),
        (
            "other",
            "shop/web:8081",
            false,
            "no policy",
            "is for pods of namespaces with team=b, which that of shop/other is not",
        ),
        (
            "client",
            "shop/db:8080",
            false,
            "egress[0]",
            "policy shop/db isolates it and has no rule of ingress",
        ),
        (
            "db",
            "shop/other:8080",
            false,
            "policy shop/db isolates it and has no rule of egress",
            "no policy isolates shop/other",
        ),
        ("client", "shop/client:8080", true, "keeps a pod from itself", "keeps a pod from itself"),
        ("other", "shop/client:8080", true, "no policy", "no policy isolates shop/client for ingress"),
        ("client", outside.as_str(), false, "no pod is known that has the address of", "is no pod"),
        ("client", node.as_str(), false, "no pod is known that has the address of", "this node is no pod"),
        ("other", outside.as_str(), true, "no policy", ""),
    ] {
        let answer = shop.why(&format!("shop/{from}"), to, i32::from(!allowed));
        assert_eq!(answer["allowed"], allowed, "{from} {to}: {answer:#}");
        assert!(agrees(&answer), "{from} {to}: {answer:#}");
        for (direction, words) in [("egress", egress), ("ingress", ingress)] {
            let said = reasons(&answer, direction);
            assert!(said.contains(words), "{from} {to}: {direction}: {said}");
        }
        for flow in answer["flows"].as_array().unwrap() {
            let port = to.rsplit_once(':').unwrap().1.parse().unwrap();
            let (from, address) = (shop.pod(from).namespace(), flow["destination"].as_str().unwrap());
            let is_as_said = if flow["allowed"] == true {
                tcp(from, address, port).is_some()
            } else {
                is_denied(from, address, port)
            };
            assert!(is_as_said, "{to}: {flow:#}");
        }
    }
}

/// Without a port, ICMP; by address or by name; from the node; over IPv6 alone.
#[test]
fn ends_may_be_addresses_and_need_no_port() {
    let shop = Shop::new(&["web", "client"]);
    shop.enforce(&shop.objects(&policies(), &[]));
    let web = shop.address("web", true);
    let answer = shop.why("shop/client", &web, 1);
    assert_eq!(answer["destination"]["pod"], "shop/web");
    assert_eq!((&answer["protocol"], answer["flows"].as_array().unwrap().len()), (&json!("ICMP"), 1));
    assert!(!answers_ping_at_once(shop.pod("client").namespace(), &web));
    let answer = shop.why("shop/web", "shop/client", 0);
    assert_eq!(answer["flows"].as_array().unwrap().len(), 2, "{answer:#}");
    assert!(
        agrees(&answer) && answers_ping_at_once(shop.pod("web").namespace(), &shop.address("client", false))
    );
    let answer = shop.why(kit::node::NODE_V6, &format!("[{}]:1", shop.address("web", false)), 0);
    assert!(reasons(&answer, "ingress").contains("a node sends to its own pods"), "{answer:#}");
    // That rule has blocks of IPv4 only.
    let answer = shop.why("shop/client", &format!("[{OUTSIDE_V6}]:80/udp"), 1);
    assert_eq!((&answer["protocol"], &answer["port"]), (&json!("UDP"), &json!(80)));
    assert!(agrees(&answer), "{answer:#}");
    let shown = shop.text("policy why shop/client shop/web:8081");
    for words in [
        "shop/client (10.88.0.",
        "shop/web (fd00:88::",
        "TCP 8081: denied",
        "kernel in",
        "denied_in",
        "agrees",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}

#[test]
fn another_nodes_pod_is_judged_by_the_same_objects() {
    let shop = Shop::new(&["web", "client"]);
    let mut policies = policies();
    let mut far = policy("far", "remote", &json!({ "ingress": [{ "ports": [{ "port": 1 }] }] }));
    far["namespace"] = json!("far");
    policies.as_array_mut().unwrap().push(far);
    shop.enforce(&shop.objects(&policies, &[]));
    let answer = shop.why("far/remote-0", "shop/web:8081", 0);
    assert!(agrees(&answer) && reasons(&answer, "ingress").contains("shop/web ingress[1]"), "{answer:#}");
    assert_eq!(answer["source"]["place"], "other-node");
    let answer = shop.why("shop/web", "far/remote-0:80", 1);
    let said = reasons(&answer, "ingress");
    assert!(
        said.contains("has only TCP 1") && said.contains("on another node, which decides about its ingress"),
        "{said}"
    );
    assert_eq!(answer["flows"][0]["directions"][1]["kernel"], Value::Null);
}

#[test]
fn a_kernel_that_does_something_else_is_told() {
    let shop = Shop::new(&["web", "client"]);
    shop.enforce(&shop.objects(&policies(), &[]));
    let _server = Server::tcp(shop.pod("web").namespace(), 8080, "web");
    let web = shop.address("web", true);
    let ask = || shop.why("shop/client", &format!("{web}:8080"), 3);
    let kernel = |answer: &Value| answer["flows"][0]["directions"][1]["kernel"].clone();
    assert!(tcp(shop.pod("client").namespace(), &web, 8080).is_some());
    let plan = shop.enforce(&shop.objects(&policies(), &[]));
    let chain = plan
        .chains
        .keys()
        .find(|it| it.starts_with("pi-") && plan.chains[*it].policies == ["shop/web"])
        .unwrap();
    // Somebody deletes the rule that allows it.
    let port = plan.chains[chain].ports.iter().find(|it| it.first == 8080).unwrap();
    let of_port = nft_chain_of(&shop, &port.chain);
    assert!(of_port.contains("accept"), "{of_port}");
    shop.nft(&format!("flush chain inet ferrule-policy {}", port.chain));
    let answer = ask();
    assert_eq!(
        (answer["allowed"].clone(), kernel(&answer)["allowed"].clone()),
        (Value::Null, json!(false)),
        "{answer:#}"
    );
    assert!(answer["notes"][0].as_str().unwrap().contains("somebody has changed table inet ferrule-policy"));
    assert!(is_denied(shop.pod("client").namespace(), &web, 8080));
    let shown = shop.text(&format!("policy why shop/client {web}:8080"));
    assert!(shown.contains("denies it") && shown.contains("cannot tell"), "{shown}");
    // Somebody lets all in.
    shop.nft(&format!("insert rule inet ferrule-policy {chain} tcp dport 1 accept"));
    shop.nft("flush map inet ferrule-policy to_pod");
    let denied = shop.why("shop/client", &format!("{web}:1"), 3);
    assert_eq!(kernel(&denied)["allowed"], true, "{denied:#}");
    // The whole table is gone.
    shop.nft("delete table inet ferrule-policy");
    let answer = shop.why("shop/client", &format!("{web}:1"), 3);
    assert_eq!(kernel(&answer)["chains"], json!([]), "{answer:#}");
    // By a rule of somebody else's making.
    shop.enforce(&shop.objects(&policies(), &[]));
    shop.nft(&format!("insert rule inet ferrule-policy {chain} meta mark 1 accept"));
    let answer = ask();
    assert!(kernel(&answer)["rule"].as_str().unwrap().contains("mark"), "{answer:#}");
}

fn nft_chain_of(shop: &Shop, chain: &str) -> String {
    kit::nft::run(shop.node.namespace(), &format!("list chain inet ferrule-policy {chain}")).unwrap()
}

#[test]
fn a_held_pod_has_what_is_certain() {
    let mut shop = Shop::new(&["client"]);
    let mut policies = policies();
    let dns =
        json!({ "policyTypes": ["Egress"], "egress": [{ "ports": [{ "protocol": "UDP", "port": 53 }] }] });
    let mut all = policy("dns", "x", &dns);
    all["spec"]["podSelector"] = json!({});
    policies.as_array_mut().unwrap().push(all);
    shop.enforce(&shop.objects(&policies, &[]));
    shop.add("web");
    let answer = shop.why("shop/web", &format!("{OUTSIDE_V4}:53/udp"), 0);
    assert_eq!(answer["source"]["place"], "held");
    assert!(reasons(&answer, "egress").contains("shop/dns egress[0] allows it"), "{answer:#}");
    assert!(agrees(&answer), "{answer:#}");
    let answer = shop.why("shop/client", "shop/web:8080", 1);
    assert!(reasons(&answer, "ingress").contains("the agent has not seen shop/web yet"), "{answer:#}");
    assert!(agrees(&answer), "{answer:#}");
}

/// Nothing is made up where nothing is known.
#[test]
fn what_is_not_known_is_said() {
    let shop = Shop::new(&["web", "client"]);
    let answer = shop.why("shop/client", "shop/web:80", 0);
    assert!(reasons(&answer, "ingress").contains("no NetworkPolicy is known on this node"), "{answer:#}");
    let refused = |words: &str, status, said: &str| {
        let answer = super::verb(&shop.node, words).run();
        assert_eq!(answer.status.code(), Some(status), "{answer:?}");
        assert!(answer.stderr.contains(said), "{answer:?}");
    };
    refused("policy why shop/client shop/none:80", 3, "pod shop/none is not known on this node");
    refused("policy show shop/none", 3, "pod shop/none is not known on this node");
    refused("policy why client shop/web:80", 2, "NAMESPACE/POD");
    refused(&format!("policy why {OUTSIDE_V4} {OUTSIDE_V6}"), 3, "no addresses of the same family");
    let plan = shop.enforce(&shop.objects(&policies(), &[]));
    assert!(!plan.chains.is_empty());
    let file = shop.file("policy-objects");
    fs::remove_file(&file).unwrap();
    let answer = shop.why("shop/client", "shop/web:8080", 3);
    assert!(reasons(&answer, "ingress").contains("has not left the objects"), "{answer:#}");
    assert_eq!(answer["flows"][0]["directions"][1]["kernel"]["allowed"], true);
    for (content, word) in [("torn", "no list of policies and pods"), ("{\"version\":9}", "9")] {
        fs::write(&file, content).unwrap();
        let answer = shop.why("shop/client", "shop/web:8080", 3);
        let said = reasons(&answer, "ingress");
        assert!(said.contains("cannot be read") && said.contains(word), "{said}");
    }
    let answer = shop.objects(&policies(), &[]);
    let old = json!({ "version": 1, "bootId": "of-yesterday", "objects": answer });
    fs::write(&file, old.to_string()).unwrap();
    let answer = shop.why("shop/client", "shop/web:8080", 0);
    assert!(answer["notes"].to_string().contains("before the node was rebooted"), "{answer:#}");
}
