//! What the API server would say.

use ferrule::policy::object::{Event, Feed, Namespace, ObjectName, Pod, Policy};
use serde_json::{Value, json};

use crate::Failure;
use crate::lab;

/// Where all pods and policies are.
const NAMESPACE: &str = "bench";

/// What the servers listen on. One policy allows it, whatever their number.
pub const PORT: u16 = 8080;

/// What is told at once.
pub type Events = Vec<Event>;

/// How many other pods are clients as well: addresses in the same set.
const CLIENTS: usize = 1_000;

/// The policy of this number: all pods are isolated in both directions, and clients may connect to servers at one port.
/// The first allows what is measured; each other one a port of its own, which differs by `version`.
pub fn policy(number: usize, version: usize) -> Value {
    let port = if number == 0 { usize::from(PORT) } else { 10_000 + 2 * number + version % 2 };
    let ports = json!([{ "port": port }, { "protocol": "UDP", "port": port }]);
    let pods = |role: &str| json!([{ "podSelector": { "matchLabels": { "role": role } } }]);
    json!({
        "namespace": NAMESPACE, "name": format!("policy-{number}"),
        "spec": {
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{ "from": pods("client"), "ports": ports }],
            "egress": [{ "to": pods("server"), "ports": ports }],
        },
    })
}

/// That a policy is new or has changed.
pub fn changed(policy: Value) -> Result<Event, Failure> {
    Ok(Event::Policy(Feed::Changed(serde_json::from_value::<Policy>(policy)?)))
}

/// That the policy of this number is gone.
pub fn gone(number: usize) -> Event {
    Event::Policy(Feed::Gone(name(&format!("policy-{number}"))))
}

/// That another node's pod is there, or has another label: every other version is a client.
pub fn foreign_pod(number: usize, version: usize) -> Result<Event, Failure> {
    let role = if version.is_multiple_of(2) { "client" } else { "nobody" };
    let address = format!("10.245.{}.{}", number / 200, number % 200 + 1);
    let pod = json!({
        "namespace": NAMESPACE, "name": format!("other-{number}"), "uid": format!("other-{number}"),
        "labels": { "role": role }, "addresses": [address],
    });
    Ok(Event::AnyPod(Feed::Changed(serde_json::from_value::<Pod>(pod)?)))
}

/// All that is there, as complete lists: so many policies, the pods of a node, and all that there are.
pub fn lists(policies: usize, own: &[&lab::Pod], all: &[&lab::Pod]) -> Result<Events, Failure> {
    let namespace = Namespace { name: NAMESPACE.to_owned(), labels: [].into() };
    let mut events = vec![Event::Policy(Feed::ListBegins)];
    for number in 0..policies {
        if let Event::Policy(Feed::Changed(one)) = changed(policy(number, 0))? {
            events.push(Event::Policy(Feed::Listed(one)));
        }
    }
    events.push(Event::Policy(Feed::ListEnds));
    events.extend([Feed::ListBegins, Feed::Listed(namespace), Feed::ListEnds].map(Event::Namespace));
    events.push(Event::OwnPod(Feed::ListBegins));
    for one in own {
        events.push(Event::OwnPod(Feed::Listed(pod(one)?)));
    }
    events.extend([Event::OwnPod(Feed::ListEnds), Event::AnyPod(Feed::ListBegins)]);
    for one in all {
        events.push(Event::AnyPod(Feed::Listed(pod(one)?)));
    }
    for number in 0..CLIENTS {
        if let Event::AnyPod(Feed::Changed(other)) = foreign_pod(number, 0)? {
            events.push(Event::AnyPod(Feed::Listed(other)));
        }
    }
    events.push(Event::AnyPod(Feed::ListEnds));
    Ok(events)
}

/// The uid of a pod that is measured.
pub fn uid(pod: &lab::Pod) -> String {
    format!("uid-{}", pod.name)
}

/// `namespace/name` of it.
pub fn full_name(pod: &lab::Pod) -> String {
    format!("{NAMESPACE}/{}", pod.name)
}

fn pod(pod: &lab::Pod) -> Result<Pod, Failure> {
    let role = if pod.name == "client" { "client" } else { "server" };
    Ok(serde_json::from_value(json!({
        "namespace": NAMESPACE, "name": pod.name, "uid": uid(pod), "labels": { "role": role },
        "addresses": [pod.address],
    }))?)
}

fn name(name: &str) -> ObjectName {
    ObjectName { namespace: NAMESPACE.to_owned(), name: name.to_owned() }
}
