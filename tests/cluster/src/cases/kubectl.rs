//! `kubectl ferrule`, the program of this checkout, asked as a user asks it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use kit::answer::Answer;
use kit::binaries::KUBECTL_FERRULE;
use kit::call::Call;
use kit::files::Scratch;
use serde_json::{Value, json};

use super::agent::AGENT;
use super::{leaving, pods};
use crate::cluster::{Cluster, Node, deploy, parse};
use crate::ensure;
use crate::fetch::{Asker, In};
use crate::pod::{HTTP, service};
use crate::process::{Result, eventually, pause, run_with_input};
use crate::space::Space;

/// The account that has the rights of deploy/kubectl and no others.
const ACCOUNT: &str = "somebody";

/// Kubernetes takes 40 seconds for granted before it says that a kubelet is silent.
const SILENT: Duration = Duration::from_secs(120);

/// With the kubeconfig that kubectl has.
fn call(cluster: &Cluster, words: &str) -> Call {
    let context = format!("kind-{}", cluster.name);
    let call = Call::of(&*KUBECTL_FERRULE).argument("--context").argument(context).arguments(words);
    ["KUBECONFIG", "HOME"].into_iter().fold(call, |call, name| match std::env::var_os(name) {
        Some(value) => call.env(name, value),
        None => call,
    })
}

/// Runs a line of the documents that begins with "kubectl ferrule".
pub fn follow(cluster: &Cluster, line: &str) -> Result<String> {
    let words = line.trim_start_matches("kubectl ferrule");
    let answer = call(cluster, words).run();
    // What agents cannot look at from their container does not count here.
    match answer.status.code() {
        Some(0 | 3) => Ok(answer.text()),
        _ => Err(format!("{line}: {answer:?}").into()),
    }
}

/// The document, and that it ended like that.
fn document(answer: &Answer, statuses: &[i32]) -> Result<Value> {
    let status = answer.status.code();
    ensure!(status.is_some_and(|it| statuses.contains(&it)), "not {statuses:?}: {answer:?}");
    parse(&answer.text())
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// A chain that ends in drop and takes nothing away, on every node.
pub fn doctor_tells_once_what_all_nodes_have(space: &Space<'_>) -> Result {
    let plant = "nft 'add table inet closing; add chain inet closing forward { type filter hook forward priority 20; policy drop; }; \
                 add rule inet closing forward accept'";
    let with_all = || -> Result<Value> {
        let document = document(&call(space, "doctor --output json").run(), &[0, 1, 3])?;
        for node in document["nodes"].as_array().into_iter().flatten() {
            ensure!(node["problem"].is_null(), "{node}");
        }
        Ok(document)
    };
    with_all()?;
    for node in &space.nodes {
        node.shell(plant)?;
    }
    let found = with_all();
    let text = call(space, "doctor").run().text();
    for node in &space.nodes {
        node.shell("nft delete table inet closing")?;
    }
    let found = found?;
    let groups = found["findings"].as_array().cloned().unwrap_or_default();
    let is_planted = |group: &&Value| group["found"].to_string().contains("closing");
    let planted: Vec<&Value> = groups.iter().filter(is_planted).collect();
    ensure!(planted.len() == 1, "told {} times: {found}", planted.len());
    let places = &planted[0]["found"];
    let told = names(&places[0]["nodes"]);
    ensure!(told.len() == space.nodes.len(), "{places} is not of all nodes");
    ensure!(text.matches("closing").count() >= 1 && text.contains("  nodes   "), "{text}");
    Ok(())
}

/// Asked all the same, each has its line, and the others are asked.
pub fn a_node_without_an_agent_and_a_silent_one_are_told(space: &Space<'_>) -> Result {
    let (without, silent) = (space.worker(0)?, space.worker(1)?);
    ensure!(without.name != silent.name && !silent.is_control_plane, "a cluster of fewer than two workers");
    let affinity = |value: Value| {
        let patch = json!({ "spec": { "template": { "spec": { "affinity": value } } } });
        space.kubectl(&["--namespace", "kube-system", "patch", AGENT, "--patch", &patch.to_string()])
    };
    let elsewhere = json!({ "key": "kubernetes.io/hostname", "operator": "NotIn", "values": [without.name] });
    affinity(json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{ "matchExpressions": [elsewhere] }] } } }))?;
    let asked = (|| -> Result<(Value, String)> {
        space.system_rolled_out(AGENT)?;
        silent.shell("systemctl stop kubelet")?;
        let name = format!("node/{}", silent.name);
        let wait = format!("--timeout={}s", SILENT.as_secs());
        space.kubectl(&["wait", "--for=condition=Ready=Unknown", &name, &wait])?;
        let answer = call(space, "inspect --output json --deadline 10").run();
        Ok((document(&answer, &[3])?, call(space, "inspect").run().text()))
    })();
    silent.shell("systemctl start kubelet")?;
    affinity(Value::Null)?;
    space.kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s"])?;
    space.system_rolled_out(AGENT)?;
    let (found, text) = asked?;
    let nodes = found["nodes"].as_array().cloned().unwrap_or_default();
    ensure!(nodes.len() == space.nodes.len(), "{found}");
    for node in nodes {
        let problem = node["problem"].as_str().unwrap_or_default();
        let wanted = match node["node"].as_str() {
            Some(name) if name == without.name => "no agent's pod is on it",
            Some(name) if name == silent.name => "it is NotReady: ",
            _ => "",
        };
        ensure!(problem.contains(wanted) && problem.is_empty() == wanted.is_empty(), "{node}");
        ensure!(node["report"].is_null() != problem.is_empty(), "{node}");
    }
    ensure!(text.contains("not asked: no agent's pod is on it"), "{text}");
    Ok(())
}

