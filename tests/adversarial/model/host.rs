//! The subject: the built binary on a node, with real namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::disk::Disk;
use super::kernel::{self, Attached};
use super::law::{Answer, Held, Life, Seen};
use super::play::Subject;
use super::step::{Command, Conf, Pod};
use kit::answer::Answer as Said;
use kit::call::{Call, Running};
use kit::files::names_in;
use kit::ip;
use kit::netns::Namespace;
use kit::node::{Node, SUBNET_V4, SUBNET_V6};
use kit::packets::answers_ping;
use kit::pod::addresses_of;
use kit::process::expect;

/// Up to more than an ADD makes of [`CHANGES`], so that some come to their end.
pub const KILLS: u16 = 70;

/// The system calls before which a command may be killed: all that change files, and every message to the kernel.
const CHANGES: &str = "mkdirat,linkat,renameat,unlinkat,write,pwrite64,sendto,sendmsg,flock";

/// A node, its pods, and what their runtime remembers.
pub struct Host {
    node: Node,
    conf: Conf,
    boots: u32,
    sandboxes: BTreeMap<Pod, Sandbox>,
    /// Those that stood after the last step.
    whole: BTreeSet<Pod>,
}

/// A pod, as its runtime has it.
struct Sandbox {
    /// Its guard; the namespace itself comes and goes.
    namespace: Namespace,
    /// The conf of the ADD that made what there is.
    conf: Conf,
    /// What that one said. An ADD that was killed may have said nothing.
    result: Option<Value>,
}

impl Host {
    pub fn new() -> Self {
        let (sandboxes, whole) = (BTreeMap::new(), BTreeSet::new());
        let host = Self { node: Node::new(), conf: Conf::FIRST, boots: 0, sandboxes, whole };
        host.write_boot_id();
        host
    }

    fn boot_id(&self) -> String {
        format!("00000000-0000-0000-0000-{:012}", self.boots)
    }

    fn boot_id_file(&self) -> PathBuf {
        self.node.scratch().path().join("boot_id")
    }

    fn write_boot_id(&self) {
        fs::write(self.boot_id_file(), self.boot_id() + "\n").unwrap();
    }

    /// The conf, as it is for one pod: some have a port of the node.
    fn conf_for(&self, pod: Pod, conf: Conf) -> Value {
        let mut json = self.node.conf_with(ranges(conf));
        json["mtu"] = json!(conf.mtu);
        json["ipMasq"] = json!(true);
        if conf.has_route {
            let routes = json["ipam"]["routes"].as_array_mut().unwrap();
            routes.push(json!({ "dst": kernel::ONE_MORE_ROUTE }));
        }
        if let Some(port) = kernel::host_port(pod) {
            json["runtimeConfig"] = json!({ "portMappings": [{ "hostPort": port, "containerPort": 80 }] });
        }
        json
    }

    /// An ADD is called with a namespace: made, if the pod has none.
    fn unshare(&mut self, command: &Command) {
        let Command::Add(pod) = command else { return };
        let conf = self.conf;
        let sandbox = self.sandboxes.entry(*pod).or_insert_with(|| {
            let namespace = Namespace::new(&format!("pod-{pod}"));
            Sandbox { namespace, conf, result: None }
        });
        if !self.whole.contains(pod) {
            (sandbox.conf, sandbox.result) = (conf, None);
        }
        if !sandbox.namespace.path().exists() {
            netns("add", &sandbox.namespace);
        }
    }

