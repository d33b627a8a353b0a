//! New connections, by the number of policies.

use std::net::SocketAddr;

use kit::netns::inside;

use crate::lab::Lab;
use crate::objects::PORT;
use crate::report::{Report, Samples, count};
use crate::traffic::connect_for;
use crate::{Effort, Failure};

/// How many policies of the pods there are.
const LEVELS: [usize; 4] = [0, 1, 100, 1_000];

/// Where the server is, and whether a request and an answer goes through each connection.
const WAYS: [(&str, bool); 4] = [
    ("new connection, same node", false),
    ("new connection, two nodes", false),
    ("new connection with a request, same node", true),
    ("new connection with a request, two nodes", true),
];

/// How long it took, and what CPU time: the second means the same on a machine that does other things as well.
const KINDS: [&str; 2] = ["", ", CPU time"];

/// Fills "new connections" of the report.
pub fn measure(lab: &mut Lab, effort: &Effort, report: &mut Report) -> Result<(), Failure> {
    let mut samples: [[[Samples; LEVELS.len()]; KINDS.len()]; WAYS.len()] = Default::default();
    eprintln!("new connections: {} rounds", effort.rounds);
    for round in 0..effort.rounds {
        for place in 0..LEVELS.len() {
            // In all orders, as far as there are rounds: nobody always comes after the same one.
            let level = (place * if round.is_multiple_of(2) { 1 } else { 3 } + round) % LEVELS.len();
            lab.have_policies(LEVELS[level])?;
            for ((server, (_, asks)), [took, cpu]) in lab.servers.iter().cycle().zip(WAYS).zip(&mut samples) {
                let to = SocketAddr::new(server.address, PORT);
                // The first ones fill caches.
                inside(&lab.client.netns, || connect_for(effort.span / 10, to, asks))?;
                let connection = inside(&lab.client.netns, || connect_for(effort.span, to, asks))?;
                took[level].push(connection.took);
                cpu[level].push(connection.cpu);
            }
        }
    }
    for ((way, _), kinds) in WAYS.iter().zip(&samples) {
        for (kind, levels) in KINDS.iter().zip(kinds) {
            let rows = LEVELS
                .iter()
                .zip(levels)
                .map(|(level, samples)| (count(*level, "policies"), samples.clone()));
            report.rates(&format!("{way}{kind}"), rows.collect());
        }
    }
    Ok(())
}
