//! How long it takes an agent to notice that it does not hear the server: packets are lost, or the server hangs with its
//! connections open.

use std::time::{Duration, Instant};

use crate::Failure;
use crate::agents::Agents;
use crate::control_plane::ControlPlane;
use crate::report::Report;

/// Longer is not waited.
const PATIENCE: Duration = Duration::from_secs(120);

/// Both at once, with two agents.
pub fn measure(server: &ControlPlane, agents: &Agents, report: &mut Report) -> Result<(), Failure> {
    let [lost, frozen, ..] = agents.all.as_slice() else { return Ok(()) };
    let begin = Instant::now();
    lost.netns
        .sh("nft 'add table inet lost; add chain inet lost in { type filter hook input priority 0; }; \
         add rule inet lost in iif eth0 drop'");
    server.freeze(true)?;
    let mut noticed = [None; 2];
    while noticed.contains(&None) && begin.elapsed() < PATIENCE {
        for (agent, noticed) in [lost, frozen].into_iter().zip(&mut noticed) {
            if noticed.is_none() && agent.metric("ferrule_api_up") == Some(0.0) {
                *noticed = Some(begin.elapsed());
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    server.freeze(false)?;
    for (what, noticed) in ["packets are lost", "the server hangs"].into_iter().zip(noticed) {
        report.noticed(what, noticed, PATIENCE);
    }
    Ok(())
}
