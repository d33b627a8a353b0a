//! What doctor says of policies, one thing at a time.

use std::fs;
use std::process::Child;

use serde_json::{Value, json};

use super::{Shop, policy, verb};

/// The findings of policies: id and severity, with the whole.
fn findings(shop: &Shop) -> Vec<Value> {
    let answer = verb(&shop.node, "doctor --output json").run();
    let findings = answer.document().expect("a document")["findings"].as_array().unwrap().clone();
    for finding in &findings {
        for field in ["id", "severity", "found", "cause", "remedy"] {
            assert!(finding[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {finding}");
        }
    }
    let of_policies = |it: &Value| {
        ["polic", "pods-held", "egress"].iter().any(|word| it["id"].as_str().unwrap().starts_with(word))
    };
    findings.into_iter().filter(of_policies).collect()
}

fn ids(findings: &[Value]) -> Vec<&str> {
    findings.iter().map(|it| it["id"].as_str().unwrap()).collect()
}

fn expect(shop: &Shop, id: &str, severity: &str, words: &[&str]) {
    let findings = findings(shop);
    assert_eq!(ids(&findings), [id], "{findings:#?}");
    assert_eq!(findings[0]["severity"], severity);
    for word in words {
        assert!(findings[0].to_string().contains(word), "{word}: {}", findings[0]);
    }
}

/// A process that is the agent's by its name.
struct Agent(Child);

impl Agent {
    fn start(shop: &Shop) -> Self {
        let program = shop.node.scratch().path().join("ferruled");
        fs::copy("/usr/bin/sleep", &program).unwrap();
        let mut command = shop.node.namespace().command(&program);
        let agent = Self(command.arg("300").spawn().unwrap());
        // Until it is what it is called.
        let comm = format!("[ \"$(cat /proc/{}/comm)\" = ferruled ]", agent.0.id());
        shop.node.namespace().wait_until(&comm);
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn allowing_all() -> Value {
    json!({ "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}] })
}

#[test]
fn policies_that_are_well_are_no_finding() {
    let shop = Shop::new(&["web", "client"]);
    assert_eq!(findings(&shop), Vec::<Value>::new(), "without policies");
    let _agent = Agent::start(&shop);
    shop.enforce(&shop.objects(&json!([policy("web", "web", &allowing_all())]), &[]));
    assert_eq!(findings(&shop), Vec::<Value>::new());
    let before = kit::files::listing(&shop.node.data_dir());
    assert_eq!(findings(&shop), Vec::<Value>::new());
    assert_eq!(kit::files::listing(&shop.node.data_dir()), before);
}

#[test]
fn policies_that_miss_their_aim_are_found() {
    let shop = Shop::new(&["web", "client"]);
    let _agent = Agent::start(&shop);
    let enforce = |name: &str, app: &str, spec: &Value| {
        shop.enforce(&shop.objects(&json!([policy(name, app, spec)]), &[]));
    };
    enforce("typo", "wbe", &allowing_all());
    expect(&shop, "policy-selects-nobody", "warning", &["shop/typo", "spec.podSelector"]);
    enforce("wrong", "web", &json!({ "ingress": [{ "peers": [{ "ipBlock": { "cidr": "10.0.0.0/33" } }] }] }));
    expect(&shop, "policy-invalid", "error", &["shop/wrong", "spec.ingress[0].from[0].ipBlock.cidr"]);
    enforce(
        "out",
        "client",
        &json!({ "policyTypes": ["Egress"], "egress": [{ "ports": [{ "port": 443 }] }] }),
    );
    expect(&shop, "egress-without-dns", "warning", &["shop/client (policies shop/out)", "53/UDP"]);
    let dns = json!({ "policyTypes": ["Egress"], "egress": [
        { "peers": [{ "podSelector": { "matchLabels": { "app": "dns" } } }], "ports": [{ "protocol": "UDP", "port": 53 }] }] });
    enforce("out", "client", &dns);
    assert_eq!(findings(&shop), Vec::<Value>::new());
    shop.node.namespace().ip("link add nodelocaldns type veth peer name nodelocal0");
    shop.node.namespace().ip("address add 169.254.20.10/32 dev nodelocaldns");
    expect(&shop, "egress-without-local-dns", "warning", &["shop/client", "ipBlock 169.254.20.10/32"]);
}

/// What IPVS does cannot be seen here, for want of it in the kernel: a link of that name says that kube-proxy uses it.
#[test]
fn a_proxy_that_leads_packets_past_policies_is_named() {
    let shop = Shop::new(&["web"]);
    let node = shop.node.namespace();
    node.ip("link add kube-ipvs0 type bridge");
    assert_eq!(findings(&shop), Vec::<Value>::new(), "there are no policies");
    let _agent = Agent::start(&shop);
    drop(shop.enforce(&shop.objects(&json!([policy("web", "web", &allowing_all())]), &[])));
    expect(&shop, "policy-ipvs", "error", &["ingress policies", "nftables or iptables"]);
    node.ip("link delete kube-ipvs0");
    assert_eq!(findings(&shop), Vec::<Value>::new());
}

#[test]
fn a_table_that_was_changed_is_found() {
    let shop = Shop::new(&["web", "client"]);
    let objects = shop.objects(&json!([policy("web", "web", &allowing_all())]), &[]);
    let enforce = || drop(shop.enforce(&objects));
    enforce();
    expect(&shop, "policy-agent-down", "warning", &["no ferruled runs"]);
    let _agent = Agent::start(&shop);
    let plan = shop.enforce(&objects);
    let chain = plan.chains.keys().next().unwrap();
    shop.nft(&format!("insert rule inet ferrule-policy {chain} tcp dport 80 accept"));
    expect(&shop, "policy-table-differs", "error", &[chain]);
    enforce();
    shop.nft(&format!("delete element inet ferrule-policy to_pod {{ \"{}\" }}", shop.link("web")));
    expect(&shop, "policy-table-differs", "error", &["nothing leads packets of shop/web to chain in-"]);
    enforce();
    let untold = "no rule allows it, and this kernel has no log";
    for chain in ["denied_in", "denied_out"] {
        shop.nft(&format!("flush chain inet ferrule-policy {chain}"));
        shop.nft(&format!("add rule inet ferrule-policy {chain} counter drop comment \"{untold}\""));
    }
    expect(&shop, "policy-log-missing", "warning", &["nobody is told"]);
    shop.nft("delete table inet ferrule-policy");
    expect(&shop, "policy-table-differs", "error", &["there is no table inet ferrule-policy"]);
    enforce();
    assert_eq!(findings(&shop), Vec::<Value>::new());
    fs::remove_file(shop.file("policy-objects")).unwrap();
    expect(&shop, "policy-objects-stale", "warning", &["podnet", "step=policy_objects"]);
    enforce();
    fs::write(shop.file("policy"), "torn").unwrap();
    expect(&shop, "policy-file-unreadable", "error", &["no plan of policies"]);
}

#[test]
fn pods_in_the_hold_are_found() {
    let mut shop = Shop::new(&["web"]);
    shop.enforce(&shop.objects(&json!([policy("web", "web", &allowing_all())]), &[]));
    shop.add("late");
    let found = findings(&shop);
    assert_eq!(ids(&found), ["policy-agent-down", "pods-held"], "{found:#?}");
    assert!(found.iter().all(|it| it["severity"] == "error"), "{found:#?}");
    assert!(
        found[1]["found"].as_str().unwrap().starts_with("pods in the hold: shop/late for "),
        "{found:#?}"
    );
    // An agent that runs lets it go in a moment.
    let agent = Agent::start(&shop);
    assert_eq!(findings(&shop), Vec::<Value>::new());
    // And one that does not for long.
    age(&shop, "late");
    expect(&shop, "pods-held", "error", &["shop/late for 1h", "API server"]);
    drop(agent);
}

/// Makes a pod an hour old.
fn age(shop: &Shop, name: &str) {
    let path = shop.node.record_path(shop.pod(name));
    let mut record: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    record["created"] = json!(record["created"].as_u64().unwrap() - 3700);
    record.as_object_mut().unwrap().remove("sum");
    fs::write(&path, serde_json::to_string(&record).unwrap()).unwrap();
}
