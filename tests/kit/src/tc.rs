//! Queues and how fast they let through, as `tc -j` and iperf3 see it.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use serde_json::Value;

use crate::netns::Namespace;
use crate::process::expect;

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
    expect("tc", &[&["-n", namespace.name()], words].concat())
}

/// An iperf3 server, ended with its guard.
pub struct Server(Child);

impl Server {
    /// Listens in a namespace, on every address.
    pub fn start(namespace: &Namespace) -> Self {
        let mut command = namespace.command("timeout");
        command.args(["60", "iperf3", "--server"]);
        let server =
            Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("iperf3 is installed"));
        namespace.wait_until("ss -Hltn | grep -q :5201");
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // `timeout` hands it on to iperf3, which SIGKILL would leave behind.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Asks again where the port is closed: the server closes it after each client, and opens it again.
const MEASURE: &str = r#"
    for _ in $(seq 50); do
        report=$(timeout 30 iperf3 --time 3 --json "$@")
        case $report in *"Connection refused"*) sleep 0.1 ;; *) break ;; esac
    done
    printf %s "$report""#;

/// Megabits that arrive per second over TCP in three seconds, from the namespace to the server at `address`, or in
/// the other direction.
pub fn megabits_per_second(from: &Namespace, address: &str, reverse: bool) -> f64 {
    let mut command = from.command("sh");
    command.args(["-c", MEASURE, "sh", "--client", address]).args(reverse.then_some("--reverse"));
    let output = command.output().expect("sh is there");
    let report: Value = serde_json::from_slice(&output.stdout).expect("iperf3 --json");
    let received = report["end"]["sum_received"]["bits_per_second"].as_f64();
    received.unwrap_or_else(|| panic!("{}", report["error"])) / 1e6
}
