//! The steps on one node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde::Deserialize;
use serde_json::json;

use crate::kubectl::agents::{self, Agent, not_ready};
use crate::kubectl::arguments::{Common, MigrateOptions};
use crate::kubectl::cluster::{Cluster, SELECTOR, node_of, within};
use crate::kubectl::migrate::daemon_sets::Agents;
use crate::kubectl::migrate::report::{NodeReport, State};
use crate::kubectl::migrate::{LABEL, PATIENCE, helper};
use crate::kubectl::say;

/// How long an agent may take to come and to be Ready, and the old plugin's pod to go.
const COMING: Duration = Duration::from_secs(300);

/// What a step may take at least: an old ADD that is under way is waited for.
const STEP: Duration = Duration::from_secs(120);

/// After the swap, until it is looked whether the old plugin has added a pod since.
const LATE: Duration = Duration::from_secs(5);

/// What is the same for all nodes.
pub struct Mover<'a> {
    pub cluster: &'a Cluster,
    pub common: &'a Common,
    pub options: &'a MigrateOptions,
    pub agents: &'a Agents,
    pub replaced: &'a [&'a DaemonSet],
    /// Somebody wants it to end.
    pub interrupted: &'a AtomicBool,
}

/// What `ferrulectl migrate` said.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    in_use: String,
    has_conflist: bool,
    old_plugin: Option<String>,
    host_local: Option<String>,
    import: Option<Imported>,
    #[serde(default)]
    carried: Vec<String>,
    #[serde(default)]
    followed: Vec<Followed>,
    problems: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Imported {
    pods: Vec<ImportedPod>,
    dead: Vec<ImportedPod>,
}

#[derive(Debug, Deserialize)]
struct ImportedPod {
    pod: Option<String>,
    container: String,
    state: String,
    notes: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Followed {
    command: String,
    reason: String,
    problem: Option<String>,
}

impl Said {
    fn pods(&self) -> impl Iterator<Item = &ImportedPod> {
        self.import.iter().flat_map(|it| &it.pods)
    }

    fn new_pods(&self) -> usize {
        self.pods().filter(|pod| pod.state == "imported").count()
    }

    /// What a person has to see to.
    fn refuse(&self) -> Result<(), String> {
        let failed = self.followed.iter().filter_map(|it| {
            let problem = it.problem.as_ref()?;
            Some(format!("{} ({}) failed: {problem}", it.command, it.reason))
        });
        let problems: Vec<String> = self.problems.iter().cloned().chain(failed).collect();
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }
}

impl Mover<'_> {
    /// Moves the node, or says what would be done.
    pub async fn run(&self, node: &Node) -> NodeReport {
        let name = node.name_any();
        let mut report = NodeReport::new(&name, State::Failed);
        if let Some(why) = not_ready(node) {
            report.problem = Some(format!("{why}; nothing was changed on it"));
            return report;
        }
        say(&format!("{name}: looking"));
        let moved = match helper::make(self.cluster, self.agents, &name).await {
            Ok(pod) => {
                let moved = self.steps(node, &pod, &mut report).await;
                let removed = helper::remove(self.cluster, &pod).await;
                report.notes.extend(removed.err());
                moved
            }
            Err(error) => Err(error),
        };
        match moved {
            Ok(state) => report.state = state,
            Err(error) => report.problem = Some(format!("{error}; {}", report.stands)),
        }
        say(&format!("{name}: {}", report.sentence()));
        report
    }

    async fn steps(&self, node: &Node, pod: &Agent, report: &mut NodeReport) -> Result<State, String> {
        let name = node.name_any();
        let said = self.step("look", node, pod).await?;
        report.take_in(&said);
        said.refuse()?;
        let has_label = node.labels().get(LABEL.0).is_some_and(|it| it == LABEL.1);
        let is_done = said.in_use == "ferrule" && said.new_pods() == 0;
        if is_done && has_label {
            return Ok(State::Already);
        }
        if self.options.dry_run {
            return Ok(State::WouldMove);
        }
        self.may_go_on()?;
        if said.in_use == "old" {
            report.stands = "nothing but the old conflist's name was changed on it";
            self.step("stage", node, pod).await?.refuse()?;
        }
        if !has_label {
            let labels = json!({ "metadata": { "labels": { LABEL.0: LABEL.1 } } });
            let api = Api::<Node>::all(self.cluster.client.clone());
            let patched =
                within(PATIENCE, api.patch(&name, &PatchParams::default(), &Patch::Merge(labels))).await;
            patched.map_err(|error| format!("cannot give it the label {}: {error}", LABEL.0))?;
        }
        report.stands = "its pods, and new ones, still have the old network; it has the label, and ferrule's agent may be on it";
        say(&format!("{name}: waiting for its agent"));
        self.agent_comes(node, pod).await?;
        self.may_go_on()?;
        say(&format!("{name}: taking over"));
        report.stands = "whether its conflists were swapped has to be looked at: run this again";
        let said = self.step("take", node, pod).await?;
        report.take_in(&said);
        if said.in_use == "ferrule" {
            report.stands = "new pods get their network from ferrule, those that were taken over keep theirs";
        } else {
            report.stands =
                "its pods, and new ones, still have the old network; ferrule's agent is beside it";
        }
        said.refuse()?;
        let (taken, before) = (report.pods, report.taken_before);
        tokio::time::sleep(LATE).await;
        let again = self.step("take", node, pod).await?;
        report.take_in(&again);
        report.pods = taken + again.new_pods();
        report.taken_before = before;
        if again.new_pods() > 0 {
            report.notes.push(format!(
                "{} pods still came from the old plugin after the swap, and were taken over as well: the runtime noticed it late. \
                 See whether new pods are ferrule's (kubectl ferrule inspect)",
                again.new_pods()
            ));
        }
        again.refuse()?;
        Ok(State::Moved)
    }

