//! The DaemonSets of a move: the agents', the old plugin's, and those that have a hand in the runtime's directory.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, LocalObjectReference, PodSpec};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::kubectl::agents::CONTAINER;
use crate::kubectl::migrate::LABEL;

/// Where runtimes look for conflists, where the agents' DaemonSet does not say.
const CONF_DIR: &str = "/etc/cni/net.d";

/// The agents', as far as a pod that does their work needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Agents {
    pub namespace: String,
    pub name: String,
    pub image: String,
    pub pull_policy: Option<String>,
    pub pull_secrets: Vec<LocalObjectReference>,
    /// Settings: name of the network and of the conflist.
    pub env: Vec<EnvVar>,
    pub env_from: Vec<EnvFromSource>,
    /// The runtime's directory, on the nodes.
    pub conf_dir: String,
}

impl Agents {
    /// The only one there is.
    ///
    /// # Errors
    /// If it is not, or would have its agents on all nodes at once.
    pub fn find(sets: &[DaemonSet], namespace: Option<&str>) -> Result<Self, String> {
        let in_namespace =
            |set: &&DaemonSet| namespace.is_none_or(|it| set.namespace().as_deref() == Some(it));
        let mut found = sets.iter().filter(in_namespace).filter(|set| container(set).is_some());
        let set = found.next().ok_or(
            "there is no DaemonSet of agents: install ferrule with deploy/components/migration first, its network named as the \
             old one",
        )?;
        if found.next().is_some() {
            return Err("there are several DaemonSets of agents: say with --namespace which".to_owned());
        }
        let name = set.name_any();
        let (Some(spec), Some(container)) = (pod_spec(set), container(set)) else {
            return Err(format!("daemonset {name} has no pods"));
        };
        let (key, value) = LABEL;
        if spec.node_selector.as_ref().and_then(|it| it.get(key)).is_none_or(|it| it != value) {
            return Err(format!(
                "daemonset {name} has no nodeSelector {key}: {value}, so its agents come to all nodes at once, moved or not: \
                 install it with deploy/components/migration (nodeSelector of the chart)"
            ));
        }
        let volumes = spec.volumes.iter().flatten().filter(|volume| volume.name == "conf");
        let conf_dir =
            volumes.filter_map(|volume| volume.host_path.as_ref()).map(|it| it.path.clone()).next();
        Ok(Self {
            namespace: set.namespace().unwrap_or_default(),
            image: container.image.clone().ok_or_else(|| format!("daemonset {name} has no image"))?,
            name,
            pull_policy: container.image_pull_policy.clone(),
            pull_secrets: spec.image_pull_secrets.clone().unwrap_or_default(),
            env: container.env.clone().unwrap_or_default(),
            env_from: container.env_from.clone().unwrap_or_default(),
            conf_dir: conf_dir.unwrap_or_else(|| CONF_DIR.to_owned()),
        })
    }
}

/// The old plugin's, by what the command line says.
///
/// # Errors
/// If one is not there, or if none is named though others may write conflists.
pub fn replaced<'s>(
    sets: &'s [DaemonSet],
    agents: &Agents,
    named: &[String],
) -> Result<Vec<&'s DaemonSet>, String> {
    let full = |set: &DaemonSet| format!("{}/{}", set.namespace().unwrap_or_default(), set.name_any());
    if named.is_empty() {
        let writers = sets.iter().filter(|set| container(set).is_none() && sees(set, &agents.conf_dir));
        let writers: Vec<String> = writers.map(full).collect();
        if !writers.is_empty() {
            return Err(format!(
                "pods of {} see {}, and an old plugin that stays would go on there: name its DaemonSet with --replaces, or say \
                 --replaces none",
                writers.join(", "),
                agents.conf_dir
            ));
        }
    }
    let named = named.iter().filter(|it| *it != "none");
    named
        .map(|name| {
            let set = sets.iter().find(|set| full(set) == **name && container(set).is_none());
            set.ok_or_else(|| format!("there is no DaemonSet {name} of another plugin"))
        })
        .collect()
}

/// What changes its affinity so that it avoids nodes with the label; `None` if it does already.
pub fn keep_off(set: &DaemonSet) -> Option<Value> {
    let affinity = pod_spec(set).and_then(|spec| spec.affinity.as_ref());
    let mut affinity = affinity.and_then(|it| serde_json::to_value(it).ok()).unwrap_or_else(|| json!({}));
    let avoid = json!({ "key": LABEL.0, "operator": "DoesNotExist" });
    let required = &mut affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let mut terms = required["nodeSelectorTerms"].as_array().cloned().unwrap_or_default();
    if terms.is_empty() {
        terms.push(json!({}));
    }
    let before = terms.clone();
    // Terms are alternatives: each needs it.
    for term in &mut terms {
        let mut expressions = term["matchExpressions"].as_array().cloned().unwrap_or_default();
        if !expressions.iter().any(|it| it["key"] == avoid["key"] && it["operator"] == avoid["operator"]) {
            expressions.push(avoid.clone());
        }
        term["matchExpressions"] = expressions.into();
    }
    let is_changed = terms != before;
    required["nodeSelectorTerms"] = terms.into();
    is_changed.then(|| json!({ "spec": { "template": { "spec": { "affinity": affinity } } } }))
}

