//! Whether an agent runs for this node.

use std::fs;

/// Its name, as the kernel knows it.
const AGENT: &str = "ferruled";

/// Whether a process of that name is in the network namespace of this one: another node's agent may be on the same
/// machine. In the agent's container only its own processes are seen, and it is one of them.
pub fn is_running() -> bool {
    let Ok(own) = fs::read_link("/proc/self/ns/net") else { return false };
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.flatten().map(|it| it.path()).any(|process| {
        let is_named = fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim_end() == AGENT);
        is_named && fs::read_link(process.join("ns/net")).is_ok_and(|it| it == own)
    })
}