    /// The conf that a command is given.
    fn conf_of(&self, command: &Command) -> Value {
        match command {
            Command::Add(pod) | Command::Del(pod) => self.conf_for(*pod, self.conf),
            Command::Check(pod) => {
                let nothing = json!({ "cniVersion": "1.1.0", "interfaces": [], "ips": [], "routes": [] });
                let sandbox = self.sandboxes.get(pod);
                let mut conf = self.conf_for(*pod, sandbox.map_or(self.conf, |it| it.conf));
                conf["prevResult"] = sandbox.and_then(|it| it.result.clone()).unwrap_or(nothing);
                conf
            }
            Command::Gc(valid) => {
                let mut conf = self.node.conf_with(ranges(self.conf));
                let attachment =
                    |pod: &Pod| json!({ "containerID": kernel::container(*pod), "ifname": "eth0" });
                conf["cni.dev/valid-attachments"] = valid.iter().map(attachment).collect();
                conf
            }
        }
    }

    /// The command as its runtime calls it, in a world where this is the boot.
    fn call(&self, command: &Command) -> Call {
        let (name, pod) = match command {
            Command::Add(pod) => ("ADD", Some(*pod)),
            Command::Del(pod) => ("DEL", Some(*pod)),
            Command::Check(pod) => ("CHECK", Some(*pod)),
            Command::Gc(_) => ("GC", None),
        };
        let mount = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        let boot_id = self.boot_id_file();
        let wrapper = ["unshare", "--mount", "sh", "-c", mount, boot_id.to_str().unwrap()];
        let call = self.node.call(name, &self.conf_of(command)).through(wrapper);
        let Some(pod) = pod else { return call };
        let sandbox = self.sandboxes.get(&pod).map(|it| it.namespace.path());
        call.attachment(&kernel::container(pod), sandbox.unwrap_or(Path::new("/run/netns/ferrule-nowhere")))
    }

    /// What the runtime makes of an answer.
    fn take(&mut self, command: &Command, said: &Said) -> Answer {
        let Some(document) = said.document() else {
            assert!(said.status.success(), "{command}: {said:?}");
            return Answer::Done;
        };
        if !said.status.success() {
            return Answer::Refused(
                said.failure(document["code"].as_u64().expect("a code"))["code"].as_u64().unwrap(),
            );
        }
        let addresses: Vec<String> = addresses_of(&document);
        if let Command::Add(pod) = command {
            let sandbox = self.sandboxes.get_mut(pod).unwrap();
            (sandbox.conf, sandbox.result) = (self.conf, Some(document));
        }
        Answer::Given(addresses.iter().map(|address| address.parse().unwrap()).collect())
    }
}

impl Subject for Host {
    fn run(&mut self, command: &Command) -> Answer {
        self.unshare(command);
        let said = self.call(command).run();
        let answer = self.take(command, &said);
        if let Answer::Given(addresses) = &answer {
            for address in addresses {
                assert!(
                    answers_ping(self.node.namespace(), &address.to_string()),
                    "{command}: {address} is silent"
                );
            }
        }
        answer
    }

