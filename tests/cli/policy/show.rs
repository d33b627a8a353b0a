//! What is shown of a pod's policies.

use serde_json::{Value, json};

use super::{Shop, document, policy, uid};
use kit::traffic::{Server, tcp};

fn policies() -> Value {
    json!([
        policy(
            "web",
            "web",
            &json!({ "ingress": [{ "ports": [{ "port": 8080 }] }, { "ports": [{ "port": 9000 }] }] })
        ),
        policy("more", "web", &json!({ "ingress": [{ "peers": [{ "podSelector": {} }] }] })),
        policy(
            "wrong",
            "db",
            &json!({ "policyTypes": ["Egress"], "egress": [{ "ports": [{ "port": 70000 }] }] })
        ),
    ])
}

fn show(shop: &Shop, name: &str, status: i32) -> Value {
    document(&shop.node, &format!("policy show {name}"), status)
}

#[test]
fn policies_chains_and_counters_of_a_pod_are_shown() {
    let mut shop = Shop::new(&["web", "client", "db"]);
    shop.enforce(&shop.objects(&policies(), &[]));
    let _server = Server::tcp(shop.pod("web").namespace(), 8080, "web");
    let web = shop.address("web", true);
    for _ in 0..3 {
        assert!(tcp(shop.node.outside(), &web, 8080).is_some());
    }
    let shown = show(&shop, "shop/web", 0);
    assert_eq!((&shown["uid"], &shown["pod"]["link"]), (&json!(uid("web")), &json!(shop.link("web"))));
    let [egress, ingress] = [0, 1].map(|at| shown["directions"][at].clone());
    assert_eq!((&egress["state"], &egress["policies"]), (&json!("open"), &json!([])), "{shown:#}");
    assert_eq!(ingress["state"], "isolated");
    let names: Vec<_> = ingress["policies"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, [json!("shop/web"), json!("shop/more")]);
    assert_eq!(ingress["chains"][0], format!("in-{}", uid("web")));
    let counted: Vec<_> = ingress["rules"].as_array().unwrap().iter().collect();
    let of_port = counted.iter().find(|it| it["port"] == "TCP 8080").unwrap();
    assert_eq!(
        (&of_port["packets"], &of_port["rule"]),
        (&json!(3), &json!("shop/web ingress[0]")),
        "{counted:#?}"
    );
    // The same rule of both families is one.
    assert_eq!(
        counted.iter().filter(|it| it["rule"] == "shop/more ingress[0]" && it["port"] == "any").count(),
        1
    );

    let closed = show(&shop, "shop/db", 0);
    assert_eq!(closed["directions"][0]["state"], "closed");
    let invalid = closed["directions"][0]["policies"][0]["invalid"].as_str().unwrap();
    assert!(invalid.contains("spec.egress[0].ports[0].port"), "{invalid}");
    assert_eq!(closed["directions"][1]["state"], "open");

    let far = show(&shop, "far/remote-0", 0);
    assert!(far["notes"].to_string().contains("another node"), "{far:#}");
    assert_eq!(far["directions"][0]["state"], "other-node");

    let text = shop.text("policy show shop/web");
    for words in
        ["pod shop/web  (10.88.0.", "DIRECTION", "isolated", "shop/web, shop/more", "TCP 8080", "PACKETS"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }

    shop.add("late");
    let held = show(&shop, "shop/late", 1);
    assert_eq!(held["directions"][1]["state"], "held", "{held:#}");
    assert!(held["notes"].to_string().contains("has not seen the pod yet"));

    shop.nft(&format!("delete element inet ferrule-policy to_pod {{ \"{}\" }}", shop.link("web")));
    let open = show(&shop, "shop/web", 1);
    assert_eq!(
        (&open["directions"][1]["state"], &open["directions"][1]["asPlanned"]),
        (&json!("open"), &json!(false))
    );
    assert!(open["notes"].to_string().contains("ferrulectl doctor"));
}
