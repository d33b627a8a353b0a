//! Other people's firewalls between the pods of two nodes: named, and accepted where the conf says so.

mod accept;
mod find;
mod legacy;
mod node;

use std::process::Command;

use serde_json::{Value, json};

use crate::cli::{document, install};
use kit::netns::Namespace;
use kit::node::Node;
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of};
use kit::underlay::Underlay;

/// Two nodes with a pod each. What is done to a firewall is done on the first.
struct World {
    underlay: Underlay,
    pods: Vec<Pod>,
    /// The address of each family, of each pod.
    addresses: Vec<Vec<String>>,
}

impl World {
    /// Nobody has a firewall yet, and the pods reach each other.
    fn new() -> Self {
        let underlay = Underlay::new(2);
        let pods: Vec<Pod> = ["one", "other"].map(Pod::new).into();
        let confs: Vec<Value> = (0..2).map(|n| conf(&underlay.nodes[n], n)).collect();
        let results = underlay.nodes.iter().zip(&pods).zip(&confs);
        let addresses = results.map(|((node, pod), conf)| addresses_of(&node.add(pod, conf))).collect();
        let world = Self { underlay, pods, addresses };
        world.install(&world.conf());
        for family in 0..2 {
            for (from, to) in [(0, 1), (1, 0)] {
                assert!(answers_ping(world.pods[from].namespace(), &world.addresses[to][family]));
            }
        }
        world
    }

    fn node(&self) -> &Node {
        &self.underlay.nodes[0]
    }

    /// The first node's conf.
    fn conf(&self) -> Value {
        conf(self.node(), 0)
    }

    /// The same with `forwardAccept`.
    fn accepting(&self) -> Value {
        let mut conf = self.conf();
        conf["forwardAccept"] = json!(true);
        conf
    }

    fn install(&self, conf: &Value) {
        install(self.node(), "10-ferrule.conflist", conf);
    }

    /// Which families' packets come through, from either pod to the other: "4", "6".
    fn passing(&self) -> String {
        let passes = |from: usize, to: usize, family: usize| {
            ping_soon(self.pods[from].namespace(), &self.addresses[to][family])
        };
        let both = |family: usize| {
            let there = passes(0, 1, family);
            // The answer of one is let pass by what lets the question of the other pass.
            assert_eq!(there, passes(1, 0, family), "in one direction only");
            there
        };
        [(0, "4"), (1, "6")].into_iter().filter(|(family, _)| both(*family)).map(|(_, name)| name).collect()
    }

    /// The doctor's findings about firewalls.
    fn findings(&self) -> Vec<Value> {
        let answer = crate::cli::verb(self.node(), "doctor --output json").run();
        let mut findings = answer.document().unwrap()["findings"].as_array().unwrap().clone();
        findings.retain(|finding| finding["id"].as_str().unwrap().starts_with("forward-"));
        findings
    }

    /// The one finding, which must be a warning that contains the words.
    fn expect_one(&self, words: &[&str]) {
        let findings = self.findings();
        let of =
            |key: &str| findings.iter().map(|it| it[key].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(
            (of("id"), of("severity")),
            (vec!["forward-drops".into()], vec!["warning".into()]),
            "{findings:#?}"
        );
        for word in words {
            assert!(findings[0].to_string().contains(word), "{word}: {}", findings[0]);
        }
    }

    /// `ferrulectl sync`; what it did to the one network.
    fn sync(&self) -> Value {
        document(self.node(), "sync", 0)["networks"][0].clone()
    }

    /// Runs a program on the first node.
    fn run(&self, line: &str) -> String {
        run(self.node().namespace(), line)
    }

    /// What all tables of others have, without counters and without handles.
    fn ruleset(&self) -> String {
        let whole = self.run("nft -s list ruleset");
        let mut tables = Vec::new();
        for line in whole.lines() {
            if line.starts_with("table ") {
                tables.push(String::new());
            }
            if let Some(table) = tables.last_mut() {
                table.push_str(line);
                table.push('\n');
            }
        }
        tables.retain(|table| !table.starts_with("table inet ferrule "));
        tables.concat()
    }
}

/// The conf of node `n`, which knows the other one.
pub fn conf(node: &Node, n: usize) -> Value {
    let other = 1 - n;
    json!({
        "cniVersion": "1.1.0",
        "name": "podnet",
        "type": "ferrule",
        "ipam": {
            "type": "ferrule",
            "ranges": [[{ "subnet": format!("10.244.{n}.0/24") }], [{ "subnet": format!("fd00:244:{n}::/64") }]],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            "dataDir": node.data_dir(),
        },
        "peers": [{
            "node": format!("node-{other}"),
            "podCIDRs": [format!("10.244.{other}.0/24"), format!("fd00:244:{other}::/64")],
            "nodeIPs": [format!("192.168.77.1{other}"), format!("fd77::1{other}")],
        }],
    })
}

/// One echo request, whose answer comes at once or never.
fn ping_soon(from: &Namespace, to: &str) -> bool {
    let net = format!("--net={}", from.path().display());
    let ping = Command::new("nsenter").args([&net, "ping", "-n", "-q", "-c", "1", "-W", "1", to]).output();
    ping.unwrap().status.success()
}

/// Runs a program by a shell in a namespace; it must succeed.
fn run(namespace: &Namespace, line: &str) -> String {
    let net = format!("--net={}", namespace.path().display());
    let output = Command::new("nsenter").args([&net, "sh", "-ec", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `iptables-save` and the like print, without the times and counts in it.
fn without_counts(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(" [").next().unwrap().to_owned() + "\n").collect()
}
