//! A node with the agent on it, and the switch that it shares with the others: they are addresses of one other
//! namespace, since nobody has to live there.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::api::{Api, NodeSpec};
use kit::binaries::{FERRULE, FERRULED};
use kit::files::Scratch;
use kit::ip;
use kit::netns::Namespace;
use kit::nft;
use kit::process::run_in;

/// How long anything may take that is waited for. What works takes a fraction.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node called `node-a`, 192.0.2.10 and fd00:aa::10, of the podCIDRs 10.244.1.0/24 and fd00:10:1::/64.
pub struct AgentNode {
    pub namespace: Namespace,
    pub api: Api,
    /// Arguments of the agent besides the usual.
    pub words: Vec<String>,
    /// Words of a program that executes the agent: "setpriv --no-new-privs".
    pub through: Vec<String>,
    /// For `--listen`.
    pub listen: String,
    scratch: Scratch,
    agent: Option<Child>,
    /// The other nodes, as addresses of one namespace.
    pub others: Namespace,
}

/// This node's Node.
pub fn own() -> NodeSpec {
    NodeSpec::new("node-a", &["10.244.1.0/24", "fd00:10:1::/64"], &["192.0.2.10", "fd00:aa::10"])
}

/// Another node, `number` from 11 to 99.
pub fn other(number: u8) -> NodeSpec {
    NodeSpec::new(
        &format!("node-{number}"),
        &[&format!("10.244.{number}.0/24"), &format!("fd00:10:{number}::/64")],
        &[&format!("192.0.2.{number}"), &format!("fd00:aa::{number}")],
    )
}

impl AgentNode {
    /// A node without an agent, known to the API server.
    pub fn new(role: &str) -> Self {
        let (namespace, others) = (Namespace::new(role), Namespace::new("others"));
        namespace.ip_batch(&format!(
            "link set lo up\nlink add eth0 type veth peer eth0 netns {}\n\
             address add 192.0.2.10/24 dev eth0\naddress add fd00:aa::10/64 dev eth0 nodad\nlink set eth0 up\n",
            others.name()
        ));
        others.ip_batch("link set lo up\nlink set eth0 up\n");
        let api = Api::start(&namespace);
        api.put(own());
        let scratch = Scratch::new(role);
        let listen = "127.0.0.1:9690".to_owned();
        Self { namespace, api, words: vec![], through: vec![], listen, scratch, agent: None, others }
    }

    /// Starts the agent. Its log is in the scratch directory, and is shown when a wait is in vain.
    pub fn start(&mut self) {
        assert!(self.agent.is_none());
        let mut command = self.command();
        command.args(["--listen", &self.listen]).arg("--apiserver").arg(self.api.url());
        self.agent = Some(command.spawn().unwrap());
    }

    /// Cleans the node; whether that was done.
    pub fn uninstall(&self, words: &[&str]) -> bool {
        self.command().arg("--uninstall").args(words).status().unwrap().success()
    }

