//! `kubectl ferrule`: what `ferrulectl` says of one node, of all of them ([`ferrule::kubectl`]).

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use ferrule::kubectl;
use ferrule::kubectl::arguments::CommandLine;

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
    let outcome = kubectl::run(&command_line, io::stdout().is_terminal() && !no_color);
    let _ = io::stderr().write_all(outcome.stderr.as_bytes());
    match io::stdout().write_all(outcome.stdout.as_bytes()) {
        Ok(()) => ExitCode::from(outcome.status),
        // Nobody reads any more (`| head`).
        Err(_) => ExitCode::FAILURE,
    }
}
