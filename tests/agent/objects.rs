//! What the API server of the tests knows beside Nodes: policies, namespaces and pods, as JSON. Lists are streamed or in
//! pages; field selectors are those of nodes and phases.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::api::{Api, chunk, respond};

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Policy,
    /// Served only where [`Api::define_cluster_policies`] was asked for it.
    ClusterPolicy,
    Namespace,
    Pod,
}

impl Kind {
    /// By the path of the list of all.
    pub fn of(path: &str) -> Option<Self> {
        match path {
            "/apis/networking.k8s.io/v1/networkpolicies" => Some(Self::Policy),
            "/apis/policy.networking.k8s.io/v1beta1/clusternetworkpolicies" => Some(Self::ClusterPolicy),
            "/api/v1/namespaces" => Some(Self::Namespace),
            "/api/v1/pods" => Some(Self::Pod),
            _ => None,
        }
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Policy => ("NetworkPolicy", "networking.k8s.io/v1"),
            Self::ClusterPolicy => ("ClusterNetworkPolicy", "policy.networking.k8s.io/v1beta1"),
            Self::Namespace => ("Namespace", "v1"),
            Self::Pod => ("Pod", "v1"),
        }
    }
}

/// Namespace and name.
type Name = (String, String);

/// A change of an object: before and after, of which one may be none.
#[derive(Clone)]
struct Change {
    version: u64,
    kind: Kind,
    before: Option<Value>,
    after: Option<Value>,
}

/// All of them.
#[derive(Default)]
pub struct Objects {
    all: BTreeMap<(Kind, Name), Value>,
    history: Vec<Change>,
    /// Whether the resource ClusterNetworkPolicy is defined.
    defines_cluster_policies: bool,
    /// How often each kind was watched, by the field selector.
    pub watches: Vec<(Kind, String)>,
    /// Watches that are open now.
    pub open: Vec<(Kind, String)>,
}

impl Objects {
    pub fn forget_history(&mut self) {
        self.history.clear();
    }
}

fn name_of(object: &Value) -> Name {
    let word = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    (word("namespace"), word("name"))
}

