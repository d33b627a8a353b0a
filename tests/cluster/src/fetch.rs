//! Asking a server: from a pod, from a node, and from a container beside the nodes that is no node.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::cluster::{Cluster, Family, Node};
use crate::pod::HTTP;
use crate::process::{Result, eventually, run};
use crate::space::Space;

/// How long an answer may take. A first packet that is lost costs a second, and is not asked for again by curl.
const PATIENCE: &str = "5";

/// Someone who can run a program where a question is to come from.
pub trait Asker {
    /// Runs it there.
    fn run(&self, words: &[&str]) -> Result<String>;

    /// What `http://address:port/path` answers, asked for once.
    fn ask(&self, address: IpAddr, port: u16, path: &str) -> Result<String> {
        let url = url(address, port, path);
        self.run(&["curl", "--silent", "--show-error", "--fail", "--max-time", PATIENCE, &url])
    }

    /// Whom the test server there sees.
    fn seen_as(&self, address: IpAddr, port: u16) -> Result<IpAddr> {
        parse_seen(&self.ask(address, port, "clientip")?)
    }

    /// That nothing answers there, and that this is said at once: refused, not dropped.
    fn is_refused(&self, address: IpAddr, port: u16) -> Result {
        let url = url(address, port, "");
        match self.run(&["curl", "--silent", "--show-error", "--max-time", PATIENCE, &url]) {
            Ok(answer) => Err(format!("{url} answered: {answer}").into()),
            // curl's own code for "could not connect"; 28 would be: no answer in time.
            Err(failure) if failure.to_string().contains("(7)") => Ok(()),
            Err(failure) => Err(format!("{url} is not refused at once: {failure}").into()),
        }
    }
}

impl<T: Asker + ?Sized> Asker for &T {
    fn run(&self, words: &[&str]) -> Result<String> {
        (**self).run(words)
    }
}

/// A pod, to be asked things in.
pub struct In<'a>(pub &'a Space<'a>, pub &'a str);

impl Asker for In<'_> {
    fn run(&self, words: &[&str]) -> Result<String> {
        self.0.exec(self.1, words)
    }
}

impl Asker for Node {
    fn run(&self, words: &[&str]) -> Result<String> {
        Node::run(self, words)
    }
}

/// A container on the network of kind's nodes, with the test server in it. It goes with its value.
pub struct Outsider {
    name: String,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
}

impl Outsider {
    /// Starts one.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let image = &cluster.agnhost;
        if run("docker", &["image", "inspect", image]).is_err() && run("docker", &["pull", image]).is_err() {
            // Where nothing can be pulled, the nodes have it.
            let node = &cluster.worker(0)?.name;
            let script = format!("docker exec {node} ctr -n k8s.io images export - {image} | docker load");
            run("sh", &["-c", &script])?;
        }
        let label = format!("ferrule.cluster={}", cluster.name);
        let serve = format!("--http-port={HTTP}");
        let options = ["run", "--detach", "--network", "kind", "--label", &label, image, "netexec", &serve];
        let name = run("docker", &options)?.trim().to_owned();
        let mut outsider = Self { name, addresses: Vec::new() };
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}";
        let answer = run("docker", &["inspect", "--format", format, &outsider.name])?;
        outsider.addresses = answer.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        // docker has started the server, which is not yet to say that it listens.
        eventually("the outsider serves", Duration::from_secs(30), || {
            outsider.ask(Ipv4Addr::LOCALHOST.into(), HTTP, "hostname")
        })?;
        Ok(outsider)
    }

    /// Its address of a family.
    pub fn address(&self, family: Family) -> Result<IpAddr> {
        let found = self.addresses.iter().find(|address| Family::of(address) == family);
        found.copied().ok_or_else(|| format!("the outsider has no {family:?} address").into())
    }
}

impl Asker for Outsider {
    fn run(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["exec", self.name.as_str()];
        all.extend(words);
        run("docker", &all)
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        // `scripts/kind.sh down` removes what could not be removed here.
        let _ = run("docker", &["rm", "--force", "--volumes", &self.name]);
    }
}

/// `http://address:port/path`, IPv6 in brackets.
pub fn url(address: IpAddr, port: u16, path: &str) -> String {
    format!("http://{}/{path}", SocketAddr::new(address, port))
}

/// The address in an answer to `clientip`.
pub fn parse_seen(answer: &str) -> Result<IpAddr> {
    let seen: SocketAddr = answer.trim().parse().map_err(|_| format!("not an address: {answer:?}"))?;
    Ok(seen.ip().to_canonical())
}
