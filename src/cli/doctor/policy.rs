//! NetworkPolicies: pods that are held, policies that do not do what their author may think, and a table that is not
//! what the agent made of it.

use std::time::{Duration, SystemTime};

use crate::attachments::networks::Networks;
use crate::attachments::node_view::NodeView;
use crate::attachments::pod_rules;
use crate::cli::doctor::{Finding, agent_process, name_some, policy_dns};
use crate::cli::policy::known::{AttachedPod, Known};
use crate::cni::error::CniError;
use crate::datapath::policy::{self, Bound};
use crate::linux::nfnetlink::Nfnetlink;
use crate::policy::names::pod_chain;
use crate::policy::plan::{Direction, Plan};
use crate::policy::planner::{Planner, What};
use crate::store::Store;
use crate::text_table::show_age;

/// How long after it was attached a pod may be unknown to an agent that runs, in seconds. As a rule it is milliseconds.
const HELD_MAX: u64 = 10;

/// How much older what the agent knew may be than what it made of it.
const STALE: Duration = Duration::from_secs(180);

/// How often a table that differs is looked at again, and after what time: the agent writes its plan a little later.
const LOOKS: usize = 3;
const PAUSE: Duration = Duration::from_secs(2);

/// The link on which kube-proxy keeps the addresses of Services in IPVS mode.
const IPVS_LINK: &str = "kube-ipvs0";

/// Looks at them.
///
/// # Errors
/// Where store or kernel cannot be read.
pub async fn examine(networks: &Networks, node: &NodeView) -> Result<Vec<Finding>, CniError> {
    let mut findings = Vec::new();
    let known = Known::read(networks, node).await?;
    let nft = pod_rules::open()?;
    let exists = nft.has_table(&policy::table()).await?;
    if !exists && known.objects.is_none() && known.plan.is_none() && known.problems.is_empty() {
        return Ok(findings);
    }
    findings.extend(known.problems.iter().map(|problem| {
        Finding::new("policy-file-unreadable", problem.to_string())
            .because(
                "it was changed by hand, torn by a power loss, or written by a newer version; until the agent writes it \
                 again, a table that is flushed while the agent is down closes all pods that were attached",
            )
            .remedy("start ferruled, which writes it again; if it runs, delete the file")
    }));
    let agent_runs = agent_process::is_running();
    let bound = policy::bound(&nft).await?;
    let held = held(&known, &bound, agent_runs);
    findings.extend(agent(&held, agent_runs));
    findings.extend(held_finding(&held, agent_runs));
    findings.extend(examine_table(networks, node, &nft, known, agent_runs).await?);
    let known = Known::read(networks, node).await?;
    if known.objects.is_some() {
        let planner = known.planner(&known.objects());
        findings.extend(examine_policies(&planner));
        let addresses = node.netlink.addresses(None).await?;
        let addresses: Vec<_> = addresses.iter().map(|it| (it.device, it.network.ip())).collect();
        findings.extend(policy_dns::examine(planner.plan(), &policy_dns::local_addresses(node, &addresses)));
    }
    findings.extend(examine_age(networks)?);
    findings.extend(ipvs(node));
    Ok(findings)
}

/// IPVS takes a packet at the hook input and sends it from output, so it never passes forward.
fn ipvs(node: &NodeView) -> Option<Finding> {
    let found = "kube-proxy runs in IPVS mode: what a pod or a client sends to a Service is not asked for the ingress policies \
                 of endpoints on this node, and for egress policies the Service's address counts";
    node.links.iter().any(|link| link.name == IPVS_LINK).then(|| {
        Finding::new("policy-ipvs", found)
            .because("IPVS sends such packets from the node's own output hook; NetworkPolicies are enforced where packets are forwarded")
            .remedy("set kube-proxy's mode to nftables or iptables; Kubernetes has deprecated IPVS mode")
    })
}

/// A pod that is held, and how long it has been attached, where a record tells.
type Held<'a> = (String, Option<&'a AttachedPod>);

