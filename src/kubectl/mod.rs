//! `kubectl ferrule`: what `ferrulectl` says of one node, of all nodes or of some. A user's program; it runs wherever
//! kubectl does, and asks the `ferrulectl` in the agents' pods by exec. No agent listens for it.
//!
//! | file          | what it is                                                                     |
//! |---------------|--------------------------------------------------------------------------------|
//! | [`arguments`] | the command line                                                               |
//! | `cluster`     | the API server: nodes and pods                                                 |
//! | `agents`      | which node has which agent, and why one has none                               |
//! | `exec`        | one question to one agent, with a deadline                                     |
//! | `ask`         | the same question to many agents at once                                       |
//! | `target`      | pods, addresses and ports as they stand on the command line                    |
//! | `inspect`, `doctor`, `policy`, `why`, `capture`, `bundle`, `migrate`, `uninstall` | the verbs |
//! | `generate`    | completions and man pages                                                      |
//!
//! What is judged here (which agent, which findings are the same, what a status means) is a pure function of what API
//! server and agents said.

mod agents;
pub mod arguments;
mod ask;
mod bundle;
mod capture;
mod cluster;
mod doctor;
mod exec;
mod generate;
mod inspect;
mod migrate;
mod policy;
mod target;
mod uninstall;
mod why;

use std::io::{self, Write};
use std::sync::Arc;

use arguments::{CommandLine, Common, PolicyVerb, Verb};
use cluster::Cluster;

use crate::cni::ids::NetworkName;
use crate::command_line::outcome::{Outcome, Report, STATUS_BLIND};

/// Runs the verb. `colour`: whether a person reads stdout on a terminal.
pub fn run(command_line: &CommandLine, colour: bool) -> Outcome {
    let CommandLine { common, verb } = command_line;
    let done = match verb {
        Verb::Completions { shell } => {
            Ok(Outcome { stdout: generate::completions(*shell), ..Outcome::default() })
        }
        Verb::Generate { directory } => generate::write_all(directory).map(|()| Outcome::default()),
        verb => match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(with_cluster(common, verb, colour)),
            Err(error) => Err(format!("no event loop can be had: {error}")),
        },
    };
    done.unwrap_or_else(|error| {
        let stderr = format!("kubectl ferrule {}: {error}\n", verb.as_str());
        Outcome { stderr, status: if verb.only_looks() { STATUS_BLIND } else { 1 }, ..Outcome::default() }
    })
}

async fn with_cluster(common: &Common, verb: &Verb, colour: bool) -> Result<Outcome, String> {
    let cluster = Arc::new(Cluster::connect(common).await?);
    match verb {
        Verb::Inspect { network } => Ok(report(
            common,
            colour,
            &inspect::inspect(&cluster, common, network.as_ref().map(NetworkName::as_str)).await?,
        )),
        Verb::Doctor { network } => Ok(report(
            common,
            colour,
            &doctor::doctor(&cluster, common, network.as_ref().map(NetworkName::as_str)).await?,
        )),
        Verb::Policy { verb: PolicyVerb::Why { from, to } } => {
            Ok(report(common, colour, &policy::why(&cluster, common, from, to).await?))
        }
        Verb::Policy { verb: PolicyVerb::Show { pod } } => {
            Ok(report(common, colour, &policy::show(&cluster, common, pod).await?))
        }
        Verb::Why { from, to } => Ok(report(common, colour, &why::why(&cluster, common, from, to).await?)),
        Verb::Capture { pod, options } => capture::capture(&cluster, common, pod, options).await,
        Verb::Bundle { file, log_lines } => {
            bundle::bundle(&cluster, common, file.as_deref(), *log_lines).await
        }
        Verb::Migrate(options) => migrate::migrate(&cluster, common, options, colour).await,
        Verb::Uninstall { yes, dry_run, image } => {
            uninstall::uninstall(&cluster, common, *yes, *dry_run, image.as_deref()).await
        }
        Verb::Completions { .. } | Verb::Generate { .. } => Ok(Outcome::default()),
    }
}

fn report(common: &Common, colour: bool, report: &impl Report) -> Outcome {
    Outcome::of(report, common.output, colour)
}

/// To whoever waits. Stdout is for the answer.
fn say(words: &str) {
    let _ = io::stderr().write_all(format!("{words}\n").as_bytes());
}