    /// One step of `ferrulectl migrate`. It is never left alone: a node has to be on this side of the swap or on that one.
    async fn step(&self, step: &str, node: &Node, pod: &Agent) -> Result<Said, String> {
        let mut words = ["migrate", step, "--output", "json", "--root", helper::ROOT, "--conf-dir"]
            .map(str::to_owned)
            .to_vec();
        words.push(self.agents.conf_dir.clone());
        let spec = node.spec.as_ref();
        let cidrs = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
        if cidrs.is_empty() {
            return Err("its Node has no podCIDRs".to_owned());
        }
        words.extend(cidrs.into_iter().flat_map(|cidr| ["--pod-cidr".to_owned(), cidr]));
        for (name, value) in [("--from", &self.options.from), ("--results", &self.options.results)] {
            words.extend(value.iter().flat_map(|value| [name.to_owned(), value.clone()]));
        }
        let said = self.cluster.ask(pod, &words, self.common.deadline.max(STEP)).await?;
        said.document("migrate")
    }

    /// Waits until the agent is Ready and has written its conflist, and the old plugin's pods are gone.
    async fn agent_comes(&self, node: &Node, pod: &Agent) -> Result<(), String> {
        let end = tokio::time::Instant::now() + COMING;
        loop {
            self.may_go_on()?;
            let why = match self.what_is_missing(&node.name_any()).await? {
                Some(why) => why,
                None if self.step("look", node, pod).await?.has_conflist => return Ok(()),
                None => "its agent has written no conflist".to_owned(),
            };
            if tokio::time::Instant::now() > end {
                return Err(format!("after {} s {why}", COMING.as_secs()));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn what_is_missing(&self, node: &str) -> Result<Option<String>, String> {
        let client = || self.cluster.client.clone();
        let agents = Api::<Pod>::namespaced(client(), &self.agents.namespace);
        let pods = self.cluster.list(&agents, ListParams::default().labels(SELECTOR), "pods").await?;
        let here: Vec<&Pod> = pods.iter().filter(|pod| node_of(pod) == Some(node)).collect();
        let agent = match agents::choose(here.iter().copied()) {
            Ok(agent) => agent,
            Err(why) => return Ok(Some(why)),
        };
        let chosen = here.iter().find(|pod| pod.name_any() == agent.pod);
        if !chosen.and_then(|pod| agents::container(pod)).is_some_and(|it| it.ready) {
            return Ok(Some(format!("its agent {} is not Ready", agent.pod)));
        }
        for set in self.replaced {
            let namespace = set.namespace().unwrap_or_default();
            let api = Api::<Pod>::namespaced(client(), &namespace);
            let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
            let pods = self.cluster.list(&api, on_node, "pods").await?;
            let is_of_set = |pod: &&Pod| {
                node_of(pod) == Some(node)
                    && pod.owner_references().iter().any(|it| Some(&it.uid) == set.uid().as_ref())
            };
            if let Some(pod) = pods.iter().find(is_of_set) {
                return Ok(Some(format!("the old plugin's pod {} is still there", pod.name_any())));
            }
        }
        Ok(None)
    }

    fn may_go_on(&self) -> Result<(), String> {
        match self.interrupted.load(Ordering::Relaxed) {
            true => Err("interrupted".to_owned()),
            false => Ok(()),
        }
    }
}

impl NodeReport {
    fn take_in(&mut self, said: &Said) {
        self.pods = said.new_pods();
        self.taken_before = said.pods().filter(|pod| pod.state == "already").count();
        self.dead = said.import.as_ref().map_or(0, |it| it.dead.len());
        if said.old_plugin.is_some() {
            self.old_plugin.clone_from(&said.old_plugin);
        }
        if said.host_local.is_some() {
            self.host_local.clone_from(&said.host_local);
        }
        let notes = said.pods().flat_map(|pod| {
            let name = pod.pod.as_deref().unwrap_or(&pod.container);
            pod.notes.iter().map(move |note| format!("{name}: {note}"))
        });
        let done = said.followed.iter().filter(|it| it.problem.is_none());
        let done = done.map(|it| format!("done until the next reboot: {} ({})", it.command, it.reason));
        let carried = said.carried.iter().map(|it| format!("{it} stands behind ferrule now"));
        for note in notes.chain(done).chain(carried) {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }
}
