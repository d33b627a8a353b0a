//! A node with an agent, pods that the API server and the node know, and flows that are counted.

use std::cell::Cell;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::node::AgentNode;
use crate::agent::objects::Kind;
use kit::call::Call;
use kit::netns::{Namespace, inside};
use kit::pod::{Pod, addresses_of};

/// How long an answer that comes may take, and what is sent in the meantime by others.
const PATIENT: Duration = Duration::from_millis(1500);

/// How long a client that is to be denied waits for an answer.
const BRIEF: Duration = Duration::from_millis(150);

/// Between two flows: what passes shows for how long something was open, and nobody is kept from working.
const PAUSE: Duration = Duration::from_millis(1);

/// The port that servers of pods listen on, and one that no policy here allows.
pub const PORT: u16 = 8080;

/// The node, with namespaces `shop` and `bank`.
pub struct World {
    pub node: AgentNode,
    count: Cell<u32>,
}

/// A pod of this node.
pub struct Member {
    pub pod: Pod,
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub addresses: Vec<String>,
    pub result: Value,
    _servers: Vec<Answering>,
}

impl World {
    /// A node with an agent that is ready.
    pub fn new(role: &str) -> Self {
        let mut world = Self::without_agent(role);
        world.node.start_ready();
        world
    }

    /// The same before its agent starts.
    pub fn without_agent(role: &str) -> Self {
        let node = AgentNode::new(role);
        for name in ["shop", "bank"] {
            let labels = json!({ "kubernetes.io/metadata.name": name });
            node.api.put_object(Kind::Namespace, json!({ "metadata": { "name": name, "labels": labels } }));
        }
        Self { node, count: Cell::new(0) }
    }

    /// A pod that the API server knows, that is attached, and whose addresses the API server knows by then.
    pub fn pod(&self, namespace: &str, name: &str, labels: Value) -> Member {
        let uid = self.schedule(namespace, name, labels);
        let member = self.attach(namespace, name, &uid);
        self.tell_addresses(&member);
        member
    }

    /// Puts a pod of this node, which has no address yet; its uid.
    pub fn schedule(&self, namespace: &str, name: &str, labels: Value) -> String {
        self.count.set(self.count.get() + 1);
        let uid = format!("7f4f8a66-0b4f-4f0e-8f7c-{:012}", self.count.get());
        self.node.api.put_object(Kind::Pod, described(namespace, name, &uid, "node-a", labels));
        uid
    }

    /// A pod of another node.
    pub fn elsewhere(&self, namespace: &str, name: &str, labels: Value, addresses: &[&str]) {
        self.count.set(self.count.get() + 1);
        let uid = format!("7f4f8a66-0b4f-4f0e-8f7c-{:012}", self.count.get());
        let mut object = described(namespace, name, &uid, "node-b", labels);
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        object["status"] = json!({ "phase": "Running", "podIP": addresses[0], "podIPs": ips });
        self.node.api.put_object(Kind::Pod, object);
    }

    /// Attaches it, with servers on its addresses.
    pub fn attach(&self, namespace: &str, name: &str, uid: &str) -> Member {
        self.attach_with(namespace, name, uid, &self.node.conf())
    }

    /// The same by another conf.
    pub fn attach_with(&self, namespace: &str, name: &str, uid: &str, conf: &Value) -> Member {
        let pod = Pod::new(name);
        let words =
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID={uid}");
        let call = Call::ferrule("ADD").on(&self.node.namespace).conf(conf);
        let result = call.attachment(pod.container(), pod.namespace().path()).args(&words).run().result();
        let addresses = addresses_of(&result);
        let servers = addresses.iter().map(|address| Answering::start(pod.namespace(), address, PORT));
        let servers = servers.collect();
        let (uid, namespace, name) = (uid.to_owned(), namespace.to_owned(), name.to_owned());
        Member { pod, uid, namespace, name, addresses, result, _servers: servers }
    }

    /// Detaches it, and removes it from the API server.
    pub fn remove(&self, member: Member) {
        self.call("DEL", &member.pod, "").run().success();
        self.node.api.delete_object(Kind::Pod, &member.namespace, &member.name);
    }

    fn call(&self, command: &str, pod: &Pod, words: &str) -> Call {
        let call = Call::ferrule(command).on(&self.node.namespace).conf(&self.node.conf());
        call.attachment(pod.container(), pod.namespace().path()).args(words)
    }

    pub fn tell_addresses(&self, member: &Member) {
        let ips: Vec<Value> = member.addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        self.node.api.edit_object(Kind::Pod, &member.namespace, &member.name, |object| {
            object["status"] = json!({ "phase": "Running", "podIP": member.addresses[0], "podIPs": ips });
        });
    }

    /// Has other labels.
    pub fn label(&self, namespace: &str, name: &str, labels: Value) {
        let relabel = |object: &mut Value| object["metadata"]["labels"] = labels;
        self.node.api.edit_object(Kind::Pod, namespace, name, relabel);
    }

    /// Puts a policy.
    pub fn policy(&self, namespace: &str, name: &str, spec: Value) {
        let metadata = json!({ "namespace": namespace, "name": name });
        self.node.api.put_object(Kind::Policy, json!({ "metadata": metadata, "spec": spec }));
    }

    /// Puts a ClusterNetworkPolicy.
    pub fn cluster_policy(&self, name: &str, spec: Value) {
        let object = json!({ "metadata": { "name": name }, "spec": spec });
        self.node.api.put_object(Kind::ClusterPolicy, object);
    }

    pub fn remove_cluster_policy(&self, name: &str) {
        self.node.api.delete_object(Kind::ClusterPolicy, "", name);
    }