fn pod_spec(set: &DaemonSet) -> Option<&PodSpec> {
    set.spec.as_ref()?.template.spec.as_ref()
}

fn container(set: &DaemonSet) -> Option<&Container> {
    pod_spec(set)?.containers.iter().find(|it| it.name == CONTAINER)
}

/// Whether its pods have that directory of the node, or one around it.
fn sees(set: &DaemonSet, directory: &str) -> bool {
    let volumes = pod_spec(set).into_iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|it| it.host_path.as_ref()).any(|host| {
        let path = host.path.trim_end_matches('/');
        // The whole of a node is what monitoring mounts.
        !path.is_empty()
            && directory.strip_prefix(path).is_some_and(|it| it.is_empty() || it.starts_with('/'))
            && path.contains("cni")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, spec: Value) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "kube-system" },
            "spec": { "selector": {}, "template": { "spec": spec } },
        }))
        .unwrap()
    }

    fn mounting(path: &str) -> Value {
        json!({ "containers": [{ "name": "x" }], "volumes": [{ "name": "v", "hostPath": { "path": path } }] })
    }

    fn ferrule(selector: Value) -> DaemonSet {
        let container = json!({ "name": "ferruled", "image": "ferrule:1", "env": [{ "name": "FERRULE_NETWORK", "value": "cbr0" }] });
        let conf = json!({ "name": "conf", "hostPath": { "path": "/var/snap/args/cni-network" } });
        set("ferrule", json!({ "containers": [container], "nodeSelector": selector, "volumes": [conf] }))
    }

    #[test]
    fn agents_that_would_be_everywhere_are_refused() {
        let agents = Agents::find(&[ferrule(json!({ "ferrule.dev/network": "ferrule" }))], None).unwrap();
        assert_eq!(
            (agents.image.as_str(), agents.conf_dir.as_str()),
            ("ferrule:1", "/var/snap/args/cni-network")
        );
        assert_eq!(agents.env[0].name, "FERRULE_NETWORK");
        let error = Agents::find(&[ferrule(json!({ "kubernetes.io/os": "linux" }))], None).unwrap_err();
        assert!(error.contains("deploy/components/migration"), "{error}");
        assert!(Agents::find(&[set("kindnet", mounting("/etc/cni/net.d"))], None).is_err());
    }

    #[test]
    fn an_old_plugin_has_to_be_named() {
        let sets = [
            ferrule(json!({ "ferrule.dev/network": "ferrule" })),
            set("kindnet", mounting("/etc/cni/net.d/")),
            set("monitor", mounting("/")),
            set("logs", mounting("/var/log")),
        ];
        let mut agents = Agents::find(&sets, None).unwrap();
        agents.conf_dir = CONF_DIR.into();
        let error = replaced(&sets, &agents, &[]).unwrap_err();
        assert!(error.contains("kube-system/kindnet") && !error.contains("monitor"), "{error}");
        let found = replaced(&sets, &agents, &["kube-system/kindnet".into()]).unwrap();
        assert_eq!(found.iter().map(|it| it.name_any()).collect::<Vec<_>>(), ["kindnet"]);
        assert!(replaced(&sets, &agents, &["none".into()]).unwrap().is_empty());
        for name in ["kube-system/cilium", "kube-system/ferrule"] {
            assert!(replaced(&sets, &agents, &[name.into()]).unwrap_err().contains(name));
        }
    }

    #[test]
    fn each_term_of_an_affinity_gets_the_label_once() {
        let avoid = json!({ "key": "ferrule.dev/network", "operator": "DoesNotExist" });
        let terms = |patch: &Value| {
            patch["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
                ["nodeSelectorTerms"]
                .clone()
        };
        let patch = keep_off(&set("kindnet", mounting("/x"))).unwrap();
        assert_eq!(terms(&patch), json!([{ "matchExpressions": [avoid] }]));
        let linux = json!({ "key": "kubernetes.io/os", "operator": "In", "values": ["linux"] });
        let two = json!([{ "matchExpressions": [linux] }, { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["a"] }] }]);
        let affinity = |terms: &Value| {
            json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution":
            { "nodeSelectorTerms": terms } } })
        };
        let with = |terms: &Value| set("old", json!({ "containers": [], "affinity": affinity(terms) }));
        let changed = terms(&keep_off(&with(&two)).unwrap());
        assert_eq!(changed[0]["matchExpressions"], json!([linux, avoid]));
        assert_eq!(changed[1]["matchExpressions"], json!([avoid]));
        assert_eq!(keep_off(&with(&changed)), None);
    }
}
