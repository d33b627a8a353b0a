//! `kubectl ferrule capture`: the packets of a pod, streamed from its node to stdout.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kubectl::agents::Agent;
use crate::kubectl::arguments::{CaptureOptions, Common};
use crate::kubectl::cluster::{Cluster, full_name, has_ended, is_on_hosts_network, node_of};
use crate::kubectl::exec::{Said, exit_status, read_all};
use crate::kubectl::target::End;
use crate::kubectl::{Outcome, say};

/// How often `ferrulectl` hears that somebody is still there: it ends when it has heard nothing for half a minute. A
/// process in a container outlives the connection of whoever started it.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long the rest may take after the end was asked for.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Bytes that are read at once.
const PIECE: usize = 1 << 16;

/// Writes packets to stdout until one of the two sides ends.
///
/// # Errors
/// If stdout is a terminal, or the pod's node cannot be asked.
pub(super) async fn capture(
    cluster: &Cluster,
    common: &Common,
    pod: &End,
    options: &CaptureOptions,
) -> Result<Outcome, String> {
    if io::stdout().is_terminal() {
        return Err("stdout is a terminal, and packets are no text; hand them on: `| tcpdump -n -r -`, \
                    `| wireshark -k -i -`, or `>file.pcap`"
            .to_owned());
    }
    let pod = cluster.find_pod(pod).await?.ok_or("there is no such pod")?;
    let node = place(&pod)?;
    let asked = cluster.agents(&Common { nodes: vec![node.clone()], ..common.clone() }).await?;
    let asked = asked.into_iter().next().ok_or_else(|| format!("node {node} has no agent"))?;
    let agent = asked.agent.map_err(|problem| format!("node {node}: {problem}"))?;
    let said = stream(cluster, &agent, &words(&pod, options), common.deadline).await;
    let said = said.map_err(|problem| format!("node {node}: {problem}"))?;
    match said.status {
        // What it says at its end is for whoever waits.
        0 => Ok(Outcome { stderr: last_line(&said.stderr), ..Outcome::default() }),
        _ => Err(format!("node {node}: {}", said.complaint("capture"))),
    }
}

/// The node that has its packets.
fn place(pod: &Pod) -> Result<String, String> {
    let name = full_name(pod);
    if is_on_hosts_network(pod) {
        return Err(format!("{name} is on its node's network, and has no link of its own"));
    }
    if has_ended(pod) {
        return Err(format!("{name} has ended"));
    }
    node_of(pod).map(str::to_owned).ok_or_else(|| format!("{name} has not been put on a node yet"))
}

/// What `ferrulectl` is asked for.
fn words(pod: &Pod, options: &CaptureOptions) -> Vec<String> {
    let mut words = vec!["capture".to_owned(), full_name(pod), "--leash".to_owned()];
    let mut add = |name: &str, value: Option<String>| {
        words.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
    };
    add("--interface", options.interface.clone());
    add("--count", options.count.map(|count| count.to_string()));
    add("--duration", options.duration.map(|duration| format!("{}s", duration.as_secs())));
    words.extend(options.full.then(|| "--full".to_owned()));
    words
}

