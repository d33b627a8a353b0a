//! The command lines of the documents that look at a cluster.

use std::time::Duration;

use kit::documents::{fences, only_reads};

use crate::ensure;
use crate::process::{Result, eventually};
use crate::space::Space;

/// Each succeeds on a healthy cluster. tests/documents.rs knows who executes those that change it.
pub fn every_command_that_only_reads_succeeds(space: &Space<'_>) -> Result {
    let fences = fences();
    let fences = fences.iter().filter(|fence| fence.info == "sh cluster");
    let mut lines: Vec<&str> =
        fences.flat_map(|fence| fence.lines()).filter(|line| only_reads(line)).collect();
    lines.sort_unstable();
    lines.dedup();
    ensure!(lines.len() > 5, "{} lines", lines.len());
    for line in lines.into_iter().filter(|line| !line.contains("ferrule-uninstall")) {
        // doctor may find what a pod that is on its way out leaves for a moment.
        eventually(line, Duration::from_secs(60), || match follow(space, line) {
            // From the agent's container it cannot look at everything, and finds nothing.
            Err(failure) if line.ends_with("doctor") && failure.to_string().contains("exit code 3") => Ok(()),
            followed => followed.map(|_| ()),
        })?;
    }
    Ok(())
}

/// kubectl's plugins have no global options before their name.
fn follow(space: &Space<'_>, line: &str) -> Result<String> {
    match line.starts_with("kubectl ferrule ") {
        true => super::kubectl::follow(space, line),
        false => space.follow(line),
    }
}