    /// The agent on this node, with its directories.
    fn command(&self) -> Command {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.path("agent.log")).unwrap();
        let mut program = self.through.iter().map(OsStr::new).chain([FERRULED.as_os_str()]);
        let mut command = self.namespace.command(program.next().expect("a program"));
        command.args(program).args(&self.words);
        command.args(["--node-name", "node-a", "--log-level", "debug"]);
        command.arg("--bin-dir").arg(self.path("bin")).arg("--conf-dir").arg(self.path("net.d"));
        command.arg("--data-dir").arg(self.path("data")).arg("--plugin").arg(&*FERRULE);
        command.env_remove("KUBERNETES_SERVICE_HOST").stdout(Stdio::null()).stderr(log);
        command
    }

    /// Starts it, and waits until it says that it is ready.
    pub fn start_ready(&mut self) {
        self.start();
        self.wait("the agent to be ready", || {
            self.page("/readyz").is_some_and(|page| page.contains(" 200 "))
        });
    }

    /// Sends a signal to the agent, and waits for its end. Whether it ended well.
    pub fn end(&mut self, signal: Signal) -> bool {
        let mut agent = self.agent.take().expect("a running agent");
        // nsenter became the agent by exec.
        kill_process(Pid::from_child(&agent), signal).unwrap();
        agent.wait().unwrap().success()
    }

    /// Waits until the agent ends by itself. Whether it ended well.
    pub fn wait_for_end(&mut self) -> bool {
        let begin = Instant::now();
        let mut agent = self.agent.take().expect("a running agent");
        while begin.elapsed() < PATIENCE {
            if let Some(status) = agent.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.agent = Some(agent);
        panic!("the agent goes on: {}", self.log());
    }

    /// A path below the scratch directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The plugin's conf, as a runtime would give it to the plugin.
    pub fn conf(&self) -> Value {
        let text = fs::read_to_string(self.path("net.d/10-ferrule.conflist")).unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        let mut plugin = list["plugins"][0].clone();
        plugin["name"] = list["name"].clone();
        plugin["cniVersion"] = "1.1.0".into();
        plugin
    }

    /// The agent's process.
    pub fn id(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// Largest resident memory that the agent ever had, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let id = self.agent.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Routes of ferrule's to other nodes, as `10.244.11.0/24 via 192.0.2.11 src 192.0.2.10`, sorted.
    pub fn peer_routes(&self) -> Vec<String> {
        let mut routes: Vec<String> = ["-4 proto 102", "-6 proto 102"]
            .iter()
            .flat_map(|filter| ip::routes(&self.namespace, filter))
            .filter_map(|route| {
                let gateway = route["gateway"].as_str()?;
                let source = route["prefsrc"].as_str().unwrap_or("none");
                Some(format!("{} via {gateway} src {source}", route["dst"].as_str()?))
            })
            .collect();
        routes.sort();
        routes
    }

    /// Waits until the routes to other nodes are those to the nodes of these numbers.
    pub fn wait_for_routes_to(&self, numbers: &[u8]) {
        let mut wanted: Vec<String> = numbers
            .iter()
            .flat_map(|n| {
                [
                    format!("10.244.{n}.0/24 via 192.0.2.{n} src 192.0.2.10"),
                    format!("fd00:10:{n}::/64 via fd00:aa::{n} src fd00:aa::10"),
                ]
            })
            .collect();
        wanted.sort();
        self.wait(&format!("routes to {numbers:?}"), || self.peer_routes() == wanted);
    }

    /// Waits for `condition`, and says how long it took.
    pub fn wait(&self, what: &str, condition: impl Fn() -> bool) -> Duration {
        self.wait_within(PATIENCE, what, condition)
    }

    /// The same for what takes its time.
    pub fn wait_within(&self, patience: Duration, what: &str, condition: impl Fn() -> bool) -> Duration {
        let begin = Instant::now();
        while !condition() {
            if begin.elapsed() > patience {
                let log = fs::read_to_string(self.path("agent.log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(60).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                panic!("waited in vain for {what}; routes: {:#?}\n{}", self.peer_routes(), tail.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        begin.elapsed()
    }

    /// What the agent answers to a GET, status line included; `None` if it does not.
    pub fn page(&self, path: &str) -> Option<String> {
        self.page_at(9690, path)
    }

    /// The same on another port of the loopback.
    pub fn page_at(&self, port: u16, path: &str) -> Option<String> {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' >&3 && cat <&3"
        );
        run_in(&self.namespace, "bash", ["-c", &script], "").ok()
    }

    /// The value of a metric, by all that stands before it on its line.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let page = self.page("/metrics")?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// Waits until a metric has that value.
    pub fn wait_for_metric(&self, name: &str, value: f64) {
        self.wait(&format!("{name} {value}"), || self.metric(name) == Some(value));
    }

    /// The agent's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// What `nft` prints on the node.
    pub fn nft(&self, words: &str) -> String {
        nft::run(&self.namespace, words).unwrap_or_default()
    }

    /// Whether a file is there.
    pub fn has(&self, name: &str) -> bool {
        Path::exists(&self.path(name))
    }
}

impl Drop for AgentNode {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}
