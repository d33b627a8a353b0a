//! What people run: Deployments, StatefulSets, Jobs; many pods at once, and pods that come and go.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Node, addresses_of};
use crate::ensure;
use crate::fetch::{Asker, In, url};
use crate::pod::{HTTP, Pod, deployment, service};
use crate::process::{Result, eventually, seconds};
use crate::space::Space;

/// Where ferrule keeps who has which address, one file per address; absent where it is not installed.
const HELD: &str = "ls /var/lib/cni/ferrule/*/by-ip 2>/dev/null | grep -c . || true";

/// No address belongs to two pods, and on no node are more addresses held than its pods have.
pub fn none_is_doubled_and_none_lost(space: &Space<'_>) -> Result {
    let mut owners: BTreeMap<IpAddr, String> = BTreeMap::new();
    for pod in space.pods_with_addresses()? {
        let name = pod["metadata"]["name"].to_string();
        for address in addresses_of(&pod) {
            if let Some(other) = owners.insert(address, name.clone()) {
                return Err(format!("{address} belongs to {other} and to {name}").into());
            }
        }
    }
    for node in &space.nodes {
        eventually(&format!("{} holds no address for nobody", node.name), Duration::from_secs(60), || {
            let pods = space.pods_with_addresses()?;
            let here = pods.iter().filter(|pod| pod["spec"]["nodeName"] == *node.name);
            let expected: usize = here.map(|pod| addresses_of(pod).len()).sum();
            let held: usize = node.shell(HELD)?.trim().parse().unwrap_or(0);
            ensure!(held <= expected, "{held} addresses are held, its pods have {expected}");
            Ok(())
        })?;
    }
    Ok(())
}

/// They all start, each with addresses of its own, and each serves.
pub fn sixty_pods_at_once(space: &Space<'_>) -> Result {
    let asker = Pod::running("asker", &space.agnhost, &["pause"]).on(space.control_plane()?);
    space.create([asker.manifest()])?;
    space.all_ready(Duration::from_secs(60))?;
    let start = Instant::now();
    space.create([deployment("many", 60, Pod::small("many"))])?;
    space.rolled_out("deployment/many", Duration::from_secs(240))?;
    space.note(format!("60 pods ready in {}", seconds(start.elapsed())));
    each_serves(space, "asker", "many", 60)?;
    none_is_doubled_and_none_lost(space)
}

/// Every one of the `count` pods with the label `app`, at each of its addresses, to a pod that asks once.
pub fn each_serves(space: &Space<'_>, asker: &str, app: &str, count: usize) -> Result {
    let answer = space.get(&["pods", "--selector", &format!("app={app}")])?;
    let pods = answer["items"].as_array().cloned().unwrap_or_default();
    let expected: Vec<(IpAddr, String)> = pods
        .iter()
        .flat_map(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            addresses_of(pod).into_iter().map(move |address| (address, name.clone()))
        })
        .collect();
    ensure!(expected.len() == count * space.families.len(), "{} addresses for {count} pods", expected.len());
    let urls: Vec<String> = expected.iter().map(|(address, _)| url(*address, 80, "hostname")).collect();
    let mut words = vec!["curl", "--silent", "--show-error", "--fail", "--max-time", "5"];
    words.extend(urls.iter().map(String::as_str));
    let answers = space.exec(asker, &words)?;
    let names: Vec<&str> = answers.lines().collect();
    let wanted: Vec<&str> = expected.iter().map(|(_, name)| name.as_str()).collect();
    ensure!(names == wanted, "asked {wanted:?}, answered {names:?}");
    Ok(())
}

/// While somebody asks for it all the time.
pub fn a_deployment_rolled_ten_times(space: &Space<'_>) -> Result {
    let mut web = deployment("web", 3, Pod::small("web"));
    web["spec"]["strategy"] = json!({ "rollingUpdate": { "maxUnavailable": 0, "maxSurge": "100%" } });
    let asker = Pod::running("asker", &space.agnhost, &["pause"]).on(space.worker(0)?);
    space.create([asker.manifest(), web, service("web", "web", json!([{ "port": 80 }]))])?;
    space.all_ready(Duration::from_secs(60))?;
    space.rolled_out("deployment/web", Duration::from_secs(60))?;
    let start = Instant::now();
    for _ in 0..10 {
        space.kubectl(&["rollout", "restart", "deployment/web"])?;
        space.rolled_out("deployment/web", Duration::from_secs(120))?;
        none_is_doubled_and_none_lost(space)?;
        for address in space.service_addresses("web")? {
            eventually("the service", Duration::from_secs(20), || {
                In(space, "asker").ask(address, 80, "hostname")
            })?;
        }
    }
    space.note(format!("ten rollouts of three pods in {}", seconds(start.elapsed())));
    Ok(())
}

