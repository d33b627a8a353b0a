//! As much of an API server as `kubectl ferrule` asks: lists of nodes, pods and DaemonSets, exec by WebSocket, in which a
//! test says what the `ferrulectl` of each pod answers, and what `migrate` writes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

use kit::binaries::KUBECTL_FERRULE;
use kit::call::Call;
use kit::files::Scratch;

/// Channels of the protocol, which each message begins with.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

/// What the pod of an agent does when somebody executes something in it.
#[derive(Clone)]
pub enum Exec {
    /// stdout, stderr, exit status.
    Says(Vec<u8>, String, i32),
    /// The API server refuses, in these words.
    Refused(String),
    /// Nothing, ever.
    Hangs,
    /// stdout at once; stderr and the end when stdin has been closed, or so many messages have come from there.
    Streams(Vec<u8>, String),
}

#[derive(Default)]
struct State {
    nodes: Vec<Value>,
    pods: Vec<Value>,
    execs: BTreeMap<String, Exec>,
    /// What was executed, by the pod.
    asked: Vec<(String, String)>,
    sets: Vec<Value>,
    /// What the pods that migrate makes answer, by node and step, in turn; the last one stays.
    steps: BTreeMap<(String, String), Vec<Exec>>,
    /// What was written.
    writes: Vec<String>,
}

/// Goes with its value, but for its thread, which waits for connections that do not come.
pub struct Api {
    state: Arc<Mutex<State>>,
    scratch: Scratch,
}

impl Api {
    /// One without anything.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let scratch = Scratch::new("kubeconfig");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{ "name": "it", "cluster": { "server": server } }],
            "users": [{ "name": "it", "user": {} }],
            "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it", "namespace": "shop" } }],
        });
        fs::write(scratch.path().join("config"), kubeconfig.to_string()).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { state, scratch }
    }

    /// A node, Ready or with kubelet's words; with an agent that does this.
    pub fn node(&self, name: &str, not_ready: Option<&str>, exec: Option<Exec>) {
        let mut state = self.state.lock().unwrap();
        let status = if not_ready.is_some() { "Unknown" } else { "True" };
        let ready = json!({ "type": "Ready", "status": status, "message": not_ready.unwrap_or_default() });
        state.nodes.push(json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/os": "linux" }, "annotations": { "x": "hidden" } },
            "spec": { "podCIDRs": ["10.244.1.0/24"] }, "status": { "conditions": [ready] },
        }));
        let Some(exec) = exec else { return };
        state.pods.push(agent_on(name));
        state.execs.insert(format!("ferrule-{name}"), exec);
    }

    /// A label of a node that is there.
    pub fn label(&self, node: &str, key: &str, value: &str) {
        let mut state = self.state.lock().unwrap();
        let node = state.nodes.iter_mut().find(|it| it["metadata"]["name"] == node).unwrap();
        node["metadata"]["labels"][key] = json!(value);
    }

    /// A DaemonSet. With a pod on each of the nodes, which it leaves when they get a label.
    pub fn daemon_set(&self, namespace: &str, name: &str, spec: &Value, nodes: &[&str]) {
        let mut state = self.state.lock().unwrap();
        state.sets.push(json!({
            "metadata": { "name": name, "namespace": namespace, "uid": name },
            "spec": { "selector": {}, "template": { "spec": spec } },
        }));
        for node in nodes {
            let owner = json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": name, "uid": name });
            state.pods.push(json!({
                "metadata": { "name": format!("{name}-{node}"), "namespace": namespace, "ownerReferences": [owner] },
                "spec": { "nodeName": node, "containers": [] }, "status": { "phase": "Running" },
            }));
        }
    }

    /// What `ferrulectl migrate` answers on the node, in turn.
    pub fn step(&self, node: &str, step: &str, answers: impl IntoIterator<Item = Exec>) {
        let key = (node.to_owned(), step.to_owned());
        self.state.lock().unwrap().steps.insert(key, answers.into_iter().collect());
    }

    /// What was written, in order.
    pub fn writes(&self) -> Vec<String> {
        self.state.lock().unwrap().writes.clone()
    }

    /// A pod of somebody, in the namespace of the context.
    pub fn pod(&self, name: &str, node: &str, address: &str) {
        self.state.lock().unwrap().pods.push(json!({
            "metadata": { "name": name, "namespace": "shop" }, "spec": { "nodeName": node, "containers": [] },
            "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] },
        }));
    }

    /// What was executed in the agent of that node, one a line.
    pub fn asked(&self, node: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let of_node = state.asked.iter().filter(|(pod, _)| *pod == format!("ferrule-{node}"));
        of_node.map(|(_, words)| words.clone()).collect()
    }

    /// The program, for this server.
    pub fn call(&self, words: &str) -> Call {
        let kubeconfig = self.scratch.path().join("config");
        Call::of(&*KUBECTL_FERRULE)
            .argument("--kubeconfig")
            .argument(kubeconfig)
            .silent_stdin()
            .arguments(words)
    }
}

