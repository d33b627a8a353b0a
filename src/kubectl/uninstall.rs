//! `kubectl ferrule uninstall`: the steps of docs/install.md, "Uninstall", one after another. Each is a command of kubectl,
//! which is at hand where its plugins run.
//!
//! ```text
//! look      pods that would lose their network: refused, but for coredns
//! scale     deployment/coredns to 0, until no pod has an address
//! stop      delete the agents' DaemonSet
//! clean     apply deploy/uninstall.yaml with the agents' image, wait until every node is done
//! remove    delete what the two manifests made
//! ```

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::kubectl::agents::CONTAINER;
use crate::kubectl::arguments::Common;
use crate::kubectl::cluster::{Cluster, SELECTOR, full_name, has_ended, is_on_hosts_network};
use crate::kubectl::{Outcome, say};

/// What cleans the nodes.
const UNINSTALL: &str = include_str!("../../deploy/uninstall.yaml");

/// What was installed: its objects are deleted by name.
const FERRULE: &str = include_str!("../../deploy/ferrule.yaml");

/// The namespace that both manifests name.
const MANIFESTS_IN: &str = "kube-system";

/// What every cluster has, with an address of the network: it comes back with the next network.
const DNS: &str = "coredns";
const DNS_LABEL: (&str, &str) = ("k8s-app", "kube-dns");

/// How long pods may take to end.
const ENDING: Duration = Duration::from_secs(120);

/// Pods that are named; of more the first ones, and how many there are.
const NAMED: usize = 20;

/// Removes it.
///
/// # Errors
/// If pods would lose their network, nobody agrees, or a step fails. Then what was done stays done, and the same command
/// goes on from there.
pub(super) async fn uninstall(
    cluster: &Cluster,
    common: &Common,
    yes: bool,
    dry_run: bool,
    image: Option<&str>,
) -> Result<Outcome, String> {
    if !common.nodes.is_empty() {
        return Err(
            "--node: a cluster has one network on all nodes; of one node see `ferrulectl uninstall` there"
                .to_owned(),
        );
    }
    let sets = Api::<DaemonSet>::all(cluster.client.clone());
    let sets = cluster.list(&sets, ListParams::default().labels(SELECTOR), "daemonsets").await?;
    let plan = Plan::of(&sets, image)?;
    let in_use = InUse::of(&pods(cluster).await?);
    let kubectl = Kubectl::new(common);
    let mut text = plan.to_text(&in_use);
    if !in_use.others.is_empty() {
        let stderr = format!(
            "kubectl ferrule uninstall: refused, nothing was done: {} pods would lose their network: {}. Remove them first, \
             or scale down what they belong to\n",
            in_use.others.len(),
            name_some(&in_use.others)
        );
        return Ok(Outcome { stdout: if dry_run { text } else { String::new() }, stderr, status: 1 });
    }
    if dry_run {
        return Ok(Outcome { stdout: text, ..Outcome::default() });
    }
    if !yes && !agreed(&text)? {
        return Err("nobody agreed: nothing was done (--yes agrees)".to_owned());
    }
    if !in_use.dns.is_empty() {
        say(&format!("scaling deployment/{DNS} to 0"));
        kubectl
            .run(&["--namespace", MANIFESTS_IN, "scale", "deployment/coredns", "--replicas=0"], None)
            .await?;
        none_left(cluster).await?;
    }
    if let Some((namespace, name)) = &plan.agents {
        say(&format!("deleting the agents, daemonset/{name}"));
        let name = format!("daemonset/{name}");
        kubectl.run(&["--namespace", namespace, "delete", &name, "--ignore-not-found"], None).await?;
    }
    let uninstall = plan.manifest(UNINSTALL);
    say("cleaning the nodes");
    kubectl.run(&["apply", "--filename", "-"], Some(&uninstall)).await?;
    let status = ["rollout", "status", "daemonset/ferrule-uninstall", "--timeout=3m"];
    let of_namespace = ["--namespace", plan.namespace()];
    if let Err(failed) = kubectl.run(&[&of_namespace[..], &status].concat(), None).await {
        let log =
            ["logs", "--selector", "app.kubernetes.io/name=ferrule-uninstall", "--container", "uninstall"];
        let said = kubectl.run(&[&of_namespace[..], &log, &["--prefix"]].concat(), None).await;
        return Err(format!(
            "not every node is clean: {failed}\n{}\ndaemonset/ferrule-uninstall stays until they are; the same command goes on",
            said.unwrap_or_default()
        ));
    }
    say("removing what is left at the API server");
    let both = uninstall + "\n---\n" + &plan.manifest(FERRULE);
    kubectl.run(&["delete", "--filename", "-", "--ignore-not-found"], Some(&both)).await?;
    text.clear();
    text.push_str("ferrule is removed. Pods get no network until another one is installed");
    if !in_use.dns.is_empty() {
        text.push_str("; deployment/coredns is at 0 replicas, scale it up then");
    }
    Ok(Outcome { stdout: text + "\n", ..Outcome::default() })
}