/// Those that are held for longer than an agent that runs needs.
fn held<'a>(known: &'a Known, bound: &[Bound], agent_runs: bool) -> Vec<Held<'a>> {
    let mut held: Vec<Held<'a>> = Vec::new();
    for it in bound.iter().filter(|it| it.is_held()) {
        let record = known.attached.iter().find(|pod| pod.attached.link == it.link);
        let is_new = agent_runs && record.is_some_and(|pod| pod.age < HELD_MAX);
        if !is_new && !held.iter().any(|(name, _)| *name == it.name) {
            held.push((it.name.clone(), record));
        }
    }
    held
}

fn held_finding(held: &[Held<'_>], agent_runs: bool) -> Option<Finding> {
    let show = |(name, record): &Held<'_>| match record {
        Some(pod) => format!("{name} for {}", show_age(pod.age)),
        None => name.clone(),
    };
    let shown: Vec<String> = held.iter().map(show).collect();
    let cause = "NetworkPolicies isolate pods of their namespaces, and the agent has not told the kernel of these pods yet; \
                 they get nothing but what policies for all pods of their namespace allow";
    let remedy = if agent_runs {
        "see ferruled's log for what the API server refuses; if a pod does not exist any more, reclaim or delete it; \
         policyUnknown: open lets such pods have everything"
    } else {
        "start ferruled: it lets them go within a second"
    };
    (!held.is_empty()).then(|| {
        Finding::new("pods-held", format!("pods in the hold: {}", name_some(&shown)))
            .because(cause)
            .remedy(remedy)
    })
}