/// Answers one request.
fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut head = [0; 4096];
    // The whole of a request without a body comes at once.
    let Ok(length) = stream.peek(&mut head) else { return };
    let text = String::from_utf8_lossy(&head[..length]).into_owned();
    let target = text.split(' ').nth(1).unwrap_or_default().to_owned();
    if let Some((path, query)) = target.split_once("/exec?") {
        let pod = path.rsplit('/').next().unwrap_or_default().to_owned();
        let words: Vec<&str> = query.split('&').filter_map(|it| it.strip_prefix("command=")).collect();
        let exec = {
            let mut state = state.lock().unwrap();
            state.asked.push((pod.clone(), words.join(" ").replace("%2F", "/")));
            match pod.strip_prefix("ferrule-migrate-") {
                Some(node) => {
                    let answers = state.steps.get_mut(&(node.to_owned(), words[2].to_owned())).unwrap();
                    if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
                }
                None => state.execs[&pod].clone(),
            }
        };
        return execute(stream, exec);
    }
    let body = read_request(&mut stream);
    let mut state = state.lock().unwrap();
    let method = text.split(' ').next().unwrap_or_default();
    if method != "GET" {
        let answer = state.write(method, &target, &body);
        return respond(&mut stream, 200, &answer.to_string());
    }
    let is_of_agents = |pod: &&Value| pod["metadata"]["labels"]["app.kubernetes.io/name"] == "ferrule";
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let list =
        |items: Vec<&Value>| json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items });
    let (status, body) = match path {
        "/api/v1/nodes" => (200, list(state.nodes.iter().collect()).to_string()),
        "/apis/apps/v1/daemonsets" => (200, list(state.sets.iter().collect()).to_string()),
        _ if path.ends_with("/log") && query.contains("previous=true") => {
            (400, failure("previous terminated container not found").to_string())
        }
        _ if path.ends_with("/log") => (200, "level=info msg=started token=abcdef\n".to_owned()),
        _ if path.ends_with("/pods") && query.contains("labelSelector=") => {
            (200, list(state.pods.iter().filter(is_of_agents).collect()).to_string())
        }
        _ if path.ends_with("/pods") => (200, list(state.pods.iter().collect()).to_string()),
        _ => {
            match state.pods.iter().find(|pod| path.rsplit('/').next() == pod["metadata"]["name"].as_str()) {
                Some(pod) => (200, pod.to_string()),
                None => (404, failure("not found").to_string()),
            }
        }
    };
    respond(&mut stream, status, &body);
}

fn respond(stream: &mut TcpStream, status: u16, body: &str) {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n");
    let _ = stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes());
}

/// The rest of a request: its body.
fn read_request(stream: &mut TcpStream) -> Value {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap_or_default()
}

fn agent_on(node: &str) -> Value {
    json!({
        "metadata": { "name": format!("ferrule-{node}"), "namespace": "net",
                      "labels": { "app.kubernetes.io/name": "ferrule" }, "creationTimestamp": "2026-11-30T10:00:00Z" },
        "spec": { "nodeName": node, "hostNetwork": true, "containers": [{ "name": "ferruled" }] },
        "status": running(),
    })
}

fn running() -> Value {
    let container = json!({ "name": "ferruled", "image": "ferrule:1", "imageID": "", "ready": true, "restartCount": 0,
                            "state": { "running": { "startedAt": "2026-11-30T10:00:00Z" } } });
    json!({ "phase": "Running", "containerStatuses": [container] })
}

