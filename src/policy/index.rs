//! Namespaces and pods, in little room: pods of the other nodes are many, and nearly all are like others.
//!
//! Labels are interned as `key=value`; sets of labels, lists of named ports, names of namespaces and the first part of
//! pods' names (what all pods of a ReplicaSet share) have numbers. A pod of another node is a row of 48 bytes if it has
//! an address and is in no node's network; any other is not kept at all, since each event brings the whole object.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::policy::object::{NamedPort, Namespace, ObjectName, Pod};
use crate::policy::pool::Pool;
use crate::policy::selector::label;

/// All of them. Generations are numbers of complete lists, by which what a list did not have is found at its end.
#[derive(Debug, Default)]
pub struct Index {
    pub(super) labels: HashSet<Arc<str>>,
    pub(super) label_sets: Pool<[Arc<str>]>,
    pub(super) names: Pool<str>,
    pub(super) ports: Pool<[NamedPort]>,
    pub(super) rows: BTreeMap<Key, Row>,
    namespaces: BTreeMap<String, (u32, u16)>,
    own: BTreeMap<ObjectName, Own>,
    /// By uid. As long as there is an entry, it counts instead of what the API says.
    recorded: HashMap<String, Vec<IpAddr>>,
}

/// Which pod: numbers of its namespace and of the first part of its name, and the rest of the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u32, u32, [u8; 8]);

/// A pod of any node. The API server allows one address of each family; unspecified: none.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    v6: Ipv6Addr,
    v4: Ipv4Addr,
    labels: u32,
    ports: u32,
    generation: u16,
}

/// A pod of this node that is not in the node's network.
#[derive(Debug)]
struct Own {
    uid: String,
    labels: u32,
    ports: u32,
    addresses: Vec<IpAddr>,
    generation: u16,
}

/// What decides about a pod as a peer, and of a pod of this node as one that is isolated.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The namespace's labels, if it is known.
    pub namespace_labels: Option<&'a [Arc<str>]>,
    /// Its labels.
    pub labels: &'a [Arc<str>],
    /// Its ports that have a name.
    pub ports: &'a [NamedPort],
    row: [Option<IpAddr>; 2],
    list: &'a [IpAddr],
}

impl Member<'_> {
    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.row.iter().flatten().chain(self.list).copied()
    }
}

/// A pod of this node.
#[derive(Debug, Clone, Copy)]
pub struct OwnPod<'a> {
    /// Its uid.
    pub uid: &'a str,
    /// Which pod.
    pub name: &'a ObjectName,
    /// What decides about it.
    pub member: Member<'a>,
}

impl Index {
    /// A namespace, new or changed.
    pub fn put_namespace(&mut self, namespace: &Namespace, generation: u16) {
        let labels = self.acquire_labels(&namespace.labels);
        let before = self.namespaces.insert(namespace.name.clone(), (labels, generation));
        if let Some((labels, _)) = before {
            self.release_labels(labels);
        }
    }

    /// A namespace is gone.
    pub fn remove_namespace(&mut self, name: &str) {
        if let Some((labels, _)) = self.namespaces.remove(name) {
            self.release_labels(labels);
        }
    }

    /// Namespaces that the list of this generation did not have.
    pub fn stale_namespaces(&self, generation: u16) -> Vec<String> {
        let stale = self.namespaces.iter().filter(|(_, it)| it.1 != generation);
        stale.map(|(name, _)| name.clone()).collect()
    }

    /// A namespace's labels, if it is known.
    pub fn namespace_labels(&self, name: &str) -> Option<&[Arc<str>]> {
        self.namespaces.get(name).map(|(labels, _)| self.label_sets.get(*labels).unwrap_or_default())
    }

    /// All namespaces with their labels.
    pub fn all_namespaces(&self) -> impl Iterator<Item = (&str, &[Arc<str>])> {
        let labels = |number| self.label_sets.get(number).unwrap_or_default();
        self.namespaces.iter().map(move |(name, (number, _))| (name.as_str(), labels(*number)))
    }

    /// A pod of any node, new or changed.
    pub fn put_any(&mut self, pod: &Pod, generation: u16) {
        self.remove_any(&pod.name);
        let v4 = pod.addresses.iter().find_map(|it| if let IpAddr::V4(it) = it { Some(*it) } else { None });
        let v6 = pod.addresses.iter().find_map(|it| if let IpAddr::V6(it) = it { Some(*it) } else { None });
        if pod.host_network || (v4.is_none() && v6.is_none()) {
            return;
        }
        let (first, rest) = split_name(&pod.name.name);
        let key = Key(self.names.acquire(&pod.name.namespace), self.names.acquire(first), rest);
        let row = Row {
            v6: v6.unwrap_or(Ipv6Addr::UNSPECIFIED),
            v4: v4.unwrap_or(Ipv4Addr::UNSPECIFIED),
            labels: self.acquire_labels(&pod.labels),
            ports: self.ports.acquire(&pod.ports),
            generation,
        };
        self.rows.insert(key, row);
    }

