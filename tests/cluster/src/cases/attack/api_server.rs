//! The API server is away, and with it all that waits for it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::pods::{all_reach_all, one_on_each_node};
use crate::agents::{self, KILL};
use crate::cluster::Node;
use crate::ensure;
use crate::fetch::Asker;
use crate::pod::{HTTP, Pod};
use crate::probe;
use crate::process::{Result, eventually, seconds};
use crate::space::Space;

/// Where kubelet finds pods without an API server; the control plane's own are among them.
const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// Where those of the control plane wait meanwhile.
const ASIDE: &str = "/kind/away";

/// Who goes. The other two could do nothing without the first, and would only be restarted later and later.
const CONTROL_PLANE: &str = "kube-apiserver kube-controller-manager kube-scheduler";

/// Where the pods that come meanwhile leave word of their addresses, on their node.
const ADDRESSES: &str = "/run/attack";

/// How long kubelet may take for a pod, and for the control plane, on a machine that others use as well.
const KUBELET: Duration = Duration::from_secs(60);
pub const STARTS: Duration = Duration::from_secs(180);

/// The control plane, taken away. It comes back with the end of this value.
pub struct Away<'n>(&'n Node);

impl<'n> Away<'n> {
    pub fn take(node: &'n Node) -> Result<Self> {
        let away = Self(node);
        node.shell(&format!(
            "mkdir -p {ASIDE} && for name in {CONTROL_PLANE}; do mv {MANIFESTS}/$name.yaml {ASIDE}/ || exit 1; done"
        ))?;
        eventually("the API server is away", KUBELET, || {
            let gone = node.run(&[
                "curl",
                "--silent",
                "--insecure",
                "--max-time",
                "2",
                "https://localhost:6443/livez",
            ]);
            ensure!(gone.is_err(), "it answers");
            Ok(())
        })?;
        Ok(away)
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        // What could not be moved was not away.
        let _ = self.0.shell(&format!("mv {ASIDE}/*.yaml {MANIFESTS}/"));
    }
}

/// Pods come and go on the workers meanwhile, by manifests that kubelet reads from a directory; and an agent that is
/// killed comes back with what it knew.
pub fn an_api_server_that_is_away_costs_no_packet(space: &Space<'_>) -> Result {
    let names = one_on_each_node(space)?;
    let control_plane = space.control_plane()?;
    let since = agents::time_on(control_plane)?;
    let span = Duration::from_secs(space.length.of(20, 180));
    let outcome = probe::during(space, &names, || {
        let outcome = without(control_plane, || meanwhile(space, Instant::now() + span));
        eventually("the API server is back", STARTS, || space.kubectl(&["get", "--raw", "/readyz"]))?;
        let heard = all_hear_it(space, &since);
        // Also where the rest failed: the next case needs all of it.
        is_back(space)?;
        let (pods, took) = outcome?;
        space.note(format!("away for {}, {pods} pods came and went", seconds(took)));
        heard
    });
    let removed = remove_manifests(space);
    let ((), losses) = outcome?;
    removed?;
    losses.none()?;
    let said = agents::said(control_plane, &since, "API server not reachable")?;
    space.note(format!("the agent: {said}"));
    all_reach_all(space, &names).map(|_| ())
}

/// Every agent says that the API server answers; it knows by the first word of any node.
fn all_hear_it(space: &Space<'_>, since: &str) -> Result {
    let back = Instant::now();
    for node in &space.nodes {
        agents::said(node, since, "API server reachable again")?;
    }
    space.note(format!("all agents had it again {} after it was ready", seconds(back.elapsed())));
    Ok(())
}

/// What comes of something that is done without the control plane, and how long that took.
fn without<T>(control_plane: &Node, act: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let _away = Away::take(control_plane)?;
    let begin = Instant::now();
    Ok((act()?, begin.elapsed()))
}

