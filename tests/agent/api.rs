//! An API server that knows Nodes, and what NetworkPolicies are about ([`objects`]): list by pages, streamed lists, watch
//! with bookmarks, and whatever goes wrong with them. Plain HTTP, a thread a connection. It listens inside a node's
//! namespace, on 127.0.0.1.
//!
//! What it serves has the shape and size of real Nodes, so that what the agent does not need is there to be ignored.

mod http;
mod node_spec;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ferrule::linux::netns::Netns;
use serde_json::{Value, json};

use super::access::Access;
use super::objects::Objects;
use http::{Request, read_request, respond_compressed};
pub(super) use http::{chunk, respond};
use kit::netns::Namespace;
pub use node_spec::NodeSpec;

/// As Kubernetes does it, shorter lists are not compressed.
const COMPRESSED: usize = 128 << 10;

#[derive(Default)]
pub(super) struct State {
    pub version: u64,
    nodes: BTreeMap<String, (NodeSpec, u64)>,
    /// Version, kind and object of each change.
    history: Vec<(u64, &'static str, NodeSpec)>,
    /// Watches from before this are gone (410).
    pub oldest: u64,
    /// All that are no Nodes.
    pub objects: Objects,
    /// Whether a list cannot be streamed, as by an older server.
    pub refuses_streams: bool,
    /// Connections of an earlier time are cut.
    pub era: u64,
    is_away: bool,
    knows_nothing: bool,
    refuses_expired: bool,
    ends_watches: bool,
    lists: usize,
    watches: usize,
    /// Ranges of the cluster's Services.
    services: Vec<String>,
    /// What was written: method, path, body.
    written: Vec<(String, String, Value)>,
    /// What is allowed; everything, unless somebody says.
    allowed: Option<BTreeSet<Access>>,
    /// What was asked for, be it allowed or not.
    asked: BTreeSet<Access>,
    /// Paths of what was refused.
    refused: Vec<String>,
    /// Lists of Nodes that were compressed.
    compressed: usize,
    /// The clients' names (User-Agent).
    clients: BTreeSet<String>,
}

/// The server, for as long as its guard.
#[derive(Clone)]
pub struct Api {
    address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Api {
    /// Starts one on the loopback of `namespace`.
    pub fn start(namespace: &Namespace) -> Self {
        let netns = Netns::open(namespace.path()).unwrap();
        let listener = netns.run(|| TcpListener::bind("127.0.0.1:0")).unwrap().unwrap();
        let api = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        api.change(|state| state.version = 1);
        let server = api.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                thread::spawn(move || server.serve(stream));
            }
        });
        api
    }

    /// For `--apiserver`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn shared(&self) -> &(Mutex<State>, Condvar) {
        &self.state
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (state, changed) = &*self.state;
        let done = change(&mut state.lock().unwrap());
        changed.notify_all();
        done
    }

    /// A JSON patch that removes a taint, if it is where the patch says (RFC 6902).
    fn patch_taints(&self, name: &str, patch: &Value) -> bool {
        let place =
            patch[1]["path"].as_str().and_then(|path| path.strip_prefix("/spec/taints/")?.parse().ok());
        let Some((mut node, place)) = self.change(|state| state.nodes.get(name).cloned()).zip(place) else {
            return false;
        };
        let is_as_tested =
            node.0.taints.get::<usize>(place).is_some_and(|key| patch[0]["value"] == key.as_str());
        if is_as_tested {
            node.0.taints.remove(place);
            self.put(node.0);
        }
        is_as_tested
    }

    /// Adds or changes a Node.
    pub fn put(&self, node: NodeSpec) {
        self.change(|state| {
            state.version += 1;
            let kind = if state.nodes.contains_key(&node.name) { "MODIFIED" } else { "ADDED" };
            state.nodes.insert(node.name.clone(), (node.clone(), state.version));
            state.history.push((state.version, kind, node));
        });
    }

    /// Adds many at once, as if they had always been there.
    pub fn preload(&self, nodes: impl Iterator<Item = NodeSpec>) {
        self.change(|state| {
            state.version += 1;
            let version = state.version;
            state.nodes.extend(nodes.map(|node| (node.name.clone(), (node, version))));
            state.oldest = version;
        });
    }

    /// Removes a Node.
    pub fn delete(&self, name: &str) {
        self.change(|state| {
            state.version += 1;
            let (node, _) = state.nodes.remove(name).unwrap();
            state.history.push((state.version, "DELETED", node));
        });
    }

    /// Removes a Node so that no watch tells: only the next list does.
    pub fn delete_unseen(&self, name: &str) {
        self.change(|state| {
            state.version += 1;
            state.nodes.remove(name);
        });
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.change(|state| state.era += 1);
    }

    /// Forgets history: who watches from an earlier version is told 410 Gone, within the watch as Kubernetes does it,
    /// or by a refusal.
    pub fn compact(&self, by_refusal: bool) {
        self.change(|state| {
            state.refuses_expired = by_refusal;
            state.version += 1;
            state.oldest = state.version;
            state.history.clear();
            state.objects.forget_history();
            state.era += 1;
        });
    }

    /// Goes away: connections are cut, new ones get no answer; or comes back.
    pub fn be_away(&self, is_away: bool) {
        self.change(|state| {
            state.is_away = is_away;
            state.era += 1;
        });
    }

    /// Connections are cut, and whoever asks is told that there is no such thing, as by a proxy whose servers are away; or
    /// no longer.
    pub fn know_nothing(&self, knows_nothing: bool) {
        self.change(|state| {
            state.knows_nothing = knows_nothing;
            state.era += 1;
        });
    }

    /// Connections are cut, and each watch that is accepted ends at once, as by something in between that allows no long
    /// answers; or no longer.
    pub fn end_watches(&self, ends_watches: bool) {
        self.change(|state| {
            state.ends_watches = ends_watches;
            state.era += 1;
        });
    }

    /// How often Nodes were listed (pages are one), and watched.
    pub fn lists_and_watches(&self) -> (usize, usize) {
        self.change(|state| (state.lists, state.watches))
    }

    /// What was written to a path that contains `part`.
    pub fn written(&self, part: &str) -> Vec<Value> {
        self.change(|state| {
            let matching = state.written.iter().filter(|(_, path, _)| path.contains(part));
            matching.map(|(_, _, body)| body.clone()).collect()
        })
    }

    /// Has these ranges for Services.
    pub fn set_services(&self, cidrs: &[&str]) {
        self.change(|state| state.services = cidrs.iter().map(|&cidr| cidr.to_owned()).collect());
    }

    /// How many lists of Nodes were compressed.
    pub fn compressed(&self) -> usize {
        self.change(|state| state.compressed)
    }

    /// What clients call themselves.
    pub fn clients(&self) -> BTreeSet<String> {
        self.change(|state| state.clients.clone())
    }

    /// Its port on the loopback.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Allows nothing but this from now on, as a role does.
    pub fn allow(&self, allowed: BTreeSet<Access>) {
        self.change(|state| state.allowed = Some(allowed));
    }

    /// Allows everything.
    pub fn allow_all(&self) {
        self.change(|state| state.allowed = None);
    }

    /// How often something was refused whose path contains `part`.
    pub fn refused(&self, part: &str) -> usize {
        self.change(|state| state.refused.iter().filter(|path| path.contains(part)).count())
    }

    /// What was asked for so far, be it allowed or not.
    pub fn asked(&self) -> BTreeSet<Access> {
        self.change(|state| state.asked.clone())
    }

    fn serve(&self, stream: TcpStream) {
        let era = self.change(|state| state.era);
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let Some(request) = read_request(&mut reader) else { return };
            let Request { method, path, body, client, takes_gzip } = request;
            if self.change(|state| {
                state.clients.insert(client);
                state.is_away
            }) {
                return;
            }
            if self.answer(&stream, era, (&method, &path), body, takes_gzip).is_none() {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    }

    /// `None` ends the connection.
    fn answer(
        &self,
        stream: &TcpStream,
        era: u64,
        (method, path): (&str, &str),
        body: Value,
        takes_gzip: bool,
    ) -> Option<()> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parameter = |name: &str| query.split('&').find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        let is_watch = parameter("watch").is_some_and(|value| value == "true" || value == "1");
        if self.change(|state| state.knows_nothing) {
            return respond(stream, 404, "default backend - 404");
        }
        let access = Access::of(method, path, is_watch);
        let is_allowed = self.change(|state| {
            state.asked.insert(access.clone());
            state.allowed.as_ref().is_none_or(|allowed| allowed.contains(&access))
        });
        if !is_allowed {
            self.change(|state| state.refused.push(path.to_owned()));
            let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": format!("forbidden: {access:?}"), "reason": "Forbidden", "code": 403 });
            return respond(stream, 403, &status.to_string());
        }
        if method != "GET" {
            self.change(|state| state.written.push((method.to_owned(), path.to_owned(), body.clone())));
            let answer = if path.contains("/nodes/") {
                let name = path.split("/nodes/").nth(1)?.split('/').next()?;
                if body.is_array() && !self.patch_taints(name, &body) {
                    return respond(stream, 422, "{}");
                }
                self.change(|state| state.nodes.get(name).map(|(node, version)| node.to_json(*version)))?
            } else {
                body
            };
            return respond(stream, 200, &answer.to_string());
        }
        if path == "/apis/networking.k8s.io/v1/servicecidrs" {
            let cidrs = self.change(|state| state.services.clone());
            let item = json!({ "metadata": { "name": "kubernetes" }, "spec": { "cidrs": cidrs } });
            let list = json!({ "kind": "ServiceCIDRList", "apiVersion": "networking.k8s.io/v1",
                "metadata": { "resourceVersion": "1" }, "items": [item] });
            return respond(stream, 200, &list.to_string());
        }
        if path != "/api/v1/nodes" {
            return match super::objects::Kind::of(path) {
                Some(kind) => self.serve_objects(stream, era, kind, &parameter, is_watch),
                None => respond(stream, 404, "{}"),
            };
        }
        if is_watch {
            self.watch(stream, era, parameter("resourceVersion")?.parse().ok()?)
        } else {
            let limit = parameter("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
            let from = parameter("continue").and_then(|at| at.parse().ok()).unwrap_or(0);
            self.list(stream, limit, from, takes_gzip)
        }
    }

    fn list(&self, stream: &TcpStream, limit: usize, from: usize, takes_gzip: bool) -> Option<()> {
        let (version, total, page) = self.change(|state| {
            state.lists += usize::from(from == 0);
            let page: Vec<(NodeSpec, u64)> = state.nodes.values().skip(from).take(limit).cloned().collect();
            (state.version, state.nodes.len(), page)
        });
        let rest = total.saturating_sub(from + page.len());
        let mut metadata = json!({ "resourceVersion": version.to_string() });
        if rest > 0 {
            metadata["continue"] = json!((from + page.len()).to_string());
            metadata["remainingItemCount"] = json!(rest);
        }
        let items: Vec<Value> = page.iter().map(|(node, version)| node.to_json(*version)).collect();
        let list = json!({ "kind": "NodeList", "apiVersion": "v1", "metadata": metadata, "items": items });
        let list = list.to_string();
        if !takes_gzip || list.len() < COMPRESSED {
            return respond(stream, 200, &list);
        }
        self.change(|state| state.compressed += 1);
        respond_compressed(stream, &list)
    }

    fn watch(&self, mut stream: &TcpStream, era: u64, mut version: u64) -> Option<()> {
        let (is_gone, by_refusal) = self.change(|state| {
            state.watches += 1;
            (version < state.oldest, state.refuses_expired)
        });
        if is_gone {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "too old resource version", "reason": "Expired", "code": 410 });
            if by_refusal {
                return respond(stream, 410, &status.to_string());
            }
            let event = json!({ "type": "ERROR", "object": status }).to_string();
            return respond(stream, 200, &event);
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).ok()?;
        if self.change(|state| state.ends_watches) {
            return stream.write_all(b"0\r\n\r\n").ok();
        }
        let (state, changed) = &*self.state;
        let mut marked = Instant::now();
        loop {
            let events: Vec<(u64, &str, NodeSpec)> = {
                let mut state = state.lock().unwrap();
                loop {
                    if state.era != era {
                        return None;
                    }
                    let new: Vec<_> = state.history.iter().filter(|it| it.0 > version).cloned().collect();
                    if !new.is_empty() || marked.elapsed() > Duration::from_secs(1) {
                        break new;
                    }
                    state = changed.wait_timeout(state, Duration::from_millis(200)).unwrap().0;
                }
            };
            if events.is_empty() {
                marked = Instant::now();
                let object = json!({ "kind": "Node", "apiVersion": "v1",
                    "metadata": { "resourceVersion": version.to_string(), "creationTimestamp": null } });
                chunk(stream, &json!({ "type": "BOOKMARK", "object": object }))?;
            }
            for (at, kind, node) in events {
                chunk(stream, &json!({ "type": kind, "object": node.to_json(at) }))?;
                version = at;
            }
        }
    }
}