    /// A pod of any node is gone.
    pub fn remove_any(&mut self, name: &ObjectName) {
        if let Some(key) = self.key(name) {
            self.remove_row(key);
        }
    }

    /// Rows that the list of this generation did not have.
    pub fn stale_rows(&self, generation: u16) -> Vec<Key> {
        self.rows.iter().filter(|(_, row)| row.generation != generation).map(|(key, _)| *key).collect()
    }

    /// Removes one of them.
    pub fn remove_row(&mut self, key: Key) {
        if let Some(row) = self.rows.remove(&key) {
            self.release_labels(row.labels);
            self.ports.release(row.ports);
            self.names.release(key.0);
            self.names.release(key.1);
        }
    }

    /// One of them.
    pub fn row(&self, key: Key) -> Option<Member<'_>> {
        self.rows.get(&key).map(|row| self.member_of_row(key, row))
    }

    /// A pod of any node.
    pub fn any(&self, name: &ObjectName) -> Option<Member<'_>> {
        self.key(name).and_then(|key| self.row(key))
    }

    /// A pod of this node, new or changed.
    pub fn put_own(&mut self, pod: &Pod, generation: u16) {
        if pod.host_network {
            return self.remove_own(&pod.name);
        }
        let own = Own {
            uid: pod.uid.clone(),
            labels: self.acquire_labels(&pod.labels),
            ports: self.ports.acquire(&pod.ports),
            addresses: pod.addresses.clone(),
            generation,
        };
        let uid = own.uid.clone();
        if let Some(before) = self.own.insert(pod.name.clone(), own) {
            self.release_own(&before, before.uid != uid);
        }
    }

    /// A pod of this node is gone.
    pub fn remove_own(&mut self, name: &ObjectName) {
        if let Some(before) = self.own.remove(name) {
            self.release_own(&before, true);
        }
    }

    fn release_own(&mut self, own: &Own, is_gone: bool) {
        self.release_labels(own.labels);
        self.ports.release(own.ports);
        if is_gone {
            self.recorded.remove(&own.uid);
        }
    }

    /// Own pods that the list of this generation did not have.
    pub fn stale_own(&self, generation: u16) -> Vec<ObjectName> {
        self.own
            .iter()
            .filter(|(_, own)| own.generation != generation)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// What the records say. None of a pod that is not known: forgotten.
    pub fn set_recorded(&mut self, uid: &str, addresses: &[IpAddr]) {
        if addresses.is_empty() && self.own_by_uid(uid).is_none() {
            self.recorded.remove(uid);
        } else {
            self.recorded.insert(uid.to_owned(), addresses.to_vec());
        }
    }

    /// A pod of this node by its uid. There are some hundred.
    pub fn own_by_uid(&self, uid: &str) -> Option<&ObjectName> {
        self.own.iter().find(|(_, own)| own.uid == uid).map(|(name, _)| name)
    }

    /// A pod of this node.
    pub fn own(&self, name: &ObjectName) -> Option<OwnPod<'_>> {
        self.own.get_key_value(name).map(|(name, own)| self.own_pod(name, own))
    }

    /// All pods of this node.
    pub fn all_own(&self) -> impl Iterator<Item = OwnPod<'_>> {
        self.own.iter().map(|(name, own)| self.own_pod(name, own))
    }

    /// The pods of this node in a namespace.
    pub fn own_of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = OwnPod<'a>> {
        let first = ObjectName { namespace: namespace.to_owned(), name: String::new() };
        let range = self.own.range(first..).take_while(move |(name, _)| name.namespace == namespace);
        range.map(|(name, own)| self.own_pod(name, own))
    }

    /// All rows.
    pub fn all_any(&self) -> impl Iterator<Item = Member<'_>> {
        self.rows.iter().map(|(key, row)| self.member_of_row(*key, row))
    }

    /// All rows, each with the pod's name, and with what those share that differ in nothing but name and addresses.
    pub fn named_rows(&self) -> impl Iterator<Item = (String, [u32; 3], Member<'_>)> {
        self.rows.iter().map(|(key, row)| {
            (self.pod_name(key), [key.0, row.labels, row.ports], self.member_of_row(*key, row))
        })
    }

    /// The rows of a namespace.
    pub fn any_of(&self, namespace: &str) -> impl Iterator<Item = Member<'_>> {
        let number = self.names.find(namespace);
        let range = number.map(|it| self.rows.range(Key(it, 0, [0; 8])..=Key(it, u32::MAX, [u8::MAX; 8])));
        range.into_iter().flatten().map(|(key, row)| self.member_of_row(*key, row))
    }

    /// Pods of both kinds that have this address. Looks at all.
    pub fn with_address(&self, address: IpAddr) -> impl Iterator<Item = Member<'_>> {
        let own = self.all_own().map(|own| own.member);
        own.chain(self.all_any()).filter(move |it| it.addresses().any(|its| its == address))
    }

    /// A pod that has this address, as `namespace/name`. Looks at all, so it is for what is asked some times a second.
    pub fn name_of(&self, address: IpAddr) -> Option<String> {
        let its = |own: &OwnPod<'_>| own.member.addresses().any(|its| its == address);
        if let Some(own) = self.all_own().find(its) {
            return Some(format!("{}/{}", own.name.namespace, own.name.name));
        }
        let (key, _) = self.rows.iter().find(|(_, row)| match address {
            IpAddr::V4(address) => row.v4 == address,
            IpAddr::V6(address) => row.v6 == address,
        })?;
        Some(format!("{}/{}", self.names.get(key.0).unwrap_or_default(), self.pod_name(key)))
    }

    fn pod_name(&self, key: &Key) -> String {
        let first = self.names.get(key.1).unwrap_or_default();
        let rest = key.2.split(|byte| *byte == 0).next().unwrap_or_default();
        let rest = String::from_utf8_lossy(rest);
        if rest.is_empty() { first.to_owned() } else { format!("{first}-{rest}") }
    }

    /// All rows go.
    pub fn clear_any(&mut self) {
        let keys: Vec<Key> = self.rows.keys().copied().collect();
        keys.into_iter().for_each(|key| self.remove_row(key));
        // Of what thousands of pods had.
        self.labels.shrink_to_fit();
    }

    /// Whether this node has a record of the pod.
    pub fn is_recorded(&self, uid: &str) -> bool {
        self.recorded.contains_key(uid)
    }

    fn key(&self, name: &ObjectName) -> Option<Key> {
        let (first, rest) = split_name(&name.name);
        Some(Key(self.names.find(&name.namespace)?, self.names.find(first)?, rest))
    }

    fn member_of_row(&self, key: Key, row: &Row) -> Member<'_> {
        let namespace = self.names.get(key.0).unwrap_or_default();
        let v4 = Some(row.v4).filter(|it| !it.is_unspecified()).map(IpAddr::V4);
        let v6 = Some(row.v6).filter(|it| !it.is_unspecified()).map(IpAddr::V6);
        Member { row: [v4, v6], list: &[], ..self.member(namespace, row.labels, row.ports) }
    }

    fn own_pod<'a>(&'a self, name: &'a ObjectName, own: &'a Own) -> OwnPod<'a> {
        let list = self.recorded.get(&own.uid).unwrap_or(&own.addresses).as_slice();
        let member = Member { list, ..self.member(&name.namespace, own.labels, own.ports) };
        OwnPod { uid: &own.uid, name, member }
    }

    fn member<'a>(&'a self, namespace: &'a str, labels: u32, ports: u32) -> Member<'a> {
        Member {
            namespace,
            namespace_labels: self.namespace_labels(namespace),
            labels: self.label_sets.get(labels).unwrap_or_default(),
            ports: self.ports.get(ports).unwrap_or_default(),
            row: [None, None],
            list: &[],
        }
    }

    /// In order, since the map is.
    fn acquire_labels(&mut self, labels: &BTreeMap<String, String>) -> u32 {
        let each = labels.iter().map(|(key, value)| {
            let text = label(key, value);
            if let Some(known) = self.labels.get(text.as_str()) {
                return known.clone();
            }
            let new: Arc<str> = text.into();
            self.labels.insert(new.clone());
            new
        });
        let set: Vec<Arc<str>> = each.collect();
        self.label_sets.acquire(set.as_slice())
    }

    fn release_labels(&mut self, number: u32) {
        let Some(set) = self.label_sets.release(number) else { return };
        for label in set.iter() {
            // Here, and in this set that nobody has any more.
            if Arc::strong_count(label) == 2 {
                self.labels.remove(label);
            }
        }
    }
}

