//! Agents, each on a node of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kit::netns::{Namespace, inside};

use crate::Failure;
use crate::control_plane::{ADDRESS, ControlPlane, PORT, Spent};
use crate::nodes;
use crate::process::Process;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(180);

/// One of them.
pub struct Agent {
    process: Process,
    /// Its node.
    pub netns: Namespace,
    log: PathBuf,
    directory: PathBuf,
}

/// All of one program.
pub struct Agents {
    pub all: Vec<Agent>,
    /// When they were started, and what had been used before.
    begin: Instant,
    before: Spent,
}

/// What one agent costs, on the average.
#[derive(Debug, Default)]
pub struct Cost {
    /// Bytes that come to it.
    pub bytes: f64,
    /// Those that it sends.
    pub sent: f64,
    /// CPU of the server without what writes cost, and of the agent, in seconds.
    pub server: f64,
    pub agent: f64,
    /// The most memory of an agent, and of the server, in KiB.
    pub memory: [u64; 2],
    /// Connections of an agent to the server.
    pub connections: f64,
    /// Until all of them have it.
    pub time: Duration,
}

impl Agents {
    /// Starts them, all at once.
    pub fn start(server: &ControlPlane, program: &Path, work: &Path, count: u32) -> Result<Self, Failure> {
        let netns = (0..count).map(|number| wire(server, number)).collect::<Vec<_>>();
        let (begin, before) = (Instant::now(), server.spent()?);
        let start = |(number, netns)| Agent::start(program, netns, work, number);
        let all = (0..count).zip(netns).map(start).collect::<Result<Vec<_>, Failure>>()?;
        Ok(Self { all, begin, before })
    }

    /// Until each knows all Nodes.
    pub fn first(
        &mut self,
        server: &ControlPlane,
        nodes: u32,
        idle: Spent,
        window: Duration,
    ) -> Result<Cost, Failure> {
        let wanted = f64::from(nodes);
        while self.all.iter().any(|agent| agent.metric("ferrule_nodes") != Some(wanted)) {
            for agent in &mut self.all {
                agent.process.must_run(&agent.log)?;
            }
            if self.begin.elapsed() > PATIENCE {
                return Err(format!("agents lack Nodes after {PATIENCE:?}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.cost(server, self.before, [0.0; 3], idle, window, self.begin)
    }

    /// Within a time in which nothing happens but heartbeats.
    pub fn steady(&self, server: &ControlPlane, idle: Spent, window: Duration) -> Result<Cost, Failure> {
        let (begin, before, used) = (Instant::now(), server.spent()?, self.used()?);
        std::thread::sleep(window);
        self.cost(server, before, used, idle, window, begin)
    }

    /// Bytes that came, bytes that were sent, and CPU, of all of them.
    fn used(&self) -> Result<[f64; 3], Failure> {
        let mut used = [0.0; 3];
        for agent in &self.all {
            used[0] += agent.counter("rx_bytes")?;
            used[1] += agent.counter("tx_bytes")?;
            used[2] += agent.process.spent()?;
        }
        Ok(used)
    }

    fn cost(
        &self,
        server: &ControlPlane,
        before: Spent,
        used: [f64; 3],
        idle: Spent,
        window: Duration,
        begin: Instant,
    ) -> Result<Cost, Failure> {
        let count = self.all.len() as f64;
        let now = self.used()?;
        let time = begin.elapsed();
        let writes = idle.server * time.as_secs_f64() / window.as_secs_f64();
        let memory = self.all.iter().map(|agent| agent.process.peak_memory());
        let memory = memory.collect::<Result<Vec<u64>, Failure>>()?;
        let connections: usize = self.all.iter().map(Agent::connections).sum();
        Ok(Cost {
            bytes: (now[0] - used[0]) / count,
            sent: (now[1] - used[1]) / count,
            server: ((server.spent()? - before).server - writes).max(0.0) / count,
            agent: (now[2] - used[2]) / count,
            memory: [memory.into_iter().max().unwrap_or_default(), server.peak_memory()?],
            connections: connections as f64 / count,
            time,
        })
    }
}

/// A node's namespace, with the address of its Node.
fn wire(server: &ControlPlane, number: u32) -> Namespace {
    // The links of earlier agents go in the kernel's own time.
    static PORTS: AtomicU32 = AtomicU32::new(0);
    let netns = Namespace::new("agent");
    let port = format!("agent{}", PORTS.fetch_add(1, Ordering::Relaxed));
    server.netns.ip_batch(&format!(
        "link add {port} type veth peer name eth0 netns {}\nlink set {port} master br0 up\n",
        netns.name()
    ));
    netns.ip_batch(&format!(
        "link set lo up\nlink set eth0 up\naddress add {}/16 dev eth0\n",
        nodes::address(number)
    ));
    netns
}

impl Agent {
    fn start(program: &Path, netns: Namespace, work: &Path, number: u32) -> Result<Self, Failure> {
        let directory = work.join(format!("agent-{number}"));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        let at = |name: &str| directory.join(name);
        let mut command = netns.command(program);
        command.env("KUBERNETES_SERVICE_HOST", ADDRESS).env("KUBERNETES_SERVICE_PORT", PORT);
        command.arg("--node-name").arg(nodes::name(number));
        command.arg("--bin-dir").arg(at("bin")).arg("--conf-dir").arg(at("net.d"));
        // Any program will do: nobody executes it.
        command.arg("--data-dir").arg(at("data")).arg("--plugin").arg(program);
        let log = at("log");
        Ok(Self { process: Process::start(&mut command, &log)?, netns, log, directory: directory.clone() })
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let page = inside(&self.netns, || {
            let mut stream = TcpStream::connect("127.0.0.1:9690")?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut page = String::new();
            stream.read_to_string(&mut page).map(|_| page)
        });
        let page = page.ok()?;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// A counter of its link.
    fn counter(&self, name: &str) -> Result<f64, Failure> {
        Ok(self.netns.in_sys(&format!("class/net/eth0/statistics/{name}")).parse()?)
    }

    fn connections(&self) -> usize {
        let filter = format!("ss -Htn state established dport = :{PORT} | wc -l");
        self.netns.sh(&filter).trim().parse().unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.signal("KILL");
        let _ = fs::remove_dir_all(&self.directory);
    }
}