    fn kill(&mut self, command: &Command, at: u16) -> Option<Answer> {
        self.unshare(command);
        let inject = format!("inject={CHANGES}:signal=KILL:when={}", at + 1);
        let trace = format!("trace={CHANGES}");
        let said = self
            .call(command)
            .through(["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject])
            .spawn()
            .wait_for_any_end();
        match said.status.signal() {
            None => Some(self.take(command, &said)),
            // The runtime may have read an answer before.
            Some(9) => {
                if said.stdout.ends_with(b"}\n") {
                    self.take(command, &Said { status: Default::default(), ..said });
                }
                None
            }
            Some(_) => panic!("{command}: {said:?}"),
        }
    }

    fn run_at_once(&mut self, commands: &[Command]) -> Vec<Answer> {
        commands.iter().for_each(|command| self.unshare(command));
        let start = |command| (self.call(command).silent_stdin().spawn(), self.conf_of(command));
        let mut running: Vec<(Running, Value)> = commands.iter().map(start).collect();
        // All of them stand before their conf by now.
        running.iter_mut().for_each(|(one, conf)| one.send_conf(conf));
        let said: Vec<Said> = running.into_iter().map(|(one, _)| one.wait()).collect();
        commands.iter().zip(&said).map(|(command, said)| self.take(command, said)).collect()
    }

    fn die(&mut self, pod: Pod) {
        let Some(sandbox) = self.sandboxes.get(&pod).filter(|it| it.namespace.path().exists()) else {
            return;
        };
        netns("delete", &sandbox.namespace);
        // The kernel takes it down in its own time, and the node's end goes with it.
        let disk = Disk::read(self.node.store().path()).unwrap();
        if let Some(record) = disk.records.get(&kernel::container(pod)) {
            self.node.wait_for_end(&record.host_link);
        }
    }

    fn unplug(&mut self, pod: Pod) {
        let disk = Disk::read(self.node.store().path()).unwrap();
        let Some(record) = disk.records.get(&kernel::container(pod)) else { return };
        if ip::link(self.node.namespace(), &record.host_link).is_some() {
            self.node.namespace().ip(&format!("link delete {}", record.host_link));
        }
    }

    fn reboot(&mut self) {
        for sandbox in self.sandboxes.values().filter(|it| it.namespace.path().exists()) {
            netns("delete", &sandbox.namespace);
        }
        kernel::forget(&self.node);
        self.boots += 1;
        self.write_boot_id();
    }

    fn reconfigure(&mut self, conf: Conf) {
        self.conf = conf;
    }

    fn wait(&mut self, seconds: u64) {
        let store = self.node.store();
        store.rewrite_records(|record| {
            record["created"] = json!(record["created"].as_u64().unwrap() - seconds)
        });
        // An address rests in a directory named by the half minute in which it was freed. The oldest moves first.
        let buckets = store.path().join("cooldown");
        for bucket in names_in(&buckets) {
            let earlier = bucket.parse::<u64>().unwrap() - seconds / 30;
            fs::rename(buckets.join(&bucket), buckets.join(earlier.to_string())).unwrap();
        }
    }

    fn look(&mut self) -> Result<Seen, String> {
        let mut disk = Disk::read(self.node.store().path())?;
        let is_of_this_boot = disk.boot.as_ref().is_none_or(|boot| *boot == self.boot_id());
        if !is_of_this_boot {
            disk.records.clear();
        }
        let links = ip::links(self.node.namespace());
        let mut pods = BTreeMap::new();
        let mut attached = Vec::new();
        for pod in Pod::all() {
            let sandbox = self.sandboxes.get(&pod);
            let namespace = sandbox.map(|it| &it.namespace).filter(|it| it.path().exists());
            let Some(record) = disk.records.remove(&kernel::container(pod)) else {
                kernel::is_bare(pod, namespace)?;
                continue;
            };
            let inode = namespace.map(|it| fs::metadata(it.path()).unwrap().ino());
            let life = match inode == Some(record.netns) {
                true if kernel::is_whole(&links, &record.host_link, pod) => Life::Whole,
                true => Life::Unfinished,
                false => Life::Dead,
            };
            let held = Held { addresses: record.addresses, life };
            attached.push(Attached { pod, held: held.clone(), host_link: record.host_link });
            if life == Life::Whole {
                let sandbox = sandbox.expect("a pod that stands was added");
                kernel::is_as_told(pod, &sandbox.namespace, sandbox.conf, sandbox.result.as_ref())?;
            }
            pods.insert(pod, held);
        }
        self.whole = pods.iter().filter(|(_, held)| held.life == Life::Whole).map(|(pod, _)| *pod).collect();
        kernel::has_these_alone(self.node.namespace(), &links, &attached)?;
        Ok(Seen { pods, is_of_this_boot, left: disk.left })
    }
}

fn ranges(conf: Conf) -> Value {
    let range = |subnet, (first, last)| json!([{ "subnet": subnet, "rangeStart": first, "rangeEnd": last }]);
    let [four, six] = conf.bounds();
    json!([range(SUBNET_V4, four), range(SUBNET_V6, six)])
}

fn netns(verb: &str, namespace: &Namespace) {
    expect("ip", &["netns", verb, namespace.name()]);
}