#[cfg(test)]
impl Index {
    /// What rows and what they share take, counted: nodes of the map as full as lists in order leave them (6 of 11),
    /// contents with the two counters of an `Arc`, in the allocator's steps of 16.
    pub fn bytes(&self) -> usize {
        let allocated = |bytes: usize| (bytes + 8).next_multiple_of(16).max(32);
        let text = |it: &str| allocated(16 + it.len());
        let leaf = allocated(11 * size_of::<(Key, Row)>() + 12);
        let rows = (leaf + (leaf + 96) / 7) * self.rows.len() / 6;
        let sets = self.label_sets.contents().map(|it| allocated(16 + size_of_val(it)));
        let ports = self.ports.contents().map(|it| allocated(16 + size_of_val(it)));
        let contents = sets.chain(ports).chain(self.names.contents().map(text));
        let labels = self.labels.iter().map(|it| text(it));
        let labels_table = (self.labels.capacity() * 8 / 7).next_power_of_two() * 17;
        let tables = self.label_sets.table_bytes() + self.ports.table_bytes() + self.names.table_bytes();
        rows + contents.chain(labels).sum::<usize>() + labels_table + tables
    }
}

/// What the pods of one owner share of their names, and the rest.
fn split_name(name: &str) -> (&str, [u8; 8]) {
    let mut rest = [0; 8];
    match name.rsplit_once('-') {
        Some((first, last)) if (1..=8).contains(&last.len()) => {
            rest[..last.len()].copy_from_slice(last.as_bytes());
            (first, rest)
        }
        _ => (name, rest),
    }
}
