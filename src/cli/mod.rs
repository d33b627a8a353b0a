//! What people run by hand on a node: verbs that look, and verbs that tidy up.
//!
//! | verb          | does                                                                                  |
//! |---------------|---------------------------------------------------------------------------------------|
//! | [`inspect`]   | shows each network's attachments, ranges and routes to peers                          |
//! | [`doctor`]    | finds what keeps pods from their network, why, and what to do                          |
//! | [`reclaim`]   | frees what dead attachments and nobody hold                                           |
//! | [`sync`]      | makes the node's part of each network true now                                        |
//! | [`uninstall`] | removes all that ferrule made                                                         |
//! | [`import`]    | takes over the running pods of a plugin that had its addresses from host-local        |
//!
//! They read the conflists and stores that they find on the node (`networks`), and judge by the same rules as the
//! commands of the protocol. None of this runs when a runtime executes the plugin.

pub mod arguments;
mod attachments;
mod bridges;
pub mod doctor;
pub mod import;
pub mod inspect;
mod networks;
mod node;
pub mod reclaim;
pub mod sync;
mod text_table;
pub mod uninstall;

use arguments::{Arguments, Verb};

use crate::attachments::block_on;
use crate::cni::error::CniError;

/// What a verb has to say, and how it ends.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// For stdout.
    pub text: String,
    /// For stderr.
    pub complaint: String,
    /// Exit status: 0 all is well, 1 something is not, 2 the arguments are no use.
    pub status: u8,
}

impl Outcome {
    fn of(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

/// Whether `argument` names a verb.
pub fn is_verb(argument: &str) -> bool {
    Verb::ALL.iter().any(|verb| verb.as_str() == argument)
}

/// Runs the verb that `arguments` begin with. `colour`: whether a person reads stdout on a terminal.
pub fn run(arguments: impl IntoIterator<Item = std::ffi::OsString>, colour: bool) -> Outcome {
    let arguments = match Arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let complaint = format!("ferrule: {error}\n\n{}", arguments::USAGE);
            return Outcome { complaint, status: 2, ..Outcome::default() };
        }
    };
    if arguments.help {
        return Outcome::of(arguments::USAGE.to_owned());
    }
    let done = match arguments.verb {
        Verb::Inspect => block_on(inspect::inspect(&arguments, colour)),
        Verb::Doctor => block_on(doctor::doctor(&arguments, colour)),
        Verb::Reclaim => block_on(reclaim::reclaim(&arguments, colour)),
        Verb::Sync => block_on(sync::sync(&arguments, colour)),
        Verb::Uninstall => block_on(uninstall::uninstall(&arguments, colour)),
        Verb::Import => block_on(import::import(&arguments, colour)),
    };
    done.unwrap_or_else(|error: CniError| {
        let complaint = format!("ferrule {}: {error}\n", arguments.verb.as_str());
        Outcome { complaint, status: 1, ..Outcome::default() }
    })
}

/// A document for programs: two spaces of indentation, a final newline.
fn to_json(document: &impl serde::Serialize) -> String {
    // Strings, numbers and lists: serialising them cannot fail.
    serde_json::to_string_pretty(document).map(|json| json + "\n").unwrap_or_default()
}
