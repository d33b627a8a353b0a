//! `ferrulectl why`: what on this node keeps one connection from working. Changes nothing; at most the kernel is made to
//! ask for a next hop's hardware address, as it does before it sends. Only `--probe` sends packets.
//!
//! | file            | what it looks at                                                                    |
//! |-----------------|-------------------------------------------------------------------------------------|
//! | [`look`]        | what is read once: networks, records, the node                                      |
//! | [`ends`]        | who is at an end of the connection                                                  |
//! | `source`        | the half of the node that has the source                                            |
//! | `destination`   | that of the node that has the destination                                           |
//! | `pod`           | a pod's link at both ends, its address and its routes                               |
//! | `policies`      | what policies and their table say                                                   |
//! | `forwarding`    | sysctls, and where packets may come from                                            |
//! | `departure`     | the way from this node to another or to the world                                   |
//! | `tunnel`        | VXLAN                                                                               |
//! | `neighbour`     | the next hop                                                                        |
//! | `firewall`      | chains of others                                                                    |
//! | `table`         | ferrule's own table: the pod's addresses, masquerade, hostPorts                     |
//! | `listener`      | who listens                                                                         |
//! | [`probe`]       | what becomes of a packet                                                            |
//!
//! What can be read of two nodes is joined by [`crate::connectivity::join`].

mod departure;
mod destination;
pub mod ends;
mod firewall;
mod forwarding;
mod listener;
pub mod look;
mod neighbour;
mod pod;
mod policies;
mod probe;
mod source;
mod table;
mod tunnel;

use std::fmt::Write;

use futures_util::future::join_all;

use crate::cli::arguments::Common;
use crate::cli::policy::target::{Door, Target};
use crate::cli::why::ends::{End, find_end};
use crate::cli::why::look::Look;
use crate::cli::{Report, STATUS_BLIND};
use crate::cni::error::{CniError, Code};
use crate::connectivity::answer::{Document, Verdict};
use crate::connectivity::half::Half;
use crate::connectivity::join::join;
use crate::connectivity::probe::judge;
use crate::connectivity::question::{Protocol, Question};
use crate::connectivity::text::{headline, probe_text, steps_text, trace_text};
use crate::text_table::escape;

/// Who wants to reach whom.
#[derive(Debug, Clone)]
pub enum Asked<'a> {
    /// As people say it.
    Ends(&'a Target, &'a Door),
    /// As somebody says it who has asked the API server.
    Question(&'a str),
}

/// Answers, as far as this node knows. `sends`: packets as well, to see what becomes of them.
///
/// # Errors
/// If one of the two is not known, or nothing can be read.
pub async fn why(common: &Common, asked: Asked<'_>, sends: bool) -> Result<Document, CniError> {
    let networks = common.find_networks(None)?;
    let look = Look::read(common, &networks).await?;
    let question = match asked {
        Asked::Question(text) => serde_json::from_str(text).map_err(|error| {
            CniError::new(Code::Decode, "the question is none").with_details(error.to_string())
        })?,
        Asked::Ends(from, to) => {
            let (protocol, port) = match to.port {
                Some((number, port)) => (Protocol::of(number).unwrap_or(Protocol::Tcp), port),
                None => (Protocol::Icmp, 0),
            };
            let (source, destination) = (find_end(&look, from)?, find_end(&look, &to.target)?);
            Question { source, destination, protocol, port, endpoints: Vec::new() }
        }
    };
    let mut halves = Vec::new();
    for flow in question.flows() {
        let ends = End::of_flow(&look, &question, flow);
        let halves_of_flow = async || -> Result<Vec<Half>, CniError> {
            let mut halves = Vec::new();
            if ends.source.is_here() {
                halves.push(source::half(&look, &ends).await?);
            }
            if ends.destination.is_here() {
                halves.push(destination::half(&look, &ends).await?);
            }
            Ok(halves)
        };
        halves.extend(halves_of_flow().await?);
    }
    let answer = join(&question, &halves);
    let flows: Vec<_> = question.flows().into_iter().take(if sends { probe::MOST } else { 0 }).collect();
    let ends: Vec<_> = flows.into_iter().map(|flow| End::of_flow(&look, &question, flow)).collect();
    let probes = join_all(ends.iter().map(|ends| probe::probe(&look, &question, ends))).await;
    Ok(Document { version: 1, question, halves, answer, probes })
}

impl Report for Document {
    fn status(&self) -> u8 {
        match judge(self.answer.verdict, &self.probes) {
            Verdict::Works => 0,
            Verdict::Broken => 1,
            Verdict::Unknown => STATUS_BLIND,
        }
    }

    fn to_text(&self, colour: bool) -> String {
        let mut text = headline(&self.answer, colour);
        for probe in &self.probes {
            text.push_str(&probe_text(probe, colour));
        }
        text.push_str(&steps_text(&self.question, &self.answer, colour));
        text.push_str(&trace_text(&self.probes, colour));
        for other in &self.answer.ask {
            let name = match (&other.node, other.address) {
                (Some(node), _) => node.clone(),
                (None, Some(address)) => format!("the node with address {address}"),
                (None, None) => "the node of the other end".to_owned(),
            };
            let _ = writeln!(text, "\nto be asked as well, by the same command there: {}", escape(&name));
        }
        text
    }
}
