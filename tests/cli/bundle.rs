//! `ferrulectl bundle`: one document, as much as can be had with the agent's one capability.

use super::policy::{Shop, policy};
use super::verb;
use serde_json::json;

/// As the DaemonSet gives it to its container.
const AGENTS: [&str; 4] =
    ["setpriv", "--no-new-privs", "--inh-caps=-all,+net_admin", "--bounding-set=-all,+net_admin"];

#[test]
fn what_verbs_say_and_what_the_kernel_has_is_in_it() {
    let shop = Shop::new(&["web", "client"]);
    let rules =
        json!({ "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "client" } } }] }] });
    shop.enforce(&shop.objects(&json!([policy("web", "web", &rules)]), &[]));
    let answer = verb(&shop.node, "bundle").through(AGENTS).run();
    assert!(answer.status.success(), "{answer:?}");
    let document = answer.document().unwrap();
    assert_eq!(document["ferrulectl"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["inspect"]["networks"][0]["attachments"].as_array().unwrap().len(), 2);
    assert!(document["doctor"]["findings"].is_array());
    let mut shown: Vec<&str> = document["policies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["pod"]["pod"].as_str().unwrap())
        .collect();
    shown.sort_unstable();
    assert_eq!(shown, ["shop/client", "shop/web"], "{}", document["policies"]);
    let web = shop.link("web");
    let has = |list: &str, words: &str| {
        let list = document[list].as_array().unwrap();
        list.iter().any(|it| it.as_str().unwrap().contains(words))
    };
    assert!(has("links", &web) && has("routes", &format!("dev {web}")), "{document}");
    assert!(has("routes", &shop.address("web", false)) && has("rules", "lookup"), "{document}");
    let tables = document["tables"].as_array().unwrap();
    let names: Vec<&str> = tables.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["inet ferrule", "inet ferrule-policy"]);
    for table in tables {
        let rules = table["chains"].as_array().unwrap().iter().flat_map(|it| it["rules"].as_array().unwrap());
        assert!(rules.count() > 3, "{table}");
    }
    assert_eq!(tables[0]["sets"]["pods"], 2);
    assert_eq!(document["sysctls"]["net.ipv4.ip_forward"], "1");
}