impl State {
    /// What becomes of an object, and what controllers and kubelets do then.
    fn write(&mut self, method: &str, target: &str, body: &Value) -> Value {
        let path = target.split('?').next().unwrap();
        let name = path.rsplit('/').next().unwrap();
        match (method, path) {
            ("POST", _) => {
                let mut pod = body.clone();
                self.writes.push(format!("make {}", pod["metadata"]["name"].as_str().unwrap()));
                pod["status"] = running();
                self.pods.push(pod.clone());
                pod
            }
            ("DELETE", _) => {
                self.writes.push(format!("delete {name}"));
                self.pods.retain(|pod| pod["metadata"]["name"] != name);
                json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" })
            }
            ("PATCH", _) if path.contains("/daemonsets/") => {
                self.writes.push(format!("keep off {name}"));
                let set = self.sets.iter_mut().find(|set| set["metadata"]["name"] == name).unwrap();
                set["spec"]["template"]["spec"]["affinity"] =
                    body["spec"]["template"]["spec"]["affinity"].clone();
                set.clone()
            }
            ("PATCH", _) => {
                let labels = &body["metadata"]["labels"];
                self.writes.push(format!("label {name} {labels}"));
                self.pods.retain(|pod| {
                    pod["spec"]["nodeName"] != name || pod["metadata"]["ownerReferences"].is_null()
                });
                self.pods.push(agent_on(name));
                let node = self.nodes.iter_mut().find(|node| node["metadata"]["name"] == name).unwrap();
                for (key, value) in labels.as_object().unwrap() {
                    node["metadata"]["labels"][key] = value.clone();
                }
                node.clone()
            }
            _ => failure("not found"),
        }
    }
}

fn failure(message: &str) -> Value {
    let code = if message == "not found" { 404 } else { 400 };
    let reason = if code == 404 { "NotFound" } else { "BadRequest" };
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code })
}

fn execute(mut stream: TcpStream, exec: Exec) {
    match exec {
        Exec::Refused(message) => {
            let _ = stream.read(&mut [0; 4096]);
            let body = json!({ "kind": "Status", "status": "Failure", "message": message, "reason": "InternalError", "code": 500 });
            let (body, end) = (body.to_string(), "connection: close\r\n\r\n");
            let head = format!("HTTP/1.1 500 X\r\ncontent-length: {}\r\n{end}", body.len());
            let _ = stream.write_all((head + &body).as_bytes());
        }
        // Until the other side gives up.
        Exec::Hangs => while stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {},
        Exec::Says(stdout, stderr, status) => {
            let mut socket = accept(stream);
            send(&mut socket, STDOUT, &stdout);
            send(&mut socket, STDERR, stderr.as_bytes());
            end(&mut socket, status);
        }
        Exec::Streams(stdout, stderr) => {
            let mut socket = accept(stream);
            send(&mut socket, STDERR, b"capturing shop/web on veth1: headers only\n");
            send(&mut socket, STDOUT, &stdout);
            let is_heard = |message: &[u8]| message.first() == Some(&STDIN) && message.len() > 1;
            let mut heard = false;
            while let Ok(message) = socket.read() {
                heard |= is_heard(&message.into_data());
                if heard {
                    break;
                }
            }
            send(&mut socket, STDERR, stderr.as_bytes());
            end(&mut socket, 0);
        }
    }
}

#[allow(clippy::result_large_err, reason = "tungstenite wants it so")]
fn accept(stream: TcpStream) -> WebSocket<TcpStream> {
    let choose = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let protocol = HeaderValue::from_static("v5.channel.k8s.io");
        response.headers_mut().insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    tungstenite::accept_hdr(stream, choose).unwrap()
}

fn send(socket: &mut WebSocket<TcpStream>, channel: u8, bytes: &[u8]) {
    // In pieces, as a kubelet does.
    for piece in bytes.chunks(1000) {
        let _ = socket.send(Message::binary([&[channel], piece].concat()));
    }
}

fn end(socket: &mut WebSocket<TcpStream>, status: i32) {
    let document = match status {
        0 => json!({ "status": "Success" }),
        _ => json!({ "status": "Failure", "reason": "NonZeroExitCode",
                     "details": { "causes": [{ "reason": "ExitCode", "message": status.to_string() }] } }),
    };
    send(socket, STATUS, document.to_string().as_bytes());
    let _ = socket.close(None);
    while socket.read().is_ok() {}
}
