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

/// What is called what in the report.
const WAYS: [&str; 2] = ["new connection, same node", "new connection, two nodes"];

/// Fills "new connections" of the report.
pub fn measure(lab: &mut Lab, effort: &Effort, report: &mut Report) -> Result<(), Failure> {
    let mut samples = [[(); LEVELS.len()]; WAYS.len()].map(|levels| levels.map(|()| Samples::default()));
    eprintln!("new connections: {} rounds", effort.rounds);
    for round in 0..effort.rounds {
        for place in 0..LEVELS.len() {
            // In all orders, as far as there are rounds: nobody always comes after the same one.
            let level = (place * if round.is_multiple_of(2) { 1 } else { 3 } + round) % LEVELS.len();
            lab.have_policies(LEVELS[level])?;
            for (server, levels) in lab.servers.iter().zip(&mut samples) {
                let to = SocketAddr::new(server.address, PORT);
                // The first ones fill caches.
                inside(&lab.client.netns, || connect_for(effort.span / 10, to))?;
                let (made, took) = inside(&lab.client.netns, || connect_for(effort.span, to))?;
                levels[level].push(took / u32::try_from(made)?);
            }
        }
    }
    for (way, levels) in WAYS.iter().zip(&samples) {
        let rows =
            LEVELS.iter().zip(levels).map(|(level, samples)| (count(*level, "policies"), samples.clone()));
        report.rates(way, rows.collect());
    }
    Ok(())
}