/// Both directions of a pod's traffic, from another machine, in a format that others read.
pub fn a_capture_is_what_tcpdump_reads(space: &Space<'_>) -> Result {
    let names = pods::one_on_each_node(space)?;
    let [client, .., server] = names.as_slice() else { return Err("a cluster of one node".into()) };
    let (from, to) = (space.addresses(client)?, space.addresses(server)?);
    let words = format!("capture {}/{server} --count 8", space.name());
    let running = call(space, &words).silent_stdin().spawn();
    let node = space.nodes.last().ok_or("no node")?;
    eventually("packets are copied", Duration::from_secs(30), || {
        ensure!(node.shell("nft list tables")?.contains("ferrule_capture_"), "there is no table");
        Ok(())
    })?;
    In(space, client).ask(to[0], HTTP, "clientip")?;
    In(space, client).ask(to[0], HTTP, "clientip")?;
    let answer = running.wait();
    ensure!(answer.status.success() && answer.stderr.contains("8 packets captured"), "{answer:?}");
    let read = run_with_input_bytes("tcpdump", &["-n", "-r", "-"], &answer.stdout)?;
    let name = |it: &std::net::IpAddr| if it.is_ipv4() { format!("IP {it}.") } else { format!("IP6 {it}.") };
    ensure!(read.contains(&name(&from[0])) && read.contains(&format!("> {}.{HTTP}", to[0])), "{read}");
    ensure!(read.contains(&name(&to[0])), "{read}: nothing from the server");
    let gone = || -> Result {
        ensure!(!node.shell("nft list tables")?.contains("ferrule_capture_"), "the table is left");
        Ok(())
    };
    eventually("the table is gone", Duration::from_secs(10), gone)?;
    // Whoever goes away without a word takes it along as well.
    let mut running = call(space, &format!("capture {}/{server}", space.name())).silent_stdin().spawn();
    eventually("packets are copied", Duration::from_secs(30), || {
        ensure!(node.shell("nft list tables")?.contains("ferrule_capture_"), "there is no table");
        Ok(())
    })?;
    running.kill();
    running.wait_for_any_end();
    eventually("the table is gone", Duration::from_secs(60), gone)
}

