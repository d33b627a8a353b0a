//! Shell completions and man pages of `ferrulectl`.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::arguments::CommandLine;
use crate::cni::error::{CniError, Code};
use crate::command_line::generate;

/// A shell's completions.
pub fn completions(shell: Shell) -> String {
    generate::completions(CommandLine::command(), shell)
}

/// Writes `completions/` and `man/` below `directory`.
///
/// # Errors
/// Where the directory cannot be written.
pub fn write_all(directory: &Path) -> Result<(), CniError> {
    generate::write_all(&CommandLine::command(), directory).map_err(|error| {
        let message = format!("cannot write completions and man pages into {}", directory.display());
        CniError::new(Code::Io, message).with_details(error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
