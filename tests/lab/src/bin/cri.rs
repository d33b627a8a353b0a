//! `cri`: a small crictl, for a lab left running and for a first look at any runtime.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lab::cri::Client;
use lab::cri::messages::{
    ContainerConfig, ContainerState, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxState,
};
use serde_json::{Value, json};

const USAGE: &str = "\
usage: cri [--socket PATH] COMMAND

  version                          which runtime answers
  status                           is it ready, is the network?
  pods                             all pods
  ps                               all containers
  inspectp POD                     state, addresses and process of a pod
  runp [OPTION...] NAME [-- WORD...]
                                   make a pod; with words, also a container that runs them; prints their ids
        --namespace NAME           default: default
        --cgroup-parent PATH       where the runtime makes the pod's cgroups
        --image NAME               default: the lab's own image
        --port HOST:POD            a port of the node that leads to the pod (TCP)
  exec CONTAINER -- WORD...        run a command in a container, and end with its exit code
  stopp POD                        stop a pod: its address is free again
  rmp POD                          remove a pod

PATH is /run/containerd/containerd.sock unless told otherwise. A pod or container may be given by the first letters
of its id. What is printed is JSON, one object a line.
";

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match lab::block_on(run(&words)) {
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => complain(&failure.to_string()),
        Err(error) => complain(&error.to_string()),
    }
}

fn complain(what: &str) -> ExitCode {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "cri: {what}");
    ExitCode::FAILURE
}

async fn run(words: &[String]) -> Result<ExitCode, Failure> {
    let mut words = words.iter().map(String::as_str);
    let mut socket = PathBuf::from("/run/containerd/containerd.sock");
    let mut verb = words.next();
    if verb == Some("--socket") {
        socket = words.next().ok_or("--socket wants a path")?.into();
        verb = words.next();
    }
    let verb = match verb {
        Some(verb) if !matches!(verb, "help" | "--help" | "-h") => verb,
        _ => return say(USAGE.trim_end()),
    };
    let rest: Vec<&str> = words.collect();
    let cri = Client::connect(&socket).await?;
    match (verb, rest.as_slice()) {
        ("version", []) => {
            let version = cri.version().await?;
            say(&json!({"name": version.runtime_name, "version": version.runtime_version}).to_string())
        }
        ("status", []) => {
            let conditions = cri.status().await?;
            say_each(
                conditions
                    .iter()
                    .map(|c| json!({"condition": c.r#type, "holds": c.status, "message": c.message})),
            )
        }
        ("pods", []) => say_each(cri.pods().await?.iter().map(|pod| {
            let metadata = pod.metadata.clone().unwrap_or_default();
            let ready = pod.state() == PodSandboxState::Ready;
            json!({"id": pod.id, "namespace": metadata.namespace, "name": metadata.name, "ready": ready})
        })),
        ("ps", []) => say_each(cri.containers().await?.iter().map(|container| {
            let name = container.metadata.clone().unwrap_or_default().name;
            let running = container.state() == ContainerState::Running;
            json!({"id": container.id, "pod": container.pod_sandbox_id, "name": name, "running": running})
        })),
        ("inspectp", [pod]) => {
            let status = cri.pod_status(&find_pod(&cri, pod).await?).await?;
            say(&json!({"ready": status.is_ready, "addresses": status.addresses, "pid": status.pid})
                .to_string())
        }
        ("runp", options) => run_pod(&cri, options).await,
        ("exec", [container, "--", command @ ..]) => {
            let output = cri.exec(&find_container(&cri, container).await?, command, Duration::ZERO).await?;
            std::io::stdout().write_all(output.stdout.as_bytes())?;
            std::io::stderr().write_all(output.stderr.as_bytes())?;
            Ok(ExitCode::from(u8::try_from(output.code).unwrap_or(u8::MAX)))
        }
        ("stopp", [pod]) => {
            Ok(cri.stop_pod(&find_pod(&cri, pod).await?).await.map(|()| ExitCode::SUCCESS)?)
        }
        ("rmp", [pod]) => {
            Ok(cri.remove_pod(&find_pod(&cri, pod).await?).await.map(|()| ExitCode::SUCCESS)?)
        }
        _ => Err(format!("not understood: {verb} {}\n{USAGE}", rest.join(" ")).into()),
    }
}

async fn run_pod(cri: &Client, words: &[&str]) -> Result<ExitCode, Failure> {
    let mut words = words.iter().copied();
    let mut options = HashMap::from([("--namespace", "default"), ("--image", lab::IMAGE)]);
    let mut name = None;
    while let Some(word) = words.next() {
        match word {
            "--" => break,
            option if option.starts_with("--") => {
                options.insert(option, words.next().ok_or_else(|| format!("{option} wants a value"))?);
            }
            word => name = Some(word),
        }
    }
    let name = name.ok_or("runp wants the pod's name")?;
    let option = |key| options.get(key).copied().unwrap_or_default();
    let uid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let mut pod = PodSandboxConfig::named(option("--namespace"), name, uid.trim());
    pod.hostname = name.to_owned();
    pod.log_directory = format!("/var/log/pods/{}", uid.trim());
    let cgroup_parent = option("--cgroup-parent").to_owned();
    pod.linux = Some(LinuxPodSandboxConfig { cgroup_parent, ..Default::default() });
    if let Some((host, inside)) = option("--port").split_once(':') {
        pod = pod.with_port(host.parse()?, inside.parse()?);
    }
    let id = cri.run_pod(&pod).await?;
    let command: Vec<&str> = words.collect();
    let container = match command.as_slice() {
        [] => None,
        command => Some(
            cri.run_container(&id, &pod, ContainerConfig::new("main", option("--image"), command)).await?,
        ),
    };
    say(&json!({"pod": id, "container": container}).to_string())
}

async fn find_pod(cri: &Client, start: &str) -> Result<String, Failure> {
    only(start, cri.pods().await?.into_iter().map(|pod| pod.id))
}

async fn find_container(cri: &Client, start: &str) -> Result<String, Failure> {
    only(start, cri.containers().await?.into_iter().map(|container| container.id))
}

fn only(start: &str, ids: impl Iterator<Item = String>) -> Result<String, Failure> {
    let mut found = ids.filter(|id| id.starts_with(start));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(format!("no id starts with {start}").into()),
        (Some(_), Some(_)) => Err(format!("several ids start with {start}").into()),
    }
}

fn say(what: &str) -> Result<ExitCode, Failure> {
    writeln!(std::io::stdout(), "{what}")?;
    Ok(ExitCode::SUCCESS)
}

fn say_each(lines: impl Iterator<Item = Value>) -> Result<ExitCode, Failure> {
    for line in lines {
        say(&line.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
