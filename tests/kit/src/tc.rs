//! Queues and how fast they let through, as `tc -j` and iperf3 see it.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::netns::Namespace;

/// The queueing disciplines of the link `name`.
pub fn qdiscs(namespace: &Namespace, name: &str) -> Vec<Value> {
    list(namespace, &["qdisc", "show", "dev", name])
}

/// The filters on what comes in by the link `name`.
pub fn ingress_filters(namespace: &Namespace, name: &str) -> Vec<Value> {
    list(namespace, &["filter", "show", "dev", name, "parent", "ffff:"])
}

/// Runs `tc` with `words`, separated by spaces, on this namespace. Panics unless it succeeds.
pub fn tc(namespace: &Namespace, words: &str) {
    run(namespace, &words.split(' ').collect::<Vec<_>>());
}

fn list(namespace: &Namespace, words: &[&str]) -> Vec<Value> {
    let json = run(namespace, &[&["-j"], words].concat());
    if json.trim().is_empty() { Vec::new() } else { serde_json::from_str(&json).expect("tc -j") }
}

fn run(namespace: &Namespace, words: &[&str]) -> String {
    let output =
        Command::new("tc").args(["-n", namespace.name()]).args(words).output().expect("tc is installed");
    assert!(output.status.success(), "tc {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An iperf3 server, ended with its guard.
pub struct Server(Child);

impl Server {
    /// Listens in a namespace, on every address.
    pub fn start(namespace: &Namespace) -> Self {
        let net = format!("--net={}", namespace.path().display());
        let mut command = Command::new("nsenter");
        command.args([&net, "timeout", "60", "iperf3", "--server"]);
        let server =
            Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("iperf3 is installed"));
        let listening =
            "for _ in $(seq 500); do ss -Hltn | grep -q :5201 && exit 0; sleep 0.01; done; exit 1";
        assert!(Command::new("nsenter").args([&net, "sh", "-c", listening]).status().unwrap().success());
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // `timeout` hands it on to iperf3, which SIGKILL would leave behind.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Megabits that arrive per second over TCP in three seconds, from the namespace to the server at `address`, or in
/// the other direction.
pub fn megabits_per_second(from: &Namespace, address: &str, reverse: bool) -> f64 {
    let net = format!("--net={}", from.path().display());
    let mut command = Command::new("nsenter");
    command.args([&net, "timeout", "30", "iperf3", "--client", address, "--time", "3", "--json"]);
    let output = command.args(reverse.then_some("--reverse")).output().expect("iperf3 is installed");
    let report: Value = serde_json::from_slice(&output.stdout).expect("iperf3 --json");
    let received = report["end"]["sum_received"]["bits_per_second"].as_f64();
    received.unwrap_or_else(|| panic!("{}", report["error"])) / 1e6
}
