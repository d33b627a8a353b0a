//! The hostPorts that a node has must not slow the next pod.

use crate::contender::{Contender, FERRULE, PORTMAP, ferrule_conf};
use crate::lab::Lab;
use crate::report::{Report, Samples, Table};
use crate::{Effort, Failure};
use kit::netns::inside;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// What each pod has that is there before.
const PORTS_PER_POD: usize = 10;
/// Out of the way of those that are measured.
const FIRST_PORT: usize = 50_000;

/// A node, and how fast the next pod has its hostPort there.
struct Node {
    namespace: PathBuf,
    contender: Contender,
    ports: usize,
    adds: Samples,
    dels: Samples,
}

/// Fills "hostPorts" of the report.
pub fn measure(lab: &Lab, effort: &Effort, report: &mut Report) -> Result<(), Failure> {
    let mut nodes = Vec::new();
    for (pods, second) in [(0, 214), (effort.serving, 215)] {
        let mut conf = ferrule_conf(lab, "benchports", "10.213.0.0/16", "fd00:10:213::/64");
        conf["ipam"]["dataDir"] = json!(lab.data_dir(&format!("{FERRULE}-ports-{pods}")));
        for contender in [Contender::ferrule(lab, &conf).served(), Contender::portmap(lab, second)] {
            eprintln!("{}: {} hostPorts", contender.name, pods * PORTS_PER_POD);
            nodes.push(Node::new(lab, contender, pods)?);
        }
    }
    eprintln!("the next hostPort: {} rounds", effort.calls);
    for _ in 0..effort.calls {
        for node in &mut nodes {
            node.add_and_delete(lab)?;
        }
    }

    let name = |contender: &str, ports: usize| format!("{contender}, {ports} there");
    let references = [name(FERRULE, 0), name(PORTMAP, 0)];
    let references = references.each_ref().map(String::as_str);
    let mut adds = Table::new("ADD with masquerade and a hostPort, by hostPorts on the node", &references);
    let mut dels = Table::new("DEL with masquerade and a hostPort, by hostPorts on the node", &references);
    for node in &nodes {
        adds.row(&name(node.contender.name, node.ports), &node.adds);
        dels.row(&name(node.contender.name, node.ports), &node.dels);
    }
    report.measured("ADD at 1000 hostPorts", adds.ratio(&name(FERRULE, 1_000), references[0]));
    report.show(adds);
    report.show(dels);
    Ok(())
}

impl Node {
    fn new(lab: &Lab, contender: Contender, pods: usize) -> Result<Node, Failure> {
        let namespace = lab.make_netns(&format!("node-{pods}-{}", contender.name))?;
        inside(&namespace, || {
            lab.set_up_node()?;
            contender.works(lab)?;
            for pod in 0..pods {
                let first = FIRST_PORT + pod * PORTS_PER_POD;
                contender.add_with_ports(&lab.make_pod()?, first..first + PORTS_PER_POD).run()?;
            }
            Ok::<_, Failure>(())
        })?;
        let (adds, dels) = (Samples::default(), Samples::default());
        Ok(Node { namespace, contender, ports: pods * PORTS_PER_POD, adds, dels })
    }

    fn add_and_delete(&mut self, lab: &Lab) -> Result<(), Failure> {
        let pod = lab.make_pod()?;
        let measured: Result<(Duration, Duration), Failure> = inside(&self.namespace, || {
            lab.settle(1);
            let add = self.contender.add(&pod).run()?.elapsed;
            lab.settle(1);
            Ok((add, self.contender.del(&pod).run()?.elapsed))
        });
        let (add, del) = measured?;
        lab.end_pods(&[pod])?;
        self.adds.push(add);
        self.dels.push(del);
        Ok(())
    }
}