/// Pods on every worker until `end`, at least one each; how many there were.
fn meanwhile(space: &Space<'_>, end: Instant) -> Result<usize> {
    let workers: Vec<&Node> = space.nodes.iter().filter(|node| !node.is_control_plane).collect();
    ensure!(!workers.is_empty(), "a cluster without workers");
    let killed_at = agents::time_on(workers[0])?;
    let killed = workers[0].shell(&format!("{KILL}\nkill_agent; echo $killed"))?;
    ensure!(killed.trim() == "1", "{killed} agents were killed");
    let mut pods = 0;
    while pods == 0 || Instant::now() < end {
        for (number, node) in workers.iter().enumerate() {
            put(space, node, &format!("static-{}", pods + number), "default")?;
        }
        for (number, node) in workers.iter().enumerate() {
            let name = format!("static-{}", pods + number);
            let addresses = addresses_of(space, node, &name)?;
            for asker in &space.nodes {
                for address in &addresses {
                    eventually(&format!("{name} answers {}", asker.name), KUBELET, || {
                        let said = asker.ask(*address, HTTP, "hostname")?;
                        ensure!(said.starts_with(&name), "{said} answers");
                        Ok(())
                    })?;
                }
            }
            node.run(&["rm", &format!("{MANIFESTS}/{name}.yaml")])?;
            for address in &addresses {
                eventually(&format!("{address} is free again"), KUBELET, || is_free(node, address))?;
            }
        }
        pods += workers.len();
    }
    agents::said(workers[0], &killed_at, "saved state loaded")?;
    Ok(pods)
}

/// A pod that kubelet is to start by itself, and that tells the node which addresses it has. Its name begins with `static-`.
pub fn put(space: &Space<'_>, node: &Node, name: &str, namespace: &str) -> Result {
    let script = format!(
        "ip -o address show dev eth0 scope global >/attack/{name} && exec /agnhost netexec --http-port={HTTP} --udp-port=-1"
    );
    let word = json!([{ "name": "word", "hostPath": { "path": ADDRESSES, "type": "DirectoryOrCreate" } }]);
    let mut pod = Pod::running(name, &space.agnhost, &["-c", &script])
        .with("/spec/containers/0/command", json!(["sh"]))
        .with("/spec/volumes", word)
        .with("/metadata/namespace", json!(namespace))
        .manifest();
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "word", "mountPath": "/attack" }]);
    // Kubelet passes over what begins with a dot, so it finds the whole file or none.
    let put = format!("cat >{MANIFESTS}/.{name} && mv {MANIFESTS}/.{name} {MANIFESTS}/{name}.yaml");
    crate::process::run_with_input(
        "docker",
        &["exec", "--interactive", &node.name, "sh", "-c", &put],
        &Value::to_string(&pod),
    )?;
    Ok(())
}

/// Those that the pod has written down, one per family.
pub fn addresses_of(space: &Space<'_>, node: &Node, name: &str) -> Result<Vec<IpAddr>> {
    eventually(&format!("{name} runs on {}", node.name), KUBELET, || {
        let text = node.run(&["cat", &format!("{ADDRESSES}/{name}")])?;
        let words = text.split_whitespace().filter_map(|word| word.split_once('/')?.0.parse().ok());
        let found: Vec<IpAddr> = words.collect();
        ensure!(found.len() == space.families.len(), "its addresses are {text:?}");
        Ok(found)
    })
}

/// Nobody holds it, in ferrule's own books.
fn is_free(node: &Node, address: &IpAddr) -> Result {
    let held = node.shell(&format!("ls -d /var/lib/cni/ferrule/*/by-ip/{address} 2>/dev/null || true"))?;
    ensure!(held.trim().is_empty(), "{held}");
    Ok(())
}

/// Waits until the nodes are Ready and all of the control plane is at work.
pub fn is_back(space: &Space<'_>) -> Result {
    let timeout = format!("--timeout={}s", STARTS.as_secs());
    space.kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", &timeout])?;
    eventually("the control plane is at work", STARTS, || {
        let answer =
            space.get(&["--namespace", "kube-system", "pods", "--selector", "tier=control-plane"])?;
        let pods = answer["items"].as_array().cloned().unwrap_or_default();
        ensure!(pods.len() > 3, "{} pods", pods.len());
        for pod in pods {
            let status = &pod["status"]["containerStatuses"][0];
            ensure!(status["ready"] == true, "{}: {}", pod["metadata"]["name"], status["state"]);
        }
        Ok(())
    })?;
    space.system_rolled_out("daemonset/ferrule")
}

/// Whatever came of it: no such pod stays.
pub fn remove_manifests(space: &Space<'_>) -> Result {
    for node in &space.nodes {
        node.shell(&format!("rm -rf {MANIFESTS}/static-* {MANIFESTS}/.static-* {ADDRESSES}"))?;
    }
    Ok(())
}