/// Whether an object is one of those that a field selector selects.
fn is_selected(object: &Value, selector: &str) -> bool {
    let value = |field: &str| {
        let pointer = format!("/{}", field.replace('.', "/"));
        object.pointer(&pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    selector.split(',').filter(|it| !it.is_empty()).all(|term| match term.split_once("!=") {
        Some((field, other)) => value(field) != other,
        None => term.split_once('=').is_some_and(|(field, wanted)| value(field) == wanted),
    })
}

/// A query's value as it was before it was written into a URL.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|it| char::from(it).to_digit(16));
        bytes.push(match byte {
            b'%' => u8::try_from(digit(rest.next()).unwrap() * 16 + digit(rest.next()).unwrap()).unwrap(),
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).unwrap()
}

impl Api {
    /// Adds or changes an object, which has metadata and whatever its kind has.
    pub fn put_object(&self, kind: Kind, mut object: Value) {
        self.change(|state| {
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            let before = state.objects.all.insert((kind, name_of(&object)), object.clone());
            let change = Change { version: state.version, kind, before, after: Some(object) };
            state.objects.history.push(change);
        });
    }

    /// Adds many at once, as if they had always been there.
    pub fn preload_objects(&self, kind: Kind, objects: impl Iterator<Item = Value>) {
        self.change(|state| {
            state.version += 1;
            let version = state.version;
            state.objects.all.extend(objects.map(|mut object| {
                object["metadata"]["resourceVersion"] = json!(version.to_string());
                ((kind, name_of(&object)), object)
            }));
        });
    }

    /// Changes something of an object.
    pub fn edit_object(&self, kind: Kind, namespace: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let key = (kind, (namespace.to_owned(), name.to_owned()));
        let mut object = self.change(|state| state.objects.all.get(&key).cloned()).expect("the object");
        edit(&mut object);
        self.put_object(kind, object);
    }

    /// Removes an object.
    pub fn delete_object(&self, kind: Kind, namespace: &str, name: &str) {
        self.change(|state| {
            state.version += 1;
            let key = (kind, (namespace.to_owned(), name.to_owned()));
            let before = Some(state.objects.all.remove(&key).expect("the object"));
            let change = Change { version: state.version, kind, before, after: None };
            state.objects.history.push(change);
        });
    }

    /// Defines ClusterNetworkPolicies, or no longer. As an API server does, it ends watches and answers 404 then.
    pub fn define_cluster_policies(&self, are_defined: bool) {
        self.change(|state| state.objects.defines_cluster_policies = are_defined);
        if !are_defined {
            self.cut();
        }
    }

    /// Refuses to stream lists from now on, as servers do that cannot.
    pub fn refuse_streams(&self) {
        self.change(|state| state.refuses_streams = true);
    }

    /// The field selectors with which a kind is watched now, sorted.
    pub fn watched(&self, kind: Kind) -> Vec<String> {
        self.change(|state| {
            let open = state.objects.open.iter().filter(|it| it.0 == kind);
            let mut selectors: Vec<String> = open.map(|it| it.1.clone()).collect();
            selectors.sort();
            selectors.dedup();
            selectors
        })
    }

    pub(super) fn serve_objects<'a>(
        &self,
        stream: &TcpStream,
        era: u64,
        kind: Kind,
        parameter: &dyn Fn(&str) -> Option<&'a str>,
        is_watch: bool,
    ) -> Option<()> {
        if kind == Kind::ClusterPolicy && !self.change(|state| state.objects.defines_cluster_policies) {
            return respond(stream, 404, "404 page not found");
        }
        let fields = decoded(parameter("fieldSelector").unwrap_or_default());
        if !is_watch {
            let limit = parameter("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
            let from = parameter("continue").and_then(|at| at.parse().ok()).unwrap_or(0);
            return self.list_objects(stream, kind, &fields, limit, from);
        }
        let is_streamed = parameter("sendInitialEvents") == Some("true");
        if is_streamed && self.change(|state| state.refuses_streams) {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "sendInitialEvents is forbidden for watch", "reason": "Invalid", "code": 422 });
            return respond(stream, 422, &status.to_string());
        }
        let version = parameter("resourceVersion").and_then(|it| it.parse().ok()).unwrap_or(0);
        self.change(|state| {
            state.objects.watches.push((kind, fields.clone()));
            state.objects.open.push((kind, fields.clone()));
        });
        let ended = self.watch_objects(stream, era, kind, &fields, (!is_streamed).then_some(version));
        self.change(|state| {
            let open = &mut state.objects.open;
            let at = open.iter().position(|it| *it == (kind, fields.clone())).expect("an open watch");
            open.remove(at);
        });
        ended
    }

    fn list_objects(
        &self,
        stream: &TcpStream,
        kind: Kind,
        fields: &str,
        limit: usize,
        from: usize,
    ) -> Option<()> {
        let (version, total, page) = self.change(|state| {
            let (total, page) = state.objects.page(kind, fields, from, limit);
            (state.version, total, page)
        });
        let mut metadata = json!({ "resourceVersion": version.to_string() });
        if from + page.len() < total {
            metadata["continue"] = json!((from + page.len()).to_string());
        }
        let (name, group) = kind.words();
        let list = json!({ "kind": format!("{name}List"), "apiVersion": group, "metadata": metadata, "items": page });
        respond(stream, 200, &list.to_string())
    }

    /// From a version on, or with what is there at first.
    fn watch_objects(
        &self,
        mut stream: &TcpStream,
        era: u64,
        kind: Kind,
        fields: &str,
        from: Option<u64>,
    ) -> Option<()> {
        if from.is_some_and(|from| self.change(|state| from < state.oldest)) {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "too old resource version", "reason": "Expired", "code": 410 });
            return respond(stream, 200, &json!({ "type": "ERROR", "object": status }).to_string());
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).ok()?;
        let (name, group) = kind.words();
        let bookmark = |version: u64, ends_list: bool| {
            let mut metadata = json!({ "resourceVersion": version.to_string(), "creationTimestamp": null });
            if ends_list {
                metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
            }
            json!({ "type": "BOOKMARK", "object": { "kind": name, "apiVersion": group, "metadata": metadata } })
        };
        let mut version = match from {
            Some(version) => version,
            None => {
                let (version, selected) =
                    self.change(|state| (state.version, state.objects.selected(kind, fields)));
                for object in selected {
                    chunk(stream, &json!({ "type": "ADDED", "object": object }))?;
                }
                chunk(stream, &bookmark(version, true))?;
                version
            }
        };
        let (state, changed) = self.shared();
        let mut marked = Instant::now();
        loop {
            let changes: Vec<Change> = {
                let mut state = state.lock().unwrap();
                loop {
                    if state.era != era {
                        return None;
                    }
                    let new =
                        state.objects.history.iter().filter(|it| it.version > version && it.kind == kind);
                    let new: Vec<Change> = new.cloned().collect();
                    if !new.is_empty() || marked.elapsed() > Duration::from_millis(500) {
                        break new;
                    }
                    state = changed.wait_timeout(state, Duration::from_millis(100)).unwrap().0;
                }
            };
            if changes.is_empty() {
                marked = Instant::now();
                chunk(stream, &bookmark(version, false))?;
            }
            for Change { version: at, before, after, .. } in changes {
                version = at;
                let selected = |object: Option<Value>| object.filter(|it| is_selected(it, fields));
                let (word, mut object) = match (selected(before), selected(after)) {
                    (None, Some(object)) => ("ADDED", object),
                    (Some(_), Some(object)) => ("MODIFIED", object),
                    (Some(object), None) => ("DELETED", object),
                    (None, None) => continue,
                };
                object["metadata"]["resourceVersion"] = json!(at.to_string());
                chunk(stream, &json!({ "type": word, "object": object }))?;
            }
        }
    }
}

impl Objects {
    fn selected(&self, kind: Kind, fields: &str) -> Vec<Value> {
        self.page(kind, fields, 0, usize::MAX).1
    }

    /// How many there are, and some of them.
    fn page(&self, kind: Kind, fields: &str, from: usize, limit: usize) -> (usize, Vec<Value>) {
        let of_kind = self.all.iter().filter(|((it, _), _)| *it == kind);
        let selected: Vec<&Value> =
            of_kind.map(|(_, object)| object).filter(|object| is_selected(object, fields)).collect();
        (selected.len(), selected.into_iter().skip(from).take(limit).cloned().collect())
    }
}
