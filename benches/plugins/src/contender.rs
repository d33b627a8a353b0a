//! Who is compared, and how each is asked to attach a pod and to detach it.

use crate::Failure;
use crate::invocation::Invocation;
use crate::lab::{Lab, NODE_IPS, Pod};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The subject.
pub const FERRULE: &str = "ferrule";
/// The subject with IPv4 only, as the peers have: the same job.
pub const FERRULE_V4: &str = "ferrule, IPv4 only";
/// The smallest program that makes the same objects; its DEL is the deletion of the link alone.
pub const FLOOR: &str = "floor";
/// The peers, with IPv4 only: see `Contender::all`.
pub const PTP: &str = "ptp + host-local";
const BRIDGE: &str = "bridge + host-local";
/// Both families, as ferrule and the floor have.
pub const PTP_DUAL: &str = "ptp + host-local, dual stack";

/// One of those compared.
pub struct Contender {
    /// As the report calls it.
    pub name: &'static str,
    program: Program,
}

enum Program {
    Floor(PathBuf),
    Plugin { path: PathBuf, plugins: PathBuf, conf: String },
}

impl Contender {
    /// All of them, in the order of the report.
    ///
    /// The peers have one family here: with IPv6 they wait for duplicate address detection, more than a second, and a
    /// comparison with that says nothing else any more. So ferrule is held against them with one family as well, and
    /// with both against the floor.
    pub fn all(lab: &Lab) -> Vec<Contender> {
        let v4 = |second: u8| json!([[{ "subnet": format!("10.{second}.0.0/16") }]]);
        vec![
            Contender { name: FLOOR, program: Program::Floor(lab.floor()) },
            Contender::ferrule(lab, &ferrule_conf(lab, "benchnet", "10.201.0.0/16", "fd00:10:201::/64")),
            Contender { name: FERRULE_V4, ..Contender::ferrule(lab, &ferrule_v4_conf(lab)) },
            Contender::peer(lab, PTP, "ptp", &v4(202)),
            Contender::peer(lab, BRIDGE, "bridge", &v4(203)),
        ]
    }

    /// ptp with both families.
    pub fn dual_stack_ptp(lab: &Lab) -> Contender {
        let ranges = json!([[{ "subnet": "10.205.0.0/16" }], [{ "subnet": "fd00:10:205::/64" }]]);
        Contender::peer(lab, PTP_DUAL, "ptp", &ranges)
    }

    /// ferrule with this configuration.
    pub fn ferrule(lab: &Lab, conf: &Value) -> Contender {
        let program = Program::Plugin {
            path: lab.ferrule(),
            plugins: lab.plugins().to_owned(),
            conf: conf.to_string(),
        };
        Contender { name: FERRULE, program }
    }

    fn peer(lab: &Lab, name: &'static str, plugin: &str, ranges: &Value) -> Contender {
        let mut routes = vec![json!({ "dst": "0.0.0.0/0" })];
        if ranges.as_array().is_some_and(|sets| sets.len() > 1) {
            routes.push(json!({ "dst": "::/0" }));
        }
        let conf = json!({
            "cniVersion": "1.0.0",
            "name": format!("bench-{plugin}-{}", routes.len()),
            "type": plugin,
            "bridge": "bench0",
            "isGateway": true,
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "ranges": ranges,
                "routes": routes,
                "dataDir": lab.data_dir("host-local"),
            },
        });
        let program = Program::Plugin {
            path: lab.plugin(plugin),
            plugins: lab.plugins().to_owned(),
            conf: conf.to_string(),
        };
        Contender { name, program }
    }

    /// The run that attaches the pod.
    pub fn add(&self, pod: &Pod) -> Invocation {
        self.invocation("ADD", pod)
    }

    /// The run that detaches it.
    pub fn del(&self, pod: &Pod) -> Invocation {
        self.invocation("DEL", pod)
    }

    /// Whether it can do both, once.
    pub fn works(&self, lab: &Lab) -> Result<(), Failure> {
        let pod = lab.make_pod()?;
        for (command, run, expected) in [("ADD", self.add(&pod), true), ("DEL", self.del(&pod), false)] {
            run.run()?;
            if lab.has_link(&pod)? != expected {
                return Err(format!("{command} says success, but eth0 is not as it should be then").into());
            }
        }
        Ok(())
    }

    fn invocation(&self, command: &str, pod: &Pod) -> Invocation {
        match &self.program {
            Program::Floor(path) => {
                let mut arguments = vec![command.to_lowercase()];
                if command == "ADD" {
                    arguments.push(pod.netns.display().to_string());
                }
                arguments.push(pod.number.to_string());
                Invocation::of_program(path, &arguments)
            }
            Program::Plugin { path, plugins, conf } => {
                Invocation::of_plugin(path, command, Some((&pod.container, &pod.netns)), plugins, conf)
            }
        }
    }
}

/// A configuration of ferrule with IPv4 alone.
fn ferrule_v4_conf(lab: &Lab) -> Value {
    let mut conf = ferrule_conf(lab, "benchnet4", "10.206.0.0/16", "fd00:10:206::/64");
    conf["nodeIPs"] = json!([NODE_IPS[0]]);
    conf["ipam"]["ranges"] = json!([[{ "subnet": "10.206.0.0/16" }]]);
    conf["ipam"]["routes"] = json!([{ "dst": "0.0.0.0/0" }]);
    conf
}

/// A dual-stack configuration of ferrule, with a store of its own.
pub fn ferrule_conf(lab: &Lab, network: &str, v4: &str, v6: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": network,
        "type": "ferrule",
        "nodeIPs": NODE_IPS,
        "ipam": {
            "type": "ferrule",
            "ranges": [[{ "subnet": v4 }], [{ "subnet": v6 }]],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            "dataDir": lab.data_dir("ferrule"),
        },
    })
}
