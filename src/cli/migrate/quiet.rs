//! When no other plugin is at work any more.
//!
//! A runtime that has begun an ADD with the old conflist ends it with that, whatever becomes of the file. Its pod gets an
//! address of host-local's, and who imports before that does not see it. So whoever has moved the file away waits until no
//! plugin runs. A runtime notices a rename within milliseconds (inotify).

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cni::error::{CniError, Code};
use crate::config::role::PLUGIN_TYPE;

/// How long a runtime may take to notice, and to start what it had decided on.
const NOTICE: Duration = Duration::from_secs(1);

/// Between two looks. Two in a row have to see nothing: between the plugins of a list there is a moment without any.
const PAUSE: Duration = Duration::from_millis(250);

/// How long an ADD or DEL may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until no plugin but ferrule is at work.
///
/// # Errors
/// If one goes on for too long.
pub async fn wait() -> Result<(), CniError> {
    sleep(NOTICE).await;
    let end = Instant::now() + PATIENCE;
    let mut quiet = 0;
    while quiet < 2 {
        let busy = at_work(Path::new("/proc")).map_err(|error| {
            CniError::new(Code::Io, "cannot see what runs on this node").with_details(error.to_string())
        })?;
        quiet = if busy.is_empty() { quiet + 1 } else { 0 };
        if Instant::now() > end {
            let message = format!(
                "the old plugin is still at work after {} s: {}",
                PATIENCE.as_secs(),
                busy.join(", ")
            );
            return Err(
                CniError::new(Code::TryAgain, message).with_details("the old conflist is in its place again")
            );
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Plugins in this network namespace that are not ferrule, with their processes.
fn at_work(proc: &Path) -> io::Result<Vec<String>> {
    let own = fs::read_link(proc.join("self/ns/net"))?;
    let mut found = Vec::new();
    for entry in fs::read_dir(proc)? {
        let path = entry?.path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else {
            continue;
        };
        // What ends meanwhile is not at work.
        let Ok(environ) = fs::read(path.join("environ")) else { continue };
        if !environ.split(|byte| *byte == 0).any(|it| it.starts_with(b"CNI_COMMAND=")) {
            continue;
        }
        let Ok(program) = fs::read_link(path.join("exe")) else { continue };
        let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.trim_end_matches(" (deleted)");
        if name != PLUGIN_TYPE && is_in(&path, &own) {
            found.push(format!("{name} (process {pid})"));
        }
    }
    Ok(found)
}

/// Whether one of its threads is: a plugin goes into its pod's namespace with one of several.
fn is_in(process: &Path, own: &Path) -> bool {
    let tasks = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    let mut namespaces = tasks.filter_map(|task| fs::read_link(task.path().join("ns/net")).ok());
    namespaces.any(|namespace| namespace == own)
}

#[cfg(test)]
mod tests {
    use super::at_work;
    use std::path::Path;
    use std::process::{Command, Stdio};

    #[test]
    fn a_plugin_is_known_by_its_environment() {
        let mut plugin = Command::new("cat");
        plugin.env("CNI_COMMAND", "ADD").stdin(Stdio::piped());
        let mut plugin = plugin.spawn().unwrap();
        let told = format!("(process {})", plugin.id());
        // Between fork and execve its environment is ours.
        let mut seen = false;
        for _ in 0..1000 {
            seen = at_work(Path::new("/proc")).unwrap().iter().any(|it| it.ends_with(&told));
            if seen {
                break;
            }
        }
        drop(plugin.stdin.take());
        plugin.wait().unwrap();
        assert!(seen);
        assert!(!at_work(Path::new("/proc")).unwrap().iter().any(|it| it.ends_with(&told)));
    }
}
