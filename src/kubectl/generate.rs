//! Shell completions and man pages of `kubectl ferrule`.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::command_line::generate;
use crate::kubectl::arguments::CommandLine;

/// A shell's completions, for the program's own name.
pub(super) fn completions(shell: Shell) -> String {
    generate::completions(command(), shell)
}

/// Writes `completions/` and `man/` below `directory`.
///
/// # Errors
/// Where the directory cannot be written.
pub(super) fn write_all(directory: &Path) -> Result<(), String> {
    generate::write_all(&command(), directory).map_err(|error| {
        format!("cannot write completions and man pages into {}: {error}", directory.display())
    })
}

/// By the program's own name: "kubectl ferrule" is two words.
fn command() -> clap::Command {
    CommandLine::command().bin_name("kubectl-ferrule")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn completions_and_man_pages_know_every_verb() {
        let directory = std::env::temp_dir().join(format!("kubectl-ferrule-generate-{}", std::process::id()));
        write_all(&directory).unwrap();
        let read = |path: &str| fs::read_to_string(directory.join(path)).unwrap();
        for verb in ["inspect", "doctor", "policy", "capture", "bundle", "uninstall"] {
            for script in ["kubectl-ferrule.bash", "_kubectl-ferrule", "kubectl-ferrule.fish"] {
                assert!(read(&format!("completions/{script}")).contains(verb), "{script} lacks {verb}");
            }
            assert!(read(&format!("man/kubectl-ferrule-{verb}.1")).contains(".SH SYNOPSIS"), "{verb}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