fn run_with_input_bytes(program: &str, words: &[&str], input: &[u8]) -> Result<String> {
    let mut command = std::process::Command::new(program);
    kit::process::run(command.args(words), input).map_err(|failed| failed.to_string().into())
}

/// By an account that may do no more than deploy/kubectl says.
pub fn a_bundle_has_each_node_and_no_secret(space: &Space<'_>) -> Result {
    let scratch = Scratch::new("kubectl-ferrule");
    let kubeconfig = account(space, scratch.path().join("kubeconfig"))?;
    let words =
        ["create", "secret", "generic", "hidden", "--from-literal=key=a-secret-that-is-not-to-be-found"];
    space.kubectl(&words)?;
    let file = scratch.path().join("bundle.tar.gz");
    let as_account = |words: &str| {
        Call::of(&*KUBECTL_FERRULE).argument("--kubeconfig").argument(&kubeconfig.0).arguments(words)
    };
    let answer = as_account("bundle").argument(&file).run();
    ensure!(answer.status.success(), "{answer:?}");
    let directory = scratch.path().join("read");
    fs::create_dir(&directory).map_err(|error| error.to_string())?;
    let [file, directory] = [file, directory].map(|path| path.display().to_string());
    run_with_input("tar", &["-xzf", &file, "-C", &directory, "--strip-components=1"], "")?;
    let read = |name: &str| {
        fs::read_to_string(format!("{directory}/{name}")).map_err(|error| format!("{name}: {error}"))
    };
    let manifest = read("MANIFEST")?;
    for node in &space.nodes {
        for file in ["node.json", "agent.json", "agent.log", "state.json"] {
            let name = format!("nodes/{}/{file}", node.name);
            ensure!(!read(&name)?.is_empty() && manifest.contains(&name), "{name}: {manifest}");
        }
        let state = parse(&read(&format!("nodes/{}/state.json", node.name))?)?;
        ensure!(state["tables"][0]["name"] == "inet ferrule", "{}", state["tables"]);
    }
    for hidden in ["a-secret-that-is-not-to-be-found", kubeconfig.1.as_str()] {
        let found = run_with_input(
            "sh",
            &["-c", &format!("grep -rc '{hidden}' {directory} | grep -v ':0$' || true")],
            "",
        )?;
        ensure!(found.is_empty(), "a secret is in {found}");
    }
    // The same rights are enough for the rest.
    for (words, statuses) in [("doctor --output json", &[0, 3][..]), ("inspect --output json", &[0])] {
        document(&as_account(words).run(), statuses)?;
    }
    Ok(())
}

/// A kubeconfig of that account, and the token in it.
fn account(space: &Space<'_>, path: PathBuf) -> Result<(PathBuf, String)> {
    (**space).kubectl(&["apply", "--filename", &deploy("kubectl/rbac.yaml")])?;
    space.kubectl(&["create", "serviceaccount", ACCOUNT])?;
    let subject = format!("--serviceaccount={}:{ACCOUNT}", space.name());
    let bind = |place: &[&str], kind: &str, role: &str| -> Result {
        let name = "ferrule-kubectl-test";
        (**space).kubectl(&[place, &["delete", kind, name, "--ignore-not-found"]].concat())?;
        (**space).kubectl(&[place, &["create", kind, name, role, &subject]].concat()).map(|_| ())
    };
    bind(&[], "clusterrolebinding", "--clusterrole=ferrule-kubectl")?;
    bind(&["--namespace", "kube-system"], "rolebinding", "--role=ferrule-kubectl")?;
    let token = space.kubectl(&["create", "token", ACCOUNT])?.trim().to_owned();
    let view = parse(&space.kubectl(&["config", "view", "--minify", "--raw", "--output", "json"])?)?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{ "name": "it", "cluster": view["clusters"][0]["cluster"] }],
        "users": [{ "name": "it", "user": { "token": token } }],
        "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it" } }],
    });
    fs::write(&path, config.to_string()).map_err(|error| error.to_string())?;
    Ok((path, token))
}

