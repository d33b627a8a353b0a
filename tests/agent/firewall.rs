//! docker's FORWARD policy of DROP (field note P5): the agent inserts accept rules, and keeps them there.

use serde_json::{Value, json};

use super::node::{AgentNode, other};
use kit::call::Call;
use kit::files::Scratch;
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of};

/// A node with an agent, a second node of the plugin alone, and a pod on each.
struct World {
    node: AgentNode,
    pods: [Pod; 2],
    /// The addresses of the second node's pod.
    addresses: Vec<String>,
    _scratch: Scratch,
}

impl World {
    fn new(role: &str, words: &[&str]) -> Self {
        let mut node = AgentNode::new(role);
        node.words = words.iter().map(|&word| word.to_owned()).collect();
        node.api.put(other(11));
        // Before the agent begins, as docker does at boot.
        iptables(&node, "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
        node.others
            .ip_batch("address add 192.0.2.11/24 dev eth0\naddress add fd00:aa::11/64 dev eth0 nodad\n");
        node.start_ready();
        node.wait_for_routes_to(&[11]);
        let scratch = Scratch::new("second");
        let conf = json!({
            "cniVersion": "1.1.0", "name": "podnet", "type": "ferrule",
            "ipam": {
                "type": "ferrule", "dataDir": scratch.path(),
                "ranges": [[{ "subnet": "10.244.11.0/24" }], [{ "subnet": "fd00:10:11::/64" }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
            "peers": [{
                "node": "node-a", "podCIDRs": ["10.244.1.0/24", "fd00:10:1::/64"],
                "nodeIPs": ["192.0.2.10", "fd00:aa::10"],
            }],
        });
        let pods = ["first", "second"].map(Pod::new);
        let add = |on, conf: &Value, pod: &Pod| {
            Call::ferrule("ADD")
                .on(on)
                .conf(conf)
                .attachment(pod.container(), pod.namespace().path())
                .run()
                .result()
        };
        add(&node.namespace, &node.conf(), &pods[0]);
        let addresses = addresses_of(&add(&node.others, &conf, &pods[1]));
        Self { node, pods, addresses, _scratch: scratch }
    }

    /// Whether the first pod reaches the second, by IPv4 and IPv6.
    fn pods_reach_each_other(&self) -> bool {
        self.addresses.iter().all(|address| answers_ping(self.pods[0].namespace(), address))
    }

    fn rules(&self) -> String {
        iptables(&self.node, "iptables -S FORWARD; ip6tables -S FORWARD")
    }

    fn status_is_ok(&self) {
        Call::ferrule("STATUS").on(&self.node.namespace).conf(&self.node.conf()).run().success();
    }

    /// The doctor's warnings about firewalls; it must not fail for them.
    fn warnings(&self) -> Vec<Value> {
        let call = Call::ferrulectl("doctor --output json").on(&self.node.namespace);
        let call = call.argument("--conf-dir").argument(self.node.path("net.d"));
        let answer = call.argument("--data-dir").argument(self.node.path("data")).run();
        let findings = answer.document().unwrap()["findings"].as_array().unwrap().clone();
        let is_error = findings.iter().any(|it| it["severity"] == "error");
        assert_eq!(answer.status.code(), Some(i32::from(is_error)), "{findings:#?}");
        findings.into_iter().filter(|it| it["id"] == "forward-drops" && it["severity"] == "warning").collect()
    }
}

fn iptables(node: &AgentNode, line: &str) -> String {
    let net = format!("--net={}", node.namespace.path().display());
    let run = std::process::Command::new("nsenter").args([&net, "sh", "-ec", line]).output().unwrap();
    assert!(run.status.success(), "{line}: {run:?}");
    String::from_utf8(run.stdout).unwrap()
}

const METRIC: &str = "ferrule_forward_drop_chains{family=\"ip\",table=\"filter\",chain=\"FORWARD\"}";

#[test]
fn auto_inserts_accept_rules_and_puts_them_back() {
    let world = World::new("docker", &[]);
    assert!(world.pods_reach_each_other(), "{}", world.rules());
    world.status_is_ok();
    assert_eq!(world.warnings(), Vec::<Value>::new());
    assert_eq!(world.node.metric(METRIC), None);
    let stand = || world.rules().matches("ferrule: podnet").count() == 4;
    assert!(stand(), "{}", world.rules());
    iptables(&world.node, "iptables -F FORWARD; ip6tables -F FORWARD");
    world.node.wait("the rules after a flush", stand);
    // docker starts: its chain comes first from then on, and the rules of IPv4 move there.
    iptables(
        &world.node,
        "iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -I FORWARD -j DOCKER-USER",
    );
    world.node.wait("the rules in DOCKER-USER", || {
        let rules = iptables(&world.node, "iptables -S DOCKER-USER; iptables -S FORWARD");
        rules.matches("-A DOCKER-USER -s 10.244.1.0/24 ").count() == 1
            && rules.matches("ferrule: podnet").count() == 2
    });
    assert!(world.pods_reach_each_other());
    // Uninstalled, docker's rules are as docker made them.
    let World { mut node, .. } = world;
    node.end(rustix::process::Signal::TERM);
    assert!(node.uninstall(&["--yes-pods-lose-their-network"]));
    let left = iptables(&node, "iptables -S FORWARD; iptables -S DOCKER-USER; ip6tables -S FORWARD");
    assert!(!left.contains("ferrule") && left.contains("-A FORWARD -j DOCKER-USER"), "{left}");
}

#[test]
fn off_reports_and_changes_nothing() {
    let world = World::new("off", &["--forward-accept", "off"]);
    assert_eq!(world.rules(), "-P FORWARD DROP\n-P FORWARD DROP\n");
    assert!(!world.pods_reach_each_other());
    world.status_is_ok();
    let warnings = world.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(warnings[0].to_string().contains("FERRULE_FORWARD_ACCEPT=auto"), "{warnings:#?}");
    world.node.wait("the metric", || world.node.metric(METRIC) == Some(1.0));
    assert!(world.node.log().contains("firewall may drop forwarded packets"));
    iptables(&world.node, "iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT");
    world.node.wait("the metric to go", || world.node.metric(METRIC).is_none());
    assert!(world.pods_reach_each_other());
}