/// What there is to remove.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// Namespace and name of the DaemonSet; `None`: it is gone already.
    agents: Option<(String, String)>,
    image: String,
}

impl Plan {
    fn of(sets: &[DaemonSet], image: Option<&str>) -> Result<Self, String> {
        // Not what anybody may make look like it: the image is executed on all nodes.
        let containers = |set: &DaemonSet| {
            let spec = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
            let spec = spec.filter(|spec| spec.host_network.unwrap_or_default());
            spec.map(|spec| spec.containers.clone()).unwrap_or_default()
        };
        let agents: Vec<&DaemonSet> =
            sets.iter().filter(|set| containers(set).iter().any(|it| it.name == CONTAINER)).collect();
        if let [_, _, ..] = agents.as_slice() {
            return Err("there are several DaemonSets of agents: remove one by hand first".to_owned());
        }
        let Some(set) = agents.first() else {
            let image = image.ok_or(
                "there is no DaemonSet of agents; to clean nodes all the same, name the image that does it: --image IMAGE",
            )?;
            return Ok(Self { agents: None, image: image.to_owned() });
        };
        let name = (set.namespace().unwrap_or_default(), set.name_any());
        if set.labels().get("app.kubernetes.io/managed-by").is_some_and(|by| by == "Helm") {
            let release = set.annotations().get("meta.helm.sh/release-name").unwrap_or(&name.1);
            return Err(format!(
                "the agents are a release of helm: `helm uninstall {release} --namespace {}`, then this again with --image",
                name.0
            ));
        }
        let own = containers(set).into_iter().find(|it| it.name == CONTAINER).and_then(|it| it.image);
        let image =
            image.map(str::to_owned).or(own).ok_or("the agents have no image: name one with --image")?;
        Ok(Self { agents: Some(name), image })
    }

    /// Where the agents are, or were.
    fn namespace(&self) -> &str {
        self.agents.as_ref().map_or(MANIFESTS_IN, |(namespace, _)| namespace)
    }

    /// A manifest of this version, for that image and namespace.
    fn manifest(&self, text: &str) -> String {
        let (image, namespace) = (&self.image, self.namespace());
        let line = |line: &str| {
            let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
            match rest {
                _ if rest.starts_with("image: ferrule:") => format!("{indent}image: {image}\n"),
                "namespace: kube-system" => format!("{indent}namespace: {namespace}\n"),
                _ => format!("{line}\n"),
            }
        };
        text.lines().map(line).collect()
    }

    fn to_text(&self, in_use: &InUse) -> String {
        let mut steps = Vec::new();
        if !in_use.dns.is_empty() {
            steps.push(format!("scale deployment/{DNS} to 0 ({} pods have addresses)", in_use.dns.len()));
        }
        steps.extend(
            self.agents.as_ref().map(|(namespace, name)| format!("delete daemonset/{name} in {namespace}")),
        );
        steps.push(format!(
            "clean every node by daemonset/ferrule-uninstall, with the image {}: links, routes, tables, settings, stores, \
             conflist, plugin",
            self.image
        ));
        steps.push("delete that DaemonSet, the role and the account of the agents".to_owned());
        (1..).zip(steps).map(|(number, step)| format!("{number}. {step}\n")).collect()
    }
}