    pub fn remove_policy(&self, namespace: &str, name: &str) {
        self.node.api.delete_object(Kind::Policy, namespace, name);
    }

    /// Waits until the traffic is so.
    pub fn expect(&self, what: &str, from: &Member, to: &Member, is_allowed: bool) {
        for address in &to.addresses {
            let what = format!("{what}: {} to {} at {address}", from.name, to.name);
            let is_so = || reaches(from.pod.namespace(), address, PORT, !is_allowed) == is_allowed;
            self.node.wait(&what, is_so);
        }
    }

    /// Whether there is a table of policies.
    pub fn has_table(&self) -> bool {
        self.node.nft("list tables").contains("inet ferrule-policy")
    }

    /// Waits until the two chains of a pod are there and led to.
    pub fn wait_for_chains(&self, member: &Member) {
        for (map, chain) in [("to_pod", "in"), ("from_pod", "out")] {
            let goto = format!("goto {chain}-{}", member.uid);
            self.node.wait(&goto, || {
                self.node.nft(&format!("list map inet ferrule-policy {map}")).contains(&goto)
            });
        }
    }
}

fn described(namespace: &str, name: &str, uid: &str, node: &str, labels: Value) -> Value {
    json!({
        "metadata": { "namespace": namespace, "name": name, "uid": uid, "labels": labels,
            "managedFields": [{ "manager": "kubelet", "fieldsType": "FieldsV1", "fieldsV1": { "f:status": {} } }] },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "registry.example/x",
            "ports": [{ "name": "web", "containerPort": PORT, "protocol": "UDP" }] }] },
        "status": { "phase": "Pending" },
    })
}

/// Whether a new flow by UDP is answered. Of one that should not be the wait is brief.
pub fn reaches(from: &Namespace, to: &str, port: u16, is_brief: bool) -> bool {
    let any = if to.contains(':') { "::" } else { "0.0.0.0" };
    inside(from, || {
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(if is_brief { BRIEF } else { PATIENT })).unwrap();
        socket.send_to(b"?", (to, port)).is_ok() && socket.recv(&mut [0; 64]).is_ok()
    })
}

/// A thread that works in a namespace until its guard is dropped.
pub struct Worker {
    wanted: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub fn start(namespace: &Namespace, work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let wanted = Arc::new(AtomicBool::new(true));
        let (shared, path) = (Arc::clone(&wanted), namespace.path().to_owned());
        let thread = std::thread::spawn(move || inside::<()>(Path::new(&path), || work(&shared)));
        Self { wanted, thread: Some(thread) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers each packet by UDP, and counts them.
pub struct Answering {
    _worker: Worker,
}

impl Answering {
    pub fn start(namespace: &Namespace, address: &str, port: u16) -> Self {
        let address = address.to_owned();
        let socket = inside(namespace, || UdpSocket::bind((address.as_str(), port)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let worker = Worker::start(namespace, move |wanted| {
            while wanted.load(Ordering::Relaxed) {
                if let Ok((_, client)) = socket.recv_from(&mut [0; 64]) {
                    let _ = socket.send_to(format!("{} pod", client.ip()).as_bytes(), client);
                }
            }
        });
        Self { _worker: worker }
    }
}

/// New flows by UDP, one after another.
pub struct Flows {
    worker: Option<Worker>,
    begun: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
}

impl Flows {
    /// To a port of an address. Of flows that are to be denied several wait for their answers at once.
    pub fn start(from: &Namespace, to: &str, port: u16, are_allowed: bool) -> Self {
        let (begun, answered) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (shared, to) = ((Arc::clone(&begun), Arc::clone(&answered)), to.to_owned());
        let any = if to.contains(':') { "::" } else { "0.0.0.0" };
        let worker = Worker::start(from, move |wanted| {
            let mut open: Vec<UdpSocket> = Vec::new();
            let answer = |socket: &UdpSocket, patience| {
                socket.set_read_timeout(Some(patience)).unwrap();
                if socket.recv(&mut [0; 64]).is_ok() {
                    shared.1.fetch_add(1, Ordering::Relaxed);
                }
            };
            while wanted.load(Ordering::Relaxed) {
                std::thread::sleep(PAUSE);
                let socket = UdpSocket::bind((any, 0)).unwrap();
                let _ = socket.send_to(b"?", (to.as_str(), port));
                shared.0.fetch_add(1, Ordering::Relaxed);
                if are_allowed {
                    answer(&socket, PATIENT);
                } else {
                    // An answer comes in less time than thirty others take.
                    open.push(socket);
                    if open.len() > 30 {
                        answer(&open.remove(0), Duration::from_millis(1));
                    }
                }
            }
            open.iter().for_each(|socket| answer(socket, Duration::from_millis(20)));
        });
        Self { worker: Some(worker), begun, answered }
    }

    /// How many were begun so far.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Ends them: how many were begun, and how many of them answered.
    pub fn end(mut self) -> (u64, u64) {
        drop(self.worker.take());
        (self.begun(), self.answered.load(Ordering::Relaxed))
    }
}

/// A policy that lets pods with one label come in, and nobody out but to those.
pub fn only(app: &str, peer: &str) -> Value {
    let selector = |app: &str| json!({ "matchLabels": { "app": app } });
    json!({
        "podSelector": selector(app), "policyTypes": ["Ingress", "Egress"],
        "ingress": [{ "from": [{ "podSelector": selector(peer) }] }],
        "egress": [{ "to": [{ "podSelector": selector(peer) }] }],
    })
}

/// A policy of both directions without a rule.
pub fn nothing(app: &str) -> Value {
    json!({ "podSelector": { "matchLabels": { "app": app } }, "policyTypes": ["Ingress", "Egress"] })
}