fn agent(held: &[Held<'_>], agent_runs: bool) -> Option<Finding> {
    let found = "no ferruled runs on this node, and there are NetworkPolicies";
    let finding = match (agent_runs, held.is_empty()) {
        (true, _) => return None,
        (false, false) => Finding::new("policy-agent-down", found),
        (false, true) => Finding::warning("policy-agent-down", found),
    };
    let cause = "what is in the kernel stays in force, but changes of policies and pods do not reach it, and new pods of \
                 namespaces with policies stay in the hold";
    Some(
        finding
            .because(cause)
            .remedy("start it: kubectl --namespace kube-system get pods --selector app.kubernetes.io/name=ferrule shows what keeps it"),
    )
}

/// The table, and who is led to it, against what the agent has kept.
async fn examine_table(
    networks: &Networks,
    node: &NodeView,
    nft: &Nfnetlink,
    mut known: Known,
    agent_runs: bool,
) -> Result<Vec<Finding>, CniError> {
    let looks = if agent_runs { LOOKS } else { 1 };
    let (mut differences, mut is_untold) = (Vec::new(), false);
    for look in 1..=looks {
        if look > 1 {
            tokio::time::sleep(PAUSE).await;
            known = Known::read(networks, node).await?;
        }
        if !known.problems.is_empty() {
            return Ok(Vec::new());
        }
        let empty = Plan::default();
        let plan = known.plan.as_ref().map_or(&empty, |file| &file.plan);
        let mirror = policy::read(nft).await?;
        is_untold = mirror.is_untold();
        if known.plan.is_some() && !mirror.exists() {
            differences = vec!["there is no table inet ferrule-policy".to_owned()];
            continue;
        }
        differences = mirror.differences(plan);
        // After a reboot, and of very many pods, the file does not tell who is in the sets.
        if known.plan.as_ref().is_some_and(|file| !file.has_members) {
            differences.retain(|it| !it.starts_with("set "));
        }
        differences.extend(unbound(plan, &known, &policy::bound(nft).await?));
        if differences.is_empty() {
            break;
        }
    }
    let untold = is_untold.then(|| {
        Finding::warning("policy-log-missing", "nobody is told which packets policies deny")
            .because("the kernel has no nft_log, nft_limit or nfnetlink_log; packets are denied and counted all the same")
            .remedy("modprobe -a nft_log nft_limit nfnetlink_log (some distributions have them in linux-modules-extra), and start ferruled again")
    });
    let differs = (!differences.is_empty()).then(|| {
        Finding::new("policy-table-differs", format!("policies in the kernel: {}", name_some(&differences)))
            .because(
                "another program flushed or changed table inet ferrule-policy (nft flush ruleset, a firewall's reload), and \
                 the agent does not run or cannot repair it; some pods may be open, and others closed",
            )
            .remedy("start ferruled, or see its log; without it, ferrulectl sync or the next ADD makes a table that is gone")
    });
    Ok(untold.into_iter().chain(differs).collect())
}

/// Pods of the plan whose packets do not come to their chains.
fn unbound(plan: &Plan, known: &Known, bound: &[Bound]) -> Vec<String> {
    let mut unbound = Vec::new();
    for it in &known.attached {
        if !plan.pods.contains_key(&it.attached.uid) {
            continue;
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            let chain = pod_chain(direction, &it.attached.uid);
            let is_led = |bound: &&Bound| bound.link == it.attached.link && bound.direction == direction;
            let is_right = bound.iter().find(is_led).is_some_and(|bound| bound.chain == chain);
            if !is_right {
                unbound.push(format!("nothing leads packets of {} to chain {chain}", it.attached.name));
            }
        }
    }
    unbound
}

/// Policies that do not do what their author may think.
fn examine_policies(planner: &Planner) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut idle = Vec::new();
    for problem in planner.problems() {
        let name = problem.policy.to_string();
        let is_of_cluster = problem.policy.namespace.is_empty();
        match problem.what {
            What::SelectsNobody => idle.push(name),
            What::Unclear(invalid, consequence) => findings.push(
                Finding::new(
                    "policy-invalid",
                    format!("ClusterNetworkPolicy {name} cannot be understood: {invalid}"),
                )
                .because(format!("{consequence}; other rules and policies are in force"))
                .remedy(format!(
                    "correct {} of the policy: kubectl edit clusternetworkpolicy {name}",
                    invalid.field
                )),
            ),
            What::Invalid(invalid) if is_of_cluster => findings.push(
                Finding::new("policy-invalid", format!("ClusterNetworkPolicy {name}: {invalid}"))
                    .because("the pods that it is about are closed in that direction")
                    .remedy(format!(
                        "correct {} of the policy: kubectl edit clusternetworkpolicy {name}",
                        invalid.field
                    )),
            ),
            What::Invalid(invalid) => findings.push(
                Finding::new("policy-invalid", format!("policy {name} cannot be compiled: {invalid}"))
                    .because(
                        "the pods that it selects are closed in its directions; other policies are in force",
                    )
                    .remedy(format!(
                        "correct {} of the policy: kubectl --namespace {} edit networkpolicy {}",
                        invalid.field, problem.policy.namespace, problem.policy.name
                    )),
            ),
        }
    }
    if !idle.is_empty() {
        findings.push(
            Finding::warning("policy-selects-nobody", format!("policies that select no pod: {}", name_some(&idle)))
                .because("no pod of the policy's namespace has the labels of spec.podSelector, or spec.subject of a \
                          ClusterNetworkPolicy, so it isolates nobody")
                .remedy("compare spec.podSelector or spec.subject with kubectl get pods --show-labels; if the pods are to come, all is well"),
        );
    }
    findings
}

/// What `policy why` goes by, against the plan that was made of it.
fn examine_age(networks: &Networks) -> Result<Option<Finding>, CniError> {
    for network in &networks.known {
        let Some(store) = Store::open_existing(&network.data_dir, &network.name)? else { continue };
        // Something else in the place of a file is told above.
        let Ok([objects, Some(plan)]) = store.policy_files_written() else { continue };
        let behind = plan.duration_since(objects.unwrap_or(SystemTime::UNIX_EPOCH)).unwrap_or_default();
        if behind > STALE {
            let found = match objects {
                Some(_) => format!(
                    "what the agent knows was last kept {} before the plan of the table",
                    show_age(behind.as_secs())
                ),
                None => "the agent has kept a plan of the table, and not what it was made from".to_owned(),
            };
            return Ok(Some(
                Finding::warning("policy-objects-stale", found)
                    .of(&network.name)
                    .because("the agent could not write it; ferrulectl policy answers by what was known then")
                    .remedy("see ferruled's log for step=policy_objects; the disk may be full"),
            ));
        }
    }
    Ok(None)
}
