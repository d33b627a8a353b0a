//! Shell completions and man pages, from the same definition as the command line itself.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// The shells whose completions are shipped.
const SHIPPED: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// A shell's completions.
pub fn completions(mut command: Command, shell: Shell) -> String {
    let program = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, program, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes `completions/` and `man/` below `directory`, as `scripts/build.sh` leaves them beside the binaries.
///
/// # Errors
/// Where the directory cannot be written.
pub fn write_all(command: &Command, directory: &Path) -> io::Result<()> {
    let (scripts, pages) = (directory.join("completions"), directory.join("man"));
    fs::create_dir_all(&scripts)?;
    fs::create_dir_all(&pages)?;
    for shell in SHIPPED {
        clap_complete::generate_to(shell, &mut command.clone(), command.get_name(), &scripts)?;
    }
    clap_mangen::generate_to(command.clone(), &pages)
}
