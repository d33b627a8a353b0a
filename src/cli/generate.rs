//! Shell completions and man pages, from the same definition as the command line itself.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::arguments::CommandLine;
use crate::cni::error::{CniError, Code};

const PROGRAM: &str = "ferrulectl";

/// The shells whose completions are shipped.
const SHIPPED: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// A shell's completions.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), PROGRAM, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes `completions/` and `man/` below `directory`, as `scripts/build.sh` leaves them beside the binaries.
///
/// # Errors
/// Where the directory cannot be written.
pub fn write_all(directory: &Path) -> Result<(), CniError> {
    write_below(directory).map_err(|error| {
        let message = format!("cannot write completions and man pages into {}", directory.display());
        CniError::new(Code::Io, message).with_details(error.to_string())
    })
}

fn write_below(directory: &Path) -> io::Result<()> {
    let (scripts, pages) = (directory.join("completions"), directory.join("man"));
    fs::create_dir_all(&scripts)?;
    fs::create_dir_all(&pages)?;
    for shell in SHIPPED {
        clap_complete::generate_to(shell, &mut CommandLine::command(), PROGRAM, &scripts)?;
    }
    clap_mangen::generate_to(CommandLine::command(), &pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_and_man_pages_know_every_verb() {
        let directory = std::env::temp_dir().join(format!("ferrulectl-generate-{}", std::process::id()));
        write_all(&directory).unwrap();
        let read = |path: &str| fs::read_to_string(directory.join(path)).unwrap();
        for verb in [
            "inspect",
            "doctor",
            "drops",
            "reclaim",
            "sync",
            "uninstall",
            "import",
            "policy",
            "why",
            "capture",
            "bundle",
            "completions",
        ] {
            for script in ["ferrulectl.bash", "_ferrulectl", "ferrulectl.fish"] {
                assert!(read(&format!("completions/{script}")).contains(verb), "{script} lacks {verb}");
            }
            assert!(read(&format!("man/ferrulectl-{verb}.1")).contains(".SH SYNOPSIS"), "{verb}");
        }
        for verb in ["policy-why", "policy-show"] {
            assert!(read(&format!("man/ferrulectl-{verb}.1")).contains(".SH SYNOPSIS"), "{verb}");
        }
        assert!(read("man/ferrulectl.1").contains("ferrulectl\\-reclaim(1)"));
        assert!(!directory.join("man/ferrulectl-generate.1").exists(), "it is hidden");
        fs::remove_dir_all(&directory).unwrap();
    }
}
