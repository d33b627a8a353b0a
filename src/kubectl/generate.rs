//! Shell completions and man pages, from the same definition as the command line itself.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::kubectl::arguments::CommandLine;

const PROGRAM: &str = "kubectl-ferrule";

/// The shells whose completions are shipped.
const SHIPPED: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// A shell's completions, for the program's own name.
pub(super) fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), PROGRAM, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes `completions/` and `man/` below `directory`.
///
/// # Errors
/// Where the directory cannot be written.
pub(super) fn write_all(directory: &Path) -> Result<(), String> {
    let why = |error: io::Error| {
        format!("cannot write completions and man pages into {}: {error}", directory.display())
    };
    write_below(directory).map_err(why)
}

fn write_below(directory: &Path) -> io::Result<()> {
    let (scripts, pages) = (directory.join("completions"), directory.join("man"));
    fs::create_dir_all(&scripts)?;
    fs::create_dir_all(&pages)?;
    for shell in SHIPPED {
        clap_complete::generate_to(shell, &mut command(), PROGRAM, &scripts)?;
    }
    clap_mangen::generate_to(command(), &pages)
}

/// By the program's own name: "kubectl ferrule" is two words.
fn command() -> clap::Command {
    CommandLine::command().bin_name(PROGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;

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