/// Pods that have addresses of the network.
#[derive(Debug, Default, PartialEq, Eq)]
struct InUse {
    dns: Vec<String>,
    others: Vec<String>,
}

impl InUse {
    fn of(pods: &[Pod]) -> Self {
        let mut found = Self::default();
        for pod in pods.iter().filter(|pod| !is_on_hosts_network(pod) && !has_ended(pod)) {
            let has_address = pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
            let (key, value) = DNS_LABEL;
            let is_dns = pod.namespace().as_deref() == Some(MANIFESTS_IN)
                && pod.labels().get(key).is_some_and(|it| it == value);
            if has_address {
                let list = if is_dns { &mut found.dns } else { &mut found.others };
                list.push(full_name(pod));
            }
        }
        found
    }
}

async fn pods(cluster: &Cluster) -> Result<Vec<Pod>, String> {
    cluster.list(&Api::<Pod>::all(cluster.client.clone()), ListParams::default(), "pods").await
}

/// Waits until the last pod is gone.
async fn none_left(cluster: &Cluster) -> Result<(), String> {
    let end = tokio::time::Instant::now() + ENDING;
    loop {
        let InUse { dns, others } = InUse::of(&pods(cluster).await?);
        let left: Vec<String> = dns.into_iter().chain(others).collect();
        if left.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() > end {
            let seconds = ENDING.as_secs();
            return Err(format!(
                "after {seconds} s there are still pods with addresses: {}",
                name_some(&left)
            ));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn name_some(names: &[String]) -> String {
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut named: Vec<String> = names.iter().take(NAMED).map(|&name| name.to_owned()).collect();
    if let Some(more) = names.len().checked_sub(NAMED).filter(|more| *more > 0) {
        named.push(format!("and {more} more"));
    }
    named.join(", ")
}

/// Asks a person.
pub(super) fn agreed(plan: &str) -> Result<bool, String> {
    if !io::stdin().is_terminal() {
        return Err(format!(
            "this would be done:\n{plan}stdin is no terminal, so nobody can agree: --yes does"
        ));
    }
    let _ = io::stderr().write_all(format!("{plan}Do it? [y/N] ").as_bytes());
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| format!("cannot read an answer: {error}"))?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// kubectl, for the same cluster.
struct Kubectl(Vec<String>);

impl Kubectl {
    fn new(common: &Common) -> Self {
        let mut words = Vec::new();
        let kubeconfig = common.kubeconfig.as_ref().map(|path| path.display().to_string());
        for (name, value) in [("--context", common.context.clone()), ("--kubeconfig", kubeconfig)] {
            words.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
        }
        Self(words)
    }

    /// What it printed.
    async fn run(&self, words: &[&str], input: Option<&str>) -> Result<String, String> {
        let spelled = format!("kubectl {}", words.join(" "));
        let mut command = Command::new("kubectl");
        command.args(&self.0).args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child =
            command.spawn().map_err(|error| format!("cannot run {spelled}: {error}; is kubectl in PATH?"))?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            let written = stdin.write_all(input.as_bytes()).await;
            written.map_err(|error| format!("{spelled}: {error}"))?;
        }
        let done = child.wait_with_output().await.map_err(|error| format!("{spelled}: {error}"))?;
        let [stdout, stderr] =
            [&done.stdout, &done.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
        match done.status.success() {
            true => Ok(stdout),
            false => Err(format!("{spelled}: {}", stderr.trim())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(metadata: &Value) -> DaemonSet {
        let container = json!({ "name": "ferruled", "image": "registry.example/ferrule@sha256:aa" });
        serde_json::from_value(json!({
            "metadata": metadata,
            "spec": { "selector": {}, "template": { "spec": { "hostNetwork": true, "containers": [container] } } },
        }))
        .unwrap()
    }

    #[test]
    fn nodes_are_cleaned_with_the_image_of_the_agents() {
        let sets = [set(&json!({ "name": "ferrule", "namespace": "net" }))];
        let plan = Plan::of(&sets, None).unwrap();
        assert_eq!(plan.agents, Some(("net".into(), "ferrule".into())));
        let manifest = plan.manifest(UNINSTALL);
        assert_eq!(manifest.matches("image: registry.example/ferrule@sha256:aa\n").count(), 2);
        assert!(manifest.contains("  namespace: net\n") && !manifest.contains("kube-system"), "{manifest}");
        let manifest = plan.manifest(FERRULE);
        assert!(!manifest.contains("image: ferrule:") && !manifest.contains("kube-system"));
        assert_eq!(Plan::of(&sets, Some("other:1")).unwrap().image, "other:1");
    }

    /// Its image would be executed on all nodes, with all rights.
    #[test]
    fn what_anybody_may_make_is_not_taken_for_the_agents() {
        let own = set(&json!({ "name": "ferrule", "namespace": "net" }));
        let mut other = set(&json!({ "name": "mine", "namespace": "evil" }));
        other.spec.as_mut().unwrap().template.spec.as_mut().unwrap().host_network = None;
        let plan = Plan::of(&[other.clone(), own], None).unwrap();
        assert_eq!(plan.agents, Some(("net".into(), "ferrule".into())));
        assert!(Plan::of(&[other], None).unwrap_err().contains("--image"));
    }

    #[test]
    fn without_agents_an_image_is_asked_for_and_helm_is_named() {
        assert!(Plan::of(&[], None).unwrap_err().contains("--image"));
        let plan = Plan::of(&[], Some("ferrule:1")).unwrap();
        assert_eq!((plan.agents.as_ref(), plan.namespace()), (None, "kube-system"));
        let helm = set(&json!({
            "name": "ferrule", "namespace": "net", "labels": { "app.kubernetes.io/managed-by": "Helm" },
            "annotations": { "meta.helm.sh/release-name": "podnet" },
        }));
        let error = Plan::of(&[helm], None).unwrap_err();
        assert!(error.contains("`helm uninstall podnet --namespace net`"), "{error}");
    }

    #[test]
    fn pods_with_addresses_are_in_the_way_but_dns() {
        let pod = |name: &str, namespace: &str, labels: Value, spec: Value, status: Value| -> Pod {
            let metadata = json!({ "name": name, "namespace": namespace, "labels": labels });
            serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status })).unwrap()
        };
        let (spec, has) = (json!({ "containers": [] }), json!({ "podIP": "10.244.1.2", "phase": "Running" }));
        let host = json!({ "containers": [], "hostNetwork": true });
        let dns = json!({ "k8s-app": "kube-dns" });
        let pods = [
            pod("coredns-1", "kube-system", dns.clone(), spec.clone(), has.clone()),
            pod("coredns-2", "mine", dns, spec.clone(), has.clone()),
            pod("web", "shop", json!({}), spec.clone(), has.clone()),
            pod("agent", "kube-system", json!({}), host, has),
            pod(
                "done",
                "shop",
                json!({}),
                spec.clone(),
                json!({ "podIP": "10.244.1.3", "phase": "Succeeded" }),
            ),
            pod("new", "shop", json!({}), spec, json!({ "phase": "Pending" })),
        ];
        let found = InUse::of(&pods);
        assert_eq!(found.dns, ["kube-system/coredns-1"]);
        assert_eq!(found.others, ["mine/coredns-2", "shop/web"]);
        let many: Vec<String> = (10..40).map(|number| format!("a/{number}")).collect();
        assert!(name_some(&many).ends_with("a/29, and 10 more"));
    }
}
