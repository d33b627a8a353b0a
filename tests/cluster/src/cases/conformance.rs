//! Kubernetes' own network tests, by name: those of conformance, the Granular Checks, and those of NetworkPolicy.
//!
//! `E2E_DIR` names the directory with `e2e.test` and `ginkgo` of the cluster's version, as Kubernetes releases them
//! together (kubernetes-test-linux-amd64.tar.gz). Without it these cases are skipped.

use std::fs;
use std::path::PathBuf;

use kit::files::Scratch;
use serde_json::Value;

use super::policies::tiers::{self, Defined};
use crate::ensure;
use crate::process::{Result, run};
use crate::space::Space;

/// How many cases at the same time.
const PROCESSES: usize = 5;

/// The same for those of NetworkPolicy: each asks every pod of three namespaces for every other.
const PROCESSES_OF_POLICIES: usize = 3;

/// What is not for every cluster: what disturbs all of it, the cases of before `Netpol`, and SCTP, for which the kernel
/// must have a module.
const SKIP_OF_POLICIES: &str = r"NetworkPolicyLegacy|\[Disruptive\]|SCTP";

/// What a cluster made by kind cannot have: features behind gates, load balancers, the internet.
const SKIP: &str = r"\[Disruptive\]|\[Feature:|\[FeatureGate:|LoadBalancer|provide Internet connection";

/// Where the programs are.
pub fn directory() -> Option<PathBuf> {
    std::env::var_os("E2E_DIR").filter(|directory| !directory.is_empty()).map(PathBuf::from)
}

/// "no conflict between pods with same hostPort but different hostIP and protocol": on IPv6 with `hostIP` ::1.
pub fn host_ports_do_not_conflict(space: &Space<'_>) -> Result {
    pass(space, r"\[sig-network\] HostPort.*\[Conformance\]", 1)
}

/// Pods, nodes and Services to each other, by TCP and UDP.
pub fn granular_checks_pass(space: &Space<'_>) -> Result {
    pass(space, r"\[sig-network\] Networking Granular Checks", 15)
}

/// Services, with session affinity, NodePorts and endpoints that come and go.
pub fn conformance_of_services_passes(space: &Space<'_>) -> Result {
    pass(space, r"\[sig-network\] Services.*\[Conformance\]", 15)
}

/// All the rest of conformance: DNS, EndpointSlices, proxies, the APIs.
pub fn conformance_of_the_rest_passes(space: &Space<'_>) -> Result {
    let skip = format!(r"{SKIP}|\[sig-network\] (HostPort|Networking Granular Checks|Services) ");
    pass_but(space, r"\[sig-network\].*\[Conformance\]", &skip, 10, PROCESSES)
}

/// All that they ask of a network that enforces NetworkPolicies; of Kubernetes 1.34 these are 45.
pub fn network_policies_pass(space: &Space<'_>) -> Result {
    pass_but(space, r"\[sig-network\] Netpol", SKIP_OF_POLICIES, 40, PROCESSES_OF_POLICIES)
}

/// The suite of network-policy-api, if `CNP_DIR` names a directory with it.
pub fn cluster_program() -> Option<PathBuf> {
    tiers::directory().map(|directory| directory.join("conformance.test")).filter(|program| program.exists())
}

