//! The pods of the demo, and asking who is where: from one of them, from a node, from outside.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use lab::cri::Client;
use lab::cri::messages::ContainerConfig;
use lab::{Error, IMAGE, Lab, Node, Result, eventually};

const SERVER: &[&str] = &["httpd", "-f", "-p", "80", "-h", "/www"];
const SLEEP: &[&str] = &["sleep", "2147483647"];
/// Where a pod's server listens.
pub const PORT: u16 = 80;
/// The node's port for the first pod.
pub const HOST_PORT: u16 = 8080;

const LIMIT: Duration = Duration::from_secs(20);

/// Asks all hosts at once; a line for each, with or without an answer. Said to be busybox' own, as a node may lack wget
/// and as its -T crashes in Debian's build.
const ASK: &str = r#"
for host; do
    { answer=$(busybox timeout 3 busybox wget -qO- "http://$host/cgi-bin/who" 2>/dev/null); echo "$host $answer"; } &
done
wait"#;

/// What an asked pod said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its own name.
    pub name: String,
    /// The address from which it saw the question come.
    pub seen: IpAddr,
}

/// Who answered, by the address and port that was asked.
pub type Answers = HashMap<SocketAddr, Answer>;

/// A pod with a server on port 80 that says its own name and whom it sees asking.
#[derive(Clone, Debug)]
pub struct Pod {
    /// For instance `a1`; also its host name.
    pub name: String,
    /// The index of its node.
    pub node: usize,
    /// The sandbox, which is the CNI container id.
    pub id: String,
    /// The container with the server.
    pub server: String,
    /// A second container, in some.
    pub sidecar: Option<String>,
    /// One of each family.
    pub addresses: Vec<IpAddr>,
    /// The sandbox's process, numbered as on its node.
    pub pid: i64,
}

impl Pod {
    /// Runs a pod, and waits until its server listens. No packet has left the pod then. The first pod of the demo has
    /// a second container and a hostPort.
    pub async fn run(cri: &Client, node: &Node, index: usize, name: &str, is_first: bool) -> Result<Self> {
        let mut config = node.pod("demo", name);
        if is_first {
            config = config.with_port(HOST_PORT, PORT);
        }
        let id = cri.run_pod(&config).await?;
        let server = cri.run_container(&id, &config, ContainerConfig::new("server", IMAGE, SERVER)).await?;
        let sidecar = match is_first {
            true => {
                Some(cri.run_container(&id, &config, ContainerConfig::new("sidecar", IMAGE, SLEEP)).await?)
            }
            false => None,
        };
        let status = cri.pod_status(&id).await?;
        let pod = Self {
            name: name.to_owned(),
            node: index,
            id,
            server,
            sidecar,
            addresses: status.addresses,
            pid: status.pid,
        };
        eventually(&format!("the server in {name}"), LIMIT, async || {
            let answers = pod
                .ask(cri, &[SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))])
                .await
                .map_err(|error| error.to_string())?;
            answers.into_values().next().map(|_| ()).ok_or_else(|| "no answer on 127.0.0.1".to_owned())
        })
        .await?;
        Ok(pod)
    }

    /// Asks each of `targets` from inside this pod.
    pub async fn ask(&self, cri: &Client, targets: &[SocketAddr]) -> Result<Answers> {
        let hosts: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let command: Vec<&str> =
            ["sh", "-c", ASK, "ask"].into_iter().chain(hosts.iter().map(String::as_str)).collect();
        Ok(parse_answers(&cri.exec(&self.server, &command, LIMIT).await?.stdout))
    }
}

/// Asks each of `targets` from a process of the node itself, as kubelet's probes do.
pub fn ask_from_node(node: &Node, targets: &[SocketAddr]) -> Result<Answers> {
    ask_by(node.command("sh"), targets)
}

/// Asks each of `targets` from the host that is none of the nodes.
pub fn ask_from_outside(lab: &Lab, targets: &[SocketAddr]) -> Result<Answers> {
    ask_by(lab.outside("sh"), targets)
}

fn ask_by(mut shell: Command, targets: &[SocketAddr]) -> Result<Answers> {
    shell.args(["-c", ASK, "ask"]).args(targets.iter().map(ToString::to_string));
    let failed = |reason| Error::Command { command: "asking by a shell".to_owned(), reason };
    let output = shell.output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(parse_answers(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines of: host and port asked, name of who answered, address that they saw. The address of an IPv4 client is written in
/// IPv6's way, as the server has one socket for both.
fn parse_answers(lines: &str) -> Answers {
    let address = |word: &str| word.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(|a| a.to_canonical());
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let asked = words.next()?.parse().ok()?;
        Some((asked, Answer { name: words.next()?.to_owned(), seen: address(words.next()?)? }))
    };
    lines.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::parse_answers;

    #[test]
    fn a_line_without_an_answer_is_no_answer() {
        let answers = parse_answers(
            "10.244.1.2:80 a1 [::ffff:10.244.2.2]\n[fd00::1]:80 a1 [fd00::2]\n10.244.1.3:80 \n",
        );
        assert_eq!(answers.len(), 2);
        let v4 = &answers[&"10.244.1.2:80".parse().unwrap()];
        assert_eq!((v4.name.as_str(), v4.seen.to_string()), ("a1", "10.244.2.2".to_owned()));
        assert_eq!(answers[&"[fd00::1]:80".parse().unwrap()].seen.to_string(), "fd00::2");
    }
}
