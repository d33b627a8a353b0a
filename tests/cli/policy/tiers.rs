//! What is said of ClusterNetworkPolicies is what the kernel does, and they are shown with what their rules counted.

use serde_json::{Value, json};

use super::{Shop, document, policy, uid};
use kit::traffic::{Server, tcp};

/// Nobody of `shop` comes into `web` but `client`, by a port that a NetworkPolicy leaves out, and by one that it decides about.
fn objects(shop: &Shop) -> Value {
    let pods = |app: &str| json!({ "pods": { "podSelector": { "matchLabels": { "app": app } } } });
    let port = |number: u16| json!([{ "tcp": { "destinationPort": { "number": number } } }]);
    let rules = json!([
        { "name": "support", "action": "Accept", "from": [pods("client")], "protocols": port(8080) },
        { "action": "Pass", "from": [pods("client")], "protocols": port(8081) },
        { "name": "the rest", "action": "Deny", "from": [{ "namespaces": {} }] },
    ]);
    let web = policy("web", "web", &json!({ "ingress": [{ "ports": [{ "port": 9000 }] }] }));
    let mut objects = shop.objects(&json!([web]), &[]);
    objects["clusterPolicies"] = json!([{ "name": "guard", "spec": {
        "tier": "Admin", "priority": 3, "subject": pods("web"), "ingress": rules } }]);
    objects
}

fn ingress(answer: &Value) -> (String, Value) {
    let directions = answer["flows"][0]["directions"].as_array().unwrap();
    let found = directions.iter().find(|it| it["direction"] == "ingress").unwrap();
    let why: Vec<&str> = found["why"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    (why.join("; "), found["kernel"]["agrees"].clone())
}

#[test]
fn rules_of_tiers_are_named_and_the_kernel_agrees() {
    let shop = Shop::new(&["web", "client", "other"]);
    shop.enforce(&objects(&shop));
    for (from, port, status, expected) in [
        (
            "shop/client",
            8080,
            0,
            "rule ingress[0] (support) of ClusterNetworkPolicy guard in tier Admin accepts it",
        ),
        (
            "shop/other",
            9000,
            1,
            "rule ingress[2] (the rest) of ClusterNetworkPolicy guard in tier Admin denies it",
        ),
        (
            "shop/client",
            8081,
            1,
            "rule ingress[1] of ClusterNetworkPolicy guard in tier Admin passes it on; policy shop/web",
        ),
        ("198.18.0.9", 9000, 0, "rule shop/web ingress[0] allows it"),
    ] {
        let (why, agrees) = ingress(&shop.why(from, &format!("shop/web:{port}"), status));
        assert!(why.starts_with(expected), "{why}");
        assert_eq!(agrees, true, "{why}");
    }
    // A pod to itself.
    let (why, agrees) = ingress(&shop.why("shop/web", "shop/web:9000", 1));
    assert!(why.contains("(the rest)") && agrees == true, "{why}");
}

#[test]
fn tiers_of_a_pod_are_shown_with_their_counters() {
    let shop = Shop::new(&["web", "client"]);
    shop.enforce(&objects(&shop));
    let _server = Server::tcp(shop.pod("web").namespace(), 8080, "web");
    assert!(tcp(shop.pod("client").namespace(), &shop.address("web", true), 8080).is_some());
    let shown = document(&shop.node, "policy show shop/web", 0);
    let ingress = &shown["directions"][1];
    let names: Vec<&Value> = ingress["policies"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["Admin guard", "shop/web"]);
    let chains: Vec<&str> =
        ingress["chains"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let [own, admin, policies] = chains[..] else { panic!("{chains:?}") };
    assert!(own == format!("in-{}", uid("web")) && admin.starts_with("ai-") && policies.starts_with("pi-"));
    let rules = ingress["rules"].as_array().unwrap();
    let counted = |port: &str, rule: &str| {
        rules.iter().find(|it| it["port"] == port && it["rule"] == rule).map(|it| it["packets"].clone())
    };
    assert_eq!(counted("TCP 8080", "Admin guard ingress[0] (support)"), Some(json!(1)), "{rules:#?}");
    assert_eq!(counted("any", "Admin guard ingress[2] (the rest)"), Some(json!(0)), "{rules:#?}");
    assert!(counted("TCP 9000", "shop/web ingress[0]").is_some());
    assert_eq!(rules.iter().filter(|it| it["rule"].as_str().unwrap().starts_with("denied")).count(), 1);
    assert_eq!(shown["directions"][0]["state"], "open");
}