/// All that network-policy-api asks of an implementation of its standard channel. Nearly all of it tries SCTP as well, so
/// nodes must have that module.
pub fn cluster_network_policies_pass(space: &Space<'_>) -> Result {
    let program = cluster_program().ok_or("CNP_DIR names no conformance.test")?;
    let _defined = Defined::new(space)?;
    let scratch = Scratch::new("cnp");
    let kubeconfig = scratch.path().join("kubeconfig").display().to_string();
    let content = space.kubectl(&["config", "view", "--minify", "--flatten", "--raw"])?;
    fs::write(&kubeconfig, content).map_err(|error| error.to_string())?;
    let program = program.display().to_string();
    let words = ["-test.v", "-test.timeout=30m", "-test.run=^TestConformance$"];
    let set = format!("KUBECONFIG={kubeconfig}");
    let said = run("env", &[&[set.as_str(), program.as_str()], &words[..]].concat());
    let text = match &said {
        Ok(text) => text.clone(),
        Err(failure) => failure.to_string(),
    };
    let count = |what: &str| text.lines().filter(|line| line.trim_start().starts_with(what)).count();
    let failed: Vec<&str> = text.lines().filter(|line| line.trim_start().starts_with("--- FAIL")).collect();
    ensure!(failed.is_empty() && said.is_ok(), "{}\n{}", failed.join("\n"), last_lines(&text));
    let passed = count("--- PASS");
    ensure!(passed > 40, "only {passed} passed");
    space.note(format!("{passed} passed, {} skipped", count("--- SKIP")));
    Ok(())
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

fn pass(space: &Space<'_>, focus: &str, least: usize) -> Result {
    pass_but(space, focus, SKIP, least, PROCESSES)
}

/// Runs what matches `focus` and not `skip`; `least`: fewer would say that they have other names now.
fn pass_but(space: &Space<'_>, focus: &str, skip: &str, least: usize, processes: usize) -> Result {
    let directory = directory().ok_or("E2E_DIR is not set")?;
    let scratch = Scratch::new("e2e");
    let file = |name: &str| scratch.path().join(name).display().to_string();
    let kubeconfig = space.kubectl(&["config", "view", "--minify", "--flatten", "--raw"])?;
    fs::write(file("kubeconfig"), kubeconfig).map_err(|error| error.to_string())?;
    let (focus, skip, kubeconfig) = (
        format!("--focus={focus}"),
        format!("--skip={skip}"),
        format!("--kubeconfig={}", file("kubeconfig")),
    );
    let (output, nodes) =
        (format!("--output-dir={}", scratch.path().display()), space.nodes.len().to_string());
    let (processes, nodes) = (format!("--procs={processes}"), format!("--num-nodes={nodes}"));
    let program = |name: &str| directory.join(name).display().to_string();
    let (ginkgo, test) = (program("ginkgo"), program("e2e.test"));
    let words = [
        &focus,
        &skip,
        &processes,
        "--no-color",
        "--timeout=19m",
        "--json-report=report.json",
        &output,
        &test,
        "--",
        &kubeconfig,
        &nodes,
        "--provider=skeleton",
        "--disable-log-dump",
        "--system-pods-startup-timeout=2m",
    ];
    // What failed is in the report; that it says nothing is the failure that remains.
    let said = run(&ginkgo, &words);
    let report = fs::read(file("report.json")).map_err(|error| match &said {
        Ok(_) => format!("no report: {error}"),
        Err(failure) => format!("no report: {error}; {failure}"),
    })?;
    let report: Value = serde_json::from_slice(&report).map_err(|error| error.to_string())?;
    judge(space, &report, least)
}

fn judge(space: &Space<'_>, report: &Value, least: usize) -> Result {
    let suites = report.as_array().into_iter().flatten();
    let specs = suites.filter_map(|suite| suite["SpecReports"].as_array()).flatten();
    let ran = specs.filter(|spec| {
        spec["LeafNodeType"] == "It" && !["skipped", "pending"].iter().any(|state| spec["State"] == *state)
    });
    let (passed, failed): (Vec<_>, Vec<_>) = ran.partition(|spec| spec["State"] == "passed");
    let complaints: Vec<String> = failed
        .iter()
        .map(|spec| {
            let message = spec.pointer("/Failure/Message").and_then(Value::as_str).unwrap_or_default();
            format!("{}: {}", name(spec), message.chars().take(400).collect::<String>())
        })
        .collect();
    ensure!(
        complaints.is_empty(),
        "{} failed of {}:\n{}",
        failed.len(),
        passed.len() + failed.len(),
        complaints.join("\n")
    );
    ensure!(passed.len() >= least, "only {} cases have such names", passed.len());
    space.note(format!("{} cases", passed.len()));
    Ok(())
}

fn name(spec: &Value) -> String {
    let hierarchy = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
    let words: Vec<&str> = hierarchy.chain([&spec["LeafNodeText"]]).filter_map(Value::as_str).collect();
    words.join(" ")
}