/// A policy, a Service without endpoints, and a node's chain in the way: each is named. And nothing where nothing is.
pub fn why_names_what_is_in_the_way(space: &Space<'_>) -> Result {
    let names = pods::one_on_each_node(space)?;
    let [_, client, server] = names.as_slice() else {
        return Err("a cluster of other than three nodes".into());
    };
    let port = json!([{ "port": 80, "targetPort": HTTP }]);
    space.create([service("web", server, port.clone()), service("nobody", "nobody", port)])?;
    let to_pod = format!("{}/{server}:{HTTP}", space.name());
    let to_service = format!("{}/svc/web:80", space.name());
    let ask = |to: &str, statuses: &[i32]| -> Result<Value> {
        let words = format!("why {}/{client} {to} --output json", space.name());
        document(&call(space, &words).run(), statuses)
    };
    for to in [&to_pod, &to_service] {
        let found = ask(to, &[0, 3])?;
        ensure!(found["answer"]["verdict"] != "broken", "{to}: {}", found["answer"]);
        ensure!(!found["answer"]["flows"].as_array().is_none_or(Vec::is_empty), "{to}: {found}");
    }
    let found = ask(&format!("{}/svc/nobody:80", space.name()), &[1])?;
    ensure!(found["answer"]["sentence"].to_string().contains("has no endpoints"), "{}", found["answer"]);
    space.create([json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "closed" },
        "spec": { "podSelector": { "matchLabels": { "app": server } }, "policyTypes": ["Ingress"] },
    })])?;
    eventually("the policy is the reason", Duration::from_secs(60), || {
        let found = ask(&to_service, &[1])?;
        let is_named = found["answer"]["sentence"].to_string().contains("closed");
        ensure!(is_named, "{}", found["answer"]);
        Ok(())
    })?;
    space.kubectl(&["delete", "networkpolicy", "closed"])?;
    let node: &Node = space.nodes.last().ok_or("no node")?;
    let chain = format!(
        "nft 'add table inet closing; add chain inet closing forward {{ type filter hook forward priority 20; }}; \
         add rule inet closing forward tcp dport {HTTP} drop'"
    );
    node.shell(&chain)?;
    let found = eventually("the chain is the reason", Duration::from_secs(60), || {
        let found = ask(&to_pod, &[1])?;
        ensure!(found["answer"]["sentence"].to_string().contains("closing"), "{}", found["answer"]);
        Ok(())
    });
    node.shell("nft delete table inet closing")?;
    found
}

/// Refused while pods run; then one command does what docs/install.md does in five, and ferrule comes back.
pub fn uninstall_does_all_steps_and_refuses_while_pods_run(space: &Space<'_>) -> Result {
    pods::one_on_each_node(space)?;
    let answer = call(space, "uninstall --yes").run();
    ensure!(answer.status.code() == Some(1), "{answer:?}");
    ensure!(answer.stderr.contains(&format!("{}/on-", space.name())), "{answer:?}");
    space.kubectl(&["delete", "pods", "--all", "--timeout=120s"])?;
    pause(Duration::from_secs(1));
    let answer = call(space, "uninstall").run();
    ensure!(answer.status.code() == Some(1) && answer.stderr.contains("--yes"), "{answer:?}");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let outcome = (|| {
        let answer =
            call(space, "uninstall --yes").env("PATH", path).patience(Duration::from_secs(400)).run();
        ensure!(answer.status.success(), "{answer:?}");
        leaving::nodes_are_as_before(space)
    })();
    leaving::install_again(space)?;
    outcome
}