/// Hands on what comes; gives the rest of what was said.
async fn stream(
    cluster: &Cluster,
    agent: &Agent,
    words: &[String],
    deadline: Duration,
) -> Result<Said, String> {
    let started = tokio::time::timeout(deadline, cluster.start(agent, words, true)).await;
    let mut process = started
        .map_err(|_| format!("its agent did not answer within {} s (--deadline)", deadline.as_secs()))??;
    let (mut stdin, stdout, stderr) = (process.stdin(), process.stdout(), process.stderr());
    let status = process.take_status();
    let mut stdout = stdout.ok_or("the connection has no stdout")?;
    // As it comes: what is captured is said at the beginning.
    let stderr = tokio::spawn(hand_on(stderr));
    let mut beat = tokio::time::interval(HEARTBEAT);
    let mut piece = vec![0; PIECE];
    let (mut end, mut readers_left) = (None, false);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        let last_words = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            read = stdout.read(&mut piece) => {
                let length = read.unwrap_or_default();
                let bytes = piece.get(..length).unwrap_or_default();
                let mut out = io::stdout();
                readers_left = out.write_all(bytes).and_then(|()| out.flush()).is_err();
                if length == 0 || readers_left {
                    break;
                }
            }
            _ = beat.tick(), if stdin.is_some() => {
                let failed = match &mut stdin {
                    Some(stdin) => stdin.write_all(b".").await.is_err(),
                    None => false,
                };
                if failed {
                    stdin = None;
                }
            }
            _ = &mut interrupt, if end.is_none() => {
                if let Some(mut stdin) = stdin.take() {
                    let _ = stdin.shutdown().await;
                }
                end = Some(tokio::time::Instant::now() + LAST_WORDS);
            }
            () = last_words => break,
        }
    }
    if readers_left {
        // As `| tcpdump -c 5` does. The other side ends with the connection.
        return Ok(Said { stdout: Vec::new(), stderr: String::new(), status: 0 });
    }
    drop(stdin);
    drop(stdout);
    let status = async {
        match status {
            Some(status) => status.await,
            None => None,
        }
    };
    let Ok(status) = tokio::time::timeout(LAST_WORDS, status).await else {
        // The other side ends by itself when it hears nothing more.
        return Ok(Said { stdout: Vec::new(), stderr: String::new(), status: 0 });
    };
    let stderr = stderr.await.unwrap_or_default();
    Ok(Said { stdout: Vec::new(), stderr, status: exit_status(status.as_ref())? })
}

/// Tells the first line when it comes, and gives all.
async fn hand_on(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let (mut text, mut piece) = (Vec::new(), vec![0; 1024]);
    while let Ok(length) = stream.read(&mut piece).await {
        text.extend(piece.get(..length).unwrap_or_default());
        let has_line = text.contains(&b'\n');
        if length == 0 || has_line {
            break;
        }
    }
    let first = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned();
    if first.starts_with("capturing ") {
        say(&first);
    }
    text.extend(read_all(Some(stream)).await);
    String::from_utf8_lossy(&text).into_owned()
}

/// What it says at the end, if that is not what it said at the beginning.
fn last_line(stderr: &str) -> String {
    let last = stderr.lines().last().filter(|line| !line.starts_with("capturing "));
    last.map(|line| format!("{line}\n")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: &serde_json::Value, phase: &str) -> Pod {
        let metadata = json!({ "name": "web", "namespace": "shop" });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": { "phase": phase } }))
            .unwrap()
    }

    #[test]
    fn a_pod_without_a_link_of_its_own_is_refused_with_words() {
        let of = |spec: serde_json::Value, phase| place(&pod(&spec, phase));
        assert_eq!(of(json!({ "containers": [], "nodeName": "a" }), "Running"), Ok("a".to_owned()));
        let host = json!({ "containers": [], "nodeName": "a", "hostNetwork": true });
        for (spec, phase, why) in [
            (host, "Running", "on its node's network"),
            (json!({ "containers": [], "nodeName": "a" }), "Succeeded", "has ended"),
            (json!({ "containers": [] }), "Pending", "not been put on a node"),
        ] {
            let error = of(spec, phase).unwrap_err();
            assert!(error.starts_with("shop/web ") && error.contains(why), "{error}");
        }
    }

    #[test]
    fn ferrulectl_is_asked_in_its_own_words() {
        let options = CaptureOptions {
            interface: Some("eth0".into()),
            full: true,
            count: Some(7),
            duration: Some(Duration::from_secs(90)),
        };
        let pod = pod(&json!({ "containers": [] }), "Running");
        let line = "capture shop/web --leash --interface eth0 --count 7 --duration 90s --full";
        assert_eq!(words(&pod, &options).join(" "), line);
    }

    #[test]
    fn the_summary_is_told_at_the_end() {
        assert_eq!(last_line("capturing a/b on veth1\n7 packets captured\n"), "7 packets captured\n");
        assert_eq!(last_line("capturing a/b on veth1\n"), "");
    }
}
