//! Who is compared, and how each is asked to attach a pod and to detach it.

use crate::Failure;
use crate::invocation::Invocation;
use crate::lab::{Lab, NODE_IPS, Pod};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::PathBuf;

/// The subject.
pub const FERRULE: &str = "ferrule";
/// The subject with IPv4 only, as the peers have: the same job.
pub const FERRULE_V4: &str = "ferrule, IPv4 only";
/// The smallest program that makes the same objects; its DEL is the deletion of the link and of what nftables has of it.
pub const FLOOR: &str = "floor";
/// The peers, with IPv4 only: see `Group::plain`.
pub const PTP: &str = "ptp + host-local";
const BRIDGE: &str = "bridge + host-local";
/// Both families, as ferrule and the floor have.
pub const PTP_DUAL: &str = "ptp + host-local, dual stack";
/// The peers for a pod with masquerade and a hostPort: two plugins, one after the other, with IPv4 only.
pub const PORTMAP: &str = "bridge + host-local + portmap";

/// Where the pods' hostPorts begin: one each, told apart by the pod's number. `benches/floor.c` has it too.
const FIRST_HOST_PORT: usize = 5_000;

/// Those that do the same job, and so are compared.
pub struct Group {
    /// What is said of the job in a title; nothing for the plain one.
    pub job: &'static str,
    /// In the order of the report. ferrule is before the floor, which fills ferrule's table.
    pub contenders: Vec<Contender>,
    /// Those whose ADD takes seconds: not in turns with the others.
    pub slow: Vec<Contender>,
    /// Who is held against whom.
    pub pairs: [(&'static str, &'static str); 2],
}

/// One of those compared.
pub struct Contender {
    /// As the report calls it.
    pub name: &'static str,
    program: Program,
    /// Whether its pods have masquerade and a hostPort.
    is_served: bool,
}

enum Program {
    Floor(PathBuf),
    /// Plugins, the next after the one before it, each with its conf.
    Plugins {
        directory: PathBuf,
        list: Vec<(PathBuf, Value)>,
    },
}

impl Group {
    /// A pod's links, addresses and routes.
    ///
    /// The peers have one family here: with IPv6 they wait for duplicate address detection, more than a second, and a
    /// comparison with that says nothing else any more. So ferrule is held against them with one family as well, and
    /// with both against the floor.
    pub fn plain(lab: &Lab) -> Group {
        let v4 = |second: u8| json!([[{ "subnet": format!("10.{second}.0.0/16") }]]);
        let both = json!([[{ "subnet": "10.205.0.0/16" }], [{ "subnet": "fd00:10:205::/64" }]]);
        let conf = ferrule_conf(lab, "benchnet", "10.201.0.0/16", "fd00:10:201::/64");
        Group {
            job: "",
            contenders: vec![
                Contender::ferrule(lab, &conf),
                Contender { name: FLOOR, program: Program::Floor(lab.floor()), is_served: false },
                Contender { name: FERRULE_V4, ..Contender::ferrule(lab, &ferrule_v4_conf(lab)) },
                Contender::peer(lab, PTP, "ptp", &v4(202)),
                Contender::peer(lab, BRIDGE, "bridge", &v4(203)),
            ],
            slow: vec![Contender::peer(lab, PTP_DUAL, "ptp", &both)],
            pairs: [(FERRULE, FLOOR), (FERRULE_V4, PTP)],
        }
    }

    /// The same with masquerade and one TCP hostPort.
    pub fn served(lab: &Lab) -> Group {
        let conf = ferrule_conf(lab, "benchserved", "10.210.0.0/16", "fd00:10:210::/64");
        let mut conf_v4 = ferrule_v4_conf(lab);
        conf_v4["name"] = json!("benchserved4");
        conf_v4["ipam"]["ranges"] = json!([[{ "subnet": "10.211.0.0/16" }]]);
        Group {
            job: " with masquerade and a hostPort",
            contenders: vec![
                Contender::ferrule(lab, &conf).served(),
                Contender { name: FLOOR, program: Program::Floor(lab.floor()), is_served: true },
                Contender { name: FERRULE_V4, ..Contender::ferrule(lab, &conf_v4).served() },
                Contender::portmap(lab, 212),
            ],
            slow: Vec::new(),
            pairs: [(FERRULE, FLOOR), (FERRULE_V4, PORTMAP)],
        }
    }
}

