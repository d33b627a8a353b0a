//! The policies of a full node must not slow the next pod, though the kernel looks at all jumps of the table whenever one
//! element leads to a chain.

use crate::contender::{Contender, FERRULE, ferrule_conf};
use crate::lab::{Lab, run};
use crate::report::{Report, Samples, Table};
use crate::{Effort, Failure};
use kit::netns::inside;
use serde_json::json;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// What a full node has.
const PODS: usize = 250;
const POLICIES: usize = 100;
const RULES: usize = 20;

/// Of all pods that are measured.
const ARGS: &str = "K8S_POD_NAMESPACE=bench;K8S_POD_NAME=next;K8S_POD_UID=next";

/// A node, and how fast the next pod is attached there.
struct Node {
    name: String,
    namespace: PathBuf,
    contender: Contender,
    adds: Samples,
    dels: Samples,
}

/// Fills "ADD with policies" of the report.
pub fn measure(lab: &Lab, effort: &Effort, report: &mut Report) -> Result<(), Failure> {
    eprintln!("policies: {} rounds", effort.calls);
    let without = format!("{FERRULE}, no policy");
    let with = format!("{FERRULE}, {PODS} pods, {POLICIES} policies of {RULES} rules");
    let mut nodes = [Node::new(lab, &without, "")?, Node::new(lab, &with, &table())?];
    for _ in 0..effort.calls {
        for node in &mut nodes {
            node.add_and_delete(lab)?;
        }
    }
    let mut adds = Table::new("ADD, by policies on the node", &[&without]);
    let mut dels = Table::new("DEL, by policies on the node", &[&without]);
    for node in &nodes {
        adds.row(&node.name, &node.adds);
        dels.row(&node.name, &node.dels);
    }
    let [none, full] = nodes.each_ref().map(|node| node.adds.median().as_secs_f64() * 1e3);
    report.measured("ADD with policies", Some(full - none));
    report.show(adds);
    report.show(dels);
    Ok(())
}

/// The table as an agent makes it (docs/design/policy.md), for pods that need not be there.
fn table() -> String {
    let mut text = String::from("table inet ferrule-policy {\n");
    for (set, kind) in [("own4", "ifname . ipv4_addr"), ("own6", "ifname . ipv6_addr")] {
        let _ = writeln!(text, "set {set} {{ type {kind}; flags timeout; }}");
    }
    for map in ["from_pod", "to_pod"] {
        let _ = writeln!(text, "map {map} {{ type ifname : verdict; flags timeout; }}");
    }
    text.push_str("chain denied_in { counter drop; }\nchain denied_out { counter drop; }\n");
    for policy in 0..POLICIES {
        let _ =
            writeln!(text, "set peers-{policy}-4 {{ type ipv4_addr; elements = {{ 10.9.0.{policy} }}; }}");
        for (chain, end) in [("pi", "saddr"), ("po", "daddr")] {
            let rule = format!("ip {end} @peers-{policy}-4 counter accept\n").repeat(RULES);
            let denied = if chain == "pi" { "denied_in" } else { "denied_out" };
            let _ = writeln!(text, "chain {chain}-{policy} {{\n{rule}goto {denied}\n}}");
        }
    }
    let uids = (0..PODS).map(|pod| pod.to_string()).chain(["next".to_owned()]);
    for (number, uid) in uids.enumerate() {
        let policy = number % POLICIES;
        let _ =
            writeln!(text, "chain in-{uid} {{ goto pi-{policy}; }}\nchain out-{uid} {{ goto po-{policy}; }}");
    }
    for (name, hook, priority, map) in [
        ("policy_out", "forward", 10, "iifname vmap @from_pod"),
        ("policy_node", "input", 10, "iifname vmap @from_pod"),
        ("policy_in", "forward", 11, "oifname vmap @to_pod"),
    ] {
        let _ = writeln!(
            text,
            "chain {name} {{\ntype filter hook {hook} priority {priority};\nct state established,related accept\n{map}\n}}"
        );
    }
    text.push_str("}\n");
    for pod in 0..PODS {
        let _ = writeln!(text, "add element inet ferrule-policy to_pod {{ \"there{pod}\" : goto in-{pod} }}");
        let _ =
            writeln!(text, "add element inet ferrule-policy from_pod {{ \"there{pod}\" : goto out-{pod} }}");
    }
    text
}

impl Node {
    fn new(lab: &Lab, name: &str, table: &str) -> Result<Node, Failure> {
        let kind = if table.is_empty() { "none" } else { "full" };
        let mut conf = ferrule_conf(lab, "benchpolicy", "10.216.0.0/16", "fd00:10:216::/64");
        conf["ipam"]["dataDir"] = json!(lab.data_dir(&format!("{FERRULE}-policy-{kind}")));
        let contender = Contender::ferrule(lab, &conf);
        let namespace = lab.make_netns(&format!("node-policy-{kind}"))?;
        let file = lab.data_dir(&format!("{FERRULE}-policy-{kind}.nft"));
        fs::write(&file, table)?;
        inside(&namespace, || {
            lab.set_up_node()?;
            contender.works(lab)?;
            run("nft", &["-f", &file.display().to_string()])
        })?;
        let (adds, dels) = (Samples::default(), Samples::default());
        Ok(Node { name: name.to_owned(), namespace, contender, adds, dels })
    }

    fn add_and_delete(&mut self, lab: &Lab) -> Result<(), Failure> {
        let pod = lab.make_pod()?;
        let measured: Result<(Duration, Duration), Failure> = inside(&self.namespace, || {
            lab.settle(1);
            let add = self.contender.add(&pod).with_args(ARGS).run()?.elapsed;
            lab.settle(1);
            Ok((add, self.contender.del(&pod).with_args(ARGS).run()?.elapsed))
        });
        let (add, del) = measured?;
        lab.end_pods(&[pod])?;
        self.adds.push(add);
        self.dels.push(del);
        Ok(())
    }
}