/// Each of its pods has a name, which goes on when the pod is another one.
pub fn a_stateful_set_is_reached_by_name(space: &Space<'_>) -> Result {
    let mut headless = service("db", "db", json!([{ "port": 80 }]));
    headless["spec"]["clusterIP"] = json!("None");
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "db" },
        "spec": {
            "replicas": 3, "serviceName": "db", "podManagementPolicy": "Parallel",
            "selector": { "matchLabels": { "app": "db" } }, "template": Pod::small("db").template(),
        },
    });
    let asker = Pod::running("asker", &space.agnhost, &["pause"]).on(space.worker(0)?);
    space.create([headless, set, asker.manifest()])?;
    space.rolled_out("statefulset/db", Duration::from_secs(120))?;
    space.all_ready(Duration::from_secs(60))?;
    let by_name = |name: &str| {
        eventually(&format!("{name}.db"), Duration::from_secs(60), || {
            let target = format!("http://{name}.db/hostname");
            let answer = space
                .exec("asker", &["curl", "--silent", "--show-error", "--fail", "--max-time", "3", &target])?;
            ensure!(answer.trim() == name, "{answer} answers");
            Ok(())
        })
    };
    for name in ["db-0", "db-1", "db-2"] {
        by_name(name)?;
    }
    let uid = |pod: Value| pod["metadata"]["uid"].to_string();
    let before = uid(space.get(&["pod", "db-1"])?);
    space.kubectl(&["delete", "pod", "db-1", "--timeout=60s"])?;
    eventually("another db-1", Duration::from_secs(60), || {
        ensure!(uid(space.get(&["pod", "db-1"])?) != before, "it is the old one");
        Ok(())
    })?;
    space.rolled_out("statefulset/db", Duration::from_secs(120))?;
    by_name("db-1")
}

/// Each asks a server as the first thing it does, and has one try: its first packet must arrive.
pub fn a_job_of_a_hundred_short_pods(space: &Space<'_>) -> Result {
    space.create([Pod::server("server", &space.agnhost).on(space.worker(0)?).manifest()])?;
    space.all_ready(Duration::from_secs(60))?;
    let address = space.addresses("server")?.into_iter().next().ok_or("no address")?;
    let mut short = Pod::running("short", "busybox", &[]);
    let ask = ["wget", "-q", "-T", "10", "-O", "-", &url(address, HTTP, "hostname")];
    short = short.with("/spec/containers/0/command", json!(ask)).with("/spec/restartPolicy", json!("Never"));
    let start = Instant::now();
    space.create([json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "short" },
        "spec": { "completions": 100, "parallelism": 20, "backoffLimit": 0, "template": short.template() },
    })])?;
    eventually("a hundred pods", Duration::from_secs(300), || {
        let status = space.get(&["job", "short"])?["status"].take();
        let (failed, succeeded) = (status["failed"].as_u64(), status["succeeded"].as_u64());
        ensure!(succeeded == Some(100) || failed.unwrap_or(0) > 0, "{status}");
        Ok(())
    })?;
    let answer = space.get(&["job", "short"])?;
    ensure!(answer["status"]["succeeded"] == 100, "{}", answer["status"]);
    space.note(format!("a hundred pods in {}", seconds(start.elapsed())));
    none_is_doubled_and_none_lost(space)
}

/// The process that holds the pod's network dies; the pod comes back, and what it had is free again.
pub fn a_killed_sandbox_is_replaced(space: &Space<'_>) -> Result {
    let node = space.worker(1)?;
    space.create([
        Pod::server("victim", &space.agnhost).on(node).manifest(),
        Pod::running("asker", &space.agnhost, &["pause"]).on(space.worker(0)?).manifest(),
    ])?;
    space.all_ready(Duration::from_secs(120))?;
    kill_sandbox(space, node, "victim")?;
    let start = Instant::now();
    eventually("the pod is back", Duration::from_secs(90), || {
        let answer = space.get(&["pod", "victim"])?;
        let status = &answer["status"]["containerStatuses"][0];
        ensure!(status["restartCount"].as_u64() > Some(0) && status["ready"] == true, "{status}");
        Ok(())
    })?;
    for address in space.addresses("victim")? {
        In(space, "asker").ask(address, HTTP, "hostname")?;
    }
    space.note(format!("back in {}", seconds(start.elapsed())));
    Ok(())
}

/// By SIGKILL.
fn kill_sandbox(space: &Space<'_>, node: &Node, pod: &str) -> Result {
    node.run(&["kill", "-9", &sandbox_of(space, node, pod)?]).map(|_| ())
}

/// The process that holds a pod's network on its node: the pause program in the pod's cgroup.
pub fn sandbox_of(space: &Space<'_>, node: &Node, pod: &str) -> Result<String> {
    let answer = space.get(&["pod", pod])?;
    let uid = answer["metadata"]["uid"].as_str().ok_or("a pod without a uid")?;
    // systemd's cgroup names have no minus inside a part.
    let script = format!(
        "for file in $(grep -l -e {uid} -e {} /proc/[0-9]*/cgroup 2>/dev/null); do
             directory=${{file%/cgroup}}
             [ \"$(cat $directory/comm)\" = pause ] && echo ${{directory#/proc/}}
         done; true",
        uid.replace('-', "_")
    );
    let said = node.shell(&script)?;
    let found = said.lines().next().ok_or_else(|| format!("found no sandbox of {pod} on {}", node.name))?;
    Ok(found.to_owned())
}