impl Contender {
    /// ferrule with this configuration.
    pub fn ferrule(lab: &Lab, conf: &Value) -> Contender {
        let list = vec![(lab.ferrule(), conf.clone())];
        let program = Program::Plugins { directory: lab.plugins().to_owned(), list };
        Contender { name: FERRULE, program, is_served: false }
    }

    /// The same with masquerade and a hostPort for each pod.
    pub fn served(mut self) -> Contender {
        if let Program::Plugins { list, .. } = &mut self.program {
            list.iter_mut().for_each(|(_, conf)| conf["ipMasq"] = json!(true));
        }
        self.is_served = true;
        self
    }

    /// The distribution's plugins for the same: portmap follows bridge.
    /// `second` is that byte of the pods' addresses.
    pub fn portmap(lab: &Lab, second: u8) -> Contender {
        let ranges = json!([[{ "subnet": format!("10.{second}.0.0/16") }]]);
        let network = format!("bench-portmap-{second}");
        let mut contender = Contender::peer(lab, PORTMAP, "bridge", &ranges).served();
        if let Program::Plugins { list, .. } = &mut contender.program {
            for (_, conf) in list.iter_mut() {
                conf["name"] = json!(network);
                conf["bridge"] = json!("bench1");
            }
            let conf = json!({ "cniVersion": "1.0.0", "name": network, "type": "portmap" });
            list.push((lab.plugin("portmap"), conf));
        }
        contender
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
        let list = vec![(lab.plugin(plugin), conf)];
        let program = Program::Plugins { directory: lab.plugins().to_owned(), list };
        Contender { name, program, is_served: false }
    }

    /// The run that attaches the pod.
    pub fn add(&self, pod: &Pod) -> Invocation {
        self.invocation("ADD", pod, self.ports(pod))
    }

    /// The run that detaches it.
    pub fn del(&self, pod: &Pod) -> Invocation {
        self.invocation("DEL", pod, self.ports(pod))
    }

    /// The run that attaches a pod with these hostPorts.
    pub fn add_with_ports(&self, pod: &Pod, ports: Range<usize>) -> Invocation {
        self.invocation("ADD", pod, ports)
    }

    fn ports(&self, pod: &Pod) -> Range<usize> {
        let first = FIRST_HOST_PORT + pod.number;
        first..first + usize::from(self.is_served)
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

    fn invocation(&self, command: &str, pod: &Pod, ports: Range<usize>) -> Invocation {
        match &self.program {
            Program::Floor(path) => {
                let mut arguments = vec![command.to_lowercase()];
                if command == "ADD" {
                    arguments.push(pod.netns.display().to_string());
                }
                arguments.push(pod.number.to_string());
                arguments.extend(self.is_served.then(|| "served".to_owned()));
                Invocation::of_program(path, &arguments)
            }
            Program::Plugins { directory, list } => {
                let mappings: Vec<Value> = ports
                    .map(|port| json!({ "hostPort": port, "containerPort": 80, "protocol": "tcp" }))
                    .collect();
                let mut runs: Vec<Invocation> = list
                    .iter()
                    .map(|(path, conf)| {
                        let mut conf = conf.clone();
                        if !mappings.is_empty() {
                            conf["runtimeConfig"] = json!({ "portMappings": mappings });
                        }
                        let attachment = Some((pod.container.as_str(), pod.netns.as_path()));
                        Invocation::of_plugin(path, command, attachment, directory, &conf.to_string())
                    })
                    .collect();
                // As a runtime does: in the list's order, and back. (At DEL without `prevResult`, which these do not
                // need.)
                if command == "ADD" {
                    runs.reverse();
                }
                let following = |next: Option<Invocation>, run: Invocation| match next {
                    Some(next) => Some(run.followed_by(next)),
                    None => Some(run),
                };
                runs.into_iter()
                    .fold(None, following)
                    .unwrap_or_else(|| Invocation::of_program(directory, &[]))
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
