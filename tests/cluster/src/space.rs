//! A Kubernetes namespace for one case, so that cases can run side by side.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Cluster, Family, addresses_of};
use crate::process::{Failure, Result, pause};

/// How long what takes the longer the surer one wants to be may take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// What every change of the code can wait for.
    Short,
    /// As long as it has to be seen once in a while.
    Long,
}

impl Length {
    /// One of two, by length.
    pub fn of<T>(self, short: T, long: T) -> T {
        match self {
            Self::Short => short,
            Self::Long => long,
        }
    }
}

/// One case's namespace. Dereferences to the cluster it is in.
pub struct Space<'c> {
    cluster: &'c Cluster,
    name: String,
    /// For how long its case may go on.
    pub length: Length,
    /// Whether the cases that run side by side are over.
    pub over: &'c AtomicBool,
    notes: Mutex<Vec<String>>,
}

impl Deref for Space<'_> {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.cluster
    }
}

impl<'c> Space<'c> {
    /// Makes one of this name; one that an earlier run left is removed first.
    pub fn make(cluster: &'c Cluster, name: &str, length: Length, over: &'c AtomicBool) -> Result<Self> {
        let space = Self { cluster, name: name.to_owned(), length, over, notes: Mutex::default() };
        cluster.kubectl(&["delete", "namespace", name, "--ignore-not-found", "--timeout=120s"])?;
        cluster.kubectl(&["create", "namespace", name])?;
        // Without it, pods are refused.
        space.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=30s"])?;
        Ok(space)
    }

    /// Waits until the cases that run side by side are over.
    pub fn outlast_the_others(&self) {
        while !self.over.load(Ordering::Relaxed) {
            pause(Duration::from_millis(500));
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Removes it and what is in it. `wait`: until no pod is left.
    pub fn remove(&self, wait: bool) {
        let wait = format!("--wait={wait}");
        // What stays is found by the next run.
        let _ = self.cluster.kubectl(&["delete", "namespace", &self.name, &wait, "--timeout=180s"]);
    }

    /// kubectl in this namespace.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", self.name.as_str()];
        all.extend(words);
        self.cluster.kubectl(&all)
    }

    /// `kubectl get ... -o json` in this namespace.
    pub fn get(&self, words: &[&str]) -> Result<Value> {
        let mut all = vec!["--namespace", self.name.as_str()];
        all.extend(words);
        self.cluster.get(&all)
    }

    /// Creates all of these at once.
    pub fn create(&self, objects: impl IntoIterator<Item = Value>) -> Result {
        let list =
            json!({ "apiVersion": "v1", "kind": "List", "items": objects.into_iter().collect::<Vec<_>>() });
        let words = ["--namespace", self.name.as_str(), "create", "--filename", "-"];
        self.cluster.kubectl_with_input(&words, &list.to_string()).map(|_| ())
    }

    /// Makes all of these be as they are here, whether they are there or not.
    pub fn apply(&self, objects: impl IntoIterator<Item = Value>) -> Result {
        let list =
            json!({ "apiVersion": "v1", "kind": "List", "items": objects.into_iter().collect::<Vec<_>>() });
        let words = ["--namespace", self.name.as_str(), "apply", "--filename", "-"];
        self.cluster.kubectl_with_input(&words, &list.to_string()).map(|_| ())
    }

    /// Waits until every pod here is ready; says what Kubernetes knows about those that are not.
    pub fn all_ready(&self, limit: Duration) -> Result {
        let timeout = format!("--timeout={}s", limit.as_secs());
        let wait = ["wait", "--for=condition=Ready", "pods", "--all", timeout.as_str()];
        self.kubectl(&wait).map(|_| ()).map_err(|failure| self.explain(&failure))
    }

    /// Waits for a rollout of, for instance, `deployment/web`.
    pub fn rolled_out(&self, what: &str, limit: Duration) -> Result {
        let timeout = format!("--timeout={}s", limit.as_secs());
        self.kubectl(&["rollout", "status", what, &timeout])
            .map(|_| ())
            .map_err(|failure| self.explain(&failure))
    }

    fn explain(&self, failure: &Failure) -> Failure {
        let pods = self.kubectl(&["get", "pods", "--output", "wide"]).unwrap_or_default();
        let events = self.kubectl(&["get", "events", "--field-selector", "type=Warning"]).unwrap_or_default();
        let last = events.lines().rev().take(6).collect::<Vec<_>>().join("\n");
        format!("{failure}\n{pods}{last}").into()
    }

    /// Runs a program in a pod.
    pub fn exec(&self, pod: &str, words: &[&str]) -> Result<String> {
        let mut all = vec!["exec", pod, "--"];
        all.extend(words);
        self.kubectl(&all)
    }

    /// The addresses that Kubernetes shows for a pod, one per family.
    pub fn addresses(&self, pod: &str) -> Result<Vec<IpAddr>> {
        let answer = self.get(&["pod", pod])?;
        let found = addresses_of(&answer);
        let hosts_network = answer["spec"]["hostNetwork"] == true;
        if !hosts_network && found.len() != self.cluster.families.len() {
            return Err(format!("{pod} has {found:?}, not one address per family").into());
        }
        Ok(found)
    }

    /// A pod's address of a family.
    pub fn address(&self, pod: &str, family: Family) -> Result<IpAddr> {
        let found = self.addresses(pod)?.into_iter().find(|address| Family::of(address) == family);
        found.ok_or_else(|| format!("{pod} has no {family:?} address").into())
    }

    /// The addresses of a Service, one per family.
    pub fn service_addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        let answer = self.get(&["service", name])?;
        let list = answer.pointer("/spec/clusterIPs").and_then(Value::as_array).cloned();
        Ok(list.iter().flatten().filter_map(|ip| ip.as_str()?.parse().ok()).collect())
    }

    /// Something measured, for the report.
    pub fn note(&self, what: impl Into<String>) {
        if let Ok(mut notes) = self.notes.lock() {
            notes.push(what.into());
        }
    }

    /// What was noted.
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().map(|notes| notes.clone()).unwrap_or_default()
    }
}
