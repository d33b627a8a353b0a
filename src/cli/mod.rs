//! `ferrulectl`: what people run by hand on a node. Verbs that look, and verbs that tidy up.
//!
//! | verb          | does                                                                                  |
//! |---------------|---------------------------------------------------------------------------------------|
//! | [`inspect`]   | lists each network's attachments, ranges and routes to peers                          |
//! | [`doctor`]    | finds what keeps pods from their network, why, and what to do                          |
//! | [`drops`]     | counts the packets that were dropped, by reason                                        |
//! | [`reclaim`]   | releases addresses that belong to dead pods or to no pod                              |
//! | [`sync`]      | restores the node's part of each network now                                          |
//! | [`uninstall`] | removes all that ferrule made                                                         |
//! | [`policy`]    | shows what NetworkPolicies do to a pod, and says why a connection is allowed or denied |
//! | [`why`]       | finds what on this node keeps one connection from working                             |
//! | [`import`]    | takes over the running pods of a plugin that has its addresses from host-local        |
//! | [`migrate`]   | the steps of such a move on one node, for `kubectl ferrule migrate`                    |
//! | [`capture`]   | writes what a pod sends and receives to stdout, as a pcap                              |
//! | [`bundle`]    | prints what a report of a defect needs                                                |
//!
//! They work on the conflists and stores that they find on the node (`attachments::networks`), and judge by the same
//! rules as the plugin. Each returns a [`Report`], which is printed as tables or as JSON.

pub mod arguments;
mod attachment_report;
mod bridges;
pub mod bundle;
pub mod capture;
pub mod doctor;
pub mod drops;
mod generate;
pub mod import;
pub mod inspect;
pub mod migrate;
pub mod policy;
pub mod reclaim;
pub mod sync;
pub mod uninstall;
pub mod why;

use arguments::{CommandLine, Common, PolicyVerb, Verb};

use crate::attachments::block_on;
use crate::attachments::networks::Networks;
use crate::cni::error::CniError;
use crate::cni::ids::NetworkName;
use crate::command_line::outcome::{Outcome, Report, STATUS_BLIND};

/// Runs the verb. `colour`: whether a person reads stdout on a terminal.
pub fn run(command_line: &CommandLine, colour: bool) -> Outcome {
    let CommandLine { common, verb } = command_line;
    let done = match verb {
        Verb::Inspect { network } => {
            report(common, colour, block_on(inspect::inspect(common, network.as_ref())))
        }
        Verb::Doctor { network } => {
            report(common, colour, block_on(doctor::doctor(common, network.as_ref())))
        }
        Verb::Drops => report(common, colour, block_on(drops::drops(common))),
        Verb::Reclaim { network, dry_run } => {
            report(common, colour, block_on(reclaim::reclaim(common, network.as_ref(), *dry_run)))
        }
        Verb::Sync { network } => report(common, colour, block_on(sync::sync(common, network.as_ref()))),
        Verb::Uninstall { dry_run, yes_pods_lose_their_network } => {
            let done = uninstall::uninstall(common, *dry_run, *yes_pods_lose_their_network);
            report(common, colour, block_on(done))
        }
        Verb::Import { from, network, results, dry_run } => {
            let request =
                import::ImportRequest { from, network: network.as_ref(), results, dry_run: *dry_run };
            report(common, colour, block_on(import::import(common, &request)))
        }
        Verb::Migrate { step, options } => {
            let request = migrate::MigrateRequest {
                step: *step,
                network: &options.network,
                conf_name: &options.conf_name,
                pod_cidrs: &options.pod_cidrs,
                from: options.from.as_deref(),
                results: &options.results,
            };
            let entered = options.root.as_deref().map_or(Ok(()), migrate::enter);
            entered.and_then(|()| report(common, colour, block_on(migrate::migrate(common, &request))))
        }
        Verb::Policy { verb: PolicyVerb::Why { from, to } } => {
            report(common, colour, block_on(policy::why::why(common, from, to)))
        }
        Verb::Policy { verb: PolicyVerb::Show { pod } } => {
            report(common, colour, block_on(policy::show::show(common, pod)))
        }
        Verb::Why { from, to, question, probe } => {
            let asked = match (question, from, to) {
                (Some(text), ..) => why::Asked::Question(text),
                (None, Some(from), Some(to)) => why::Asked::Ends(from, to),
                // clap asks for both.
                (None, ..) => why::Asked::Question(""),
            };
            report(common, colour, block_on(why::why(common, asked, *probe)))
        }
        Verb::Capture { pod, interface, full, count, duration, leash } => {
            let (interface, full, leash) = (interface.as_ref(), *full, *leash);
            let (count, duration) = (*count, *duration);
            let request = capture::CaptureRequest { pod, interface, full, count, duration, leash };
            let summary = block_on(capture::capture(common, &request));
            // Stdout has the packets.
            summary.map(|stderr| Outcome { stderr, ..Outcome::default() })
        }
        Verb::Bundle => report(common, colour, block_on(bundle::bundle(common))),
        Verb::Completions { shell } => {
            Ok(Outcome { stdout: generate::completions(*shell), ..Outcome::default() })
        }
        Verb::Generate { directory } => generate::write_all(directory).map(|()| Outcome::default()),
    };
    done.unwrap_or_else(|error| {
        let stderr = format!("ferrulectl {}: {error}\n", verb.as_str());
        // Of doctor 1 says that something is wrong with the network, of policy that something is denied; here neither has
        // even looked.
        let is_blind = matches!(verb, Verb::Doctor { .. } | Verb::Policy { .. } | Verb::Why { .. });
        let status = if is_blind { STATUS_BLIND } else { 1 };
        Outcome { stderr, status, ..Outcome::default() }
    })
}

fn report(common: &Common, colour: bool, report: Result<impl Report, CniError>) -> Result<Outcome, CniError> {
    Ok(Outcome::of(&report?, common.output, colour))
}

impl Common {
    /// The networks of this node, or only the one.
    fn find_networks(&self, only: Option<&NetworkName>) -> Result<Networks, CniError> {
        match only {
            Some(name) => Networks::find_one(&self.conf_dir, &self.data_dir, name),
            None => Networks::find(&self.conf_dir, &self.data_dir),
        }
    }
}
