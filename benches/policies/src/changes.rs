//! One change among many policies: how long it takes, and what it costs packets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ferrule::policy::object::Event;
use kit::netns::inside;

use crate::lab::Lab;
use crate::objects::{self, PORT};
use crate::report::{Report, Samples, count};
use crate::traffic::{Packets, send_until};
use crate::{Effort, Failure};

/// How many policies there are when one changes.
const MANY: usize = 1_000;

/// So many policies change within the time in which the agent gathers.
const AT_ONCE: usize = 100;

/// Fills "changes" of the report.
pub fn measure(lab: &mut Lab, effort: &Effort, report: &mut Report) -> Result<(), Failure> {
    for policies in [1, 100, MANY] {
        lab.have_policies(policies)?;
        eprintln!("changes at {policies} policies: {} of each kind", effort.timed);
        let mut rows = Vec::new();
        if policies > AT_ONCE {
            rows.extend(at_once(lab, effort)?);
            lab.have_policies(policies)?;
        }
        for (name, change) in KINDS {
            let (mut whole, mut planned) = (Samples::default(), Samples::default());
            for round in 0..effort.timed {
                let took = lab.agent().follow(vec![change(policies, round)?])?;
                whole.push(took.whole);
                planned.push(took.planned);
            }
            rows.extend([(name.to_owned(), whole), (format!("{name}: planning"), planned)]);
        }
        report.times(&format!("event to table, {}", count(policies, "policies")), rows);
    }
    packets(lab, effort, report)
}

/// Many policies change at once: all of it, and planning.
fn at_once(lab: &mut Lab, effort: &Effort) -> Result<[(String, Samples); 2], Failure> {
    let (mut whole, mut planned) = (Samples::default(), Samples::default());
    for round in 0..effort.timed {
        let change = |number| objects::changed(objects::policy(number, round + 1));
        let took = lab.agent().follow((1..=AT_ONCE).map(change).collect::<Result<_, _>>()?)?;
        whole.push(took.whole);
        planned.push(took.planned);
    }
    let name = format!("{AT_ONCE} policies change, gathered");
    Ok([(name.clone(), whole), (format!("{name}: planning"), planned)])
}

/// A change of which the first node hears: what it is called, and the event of a round.
type Kind = (&'static str, fn(usize, usize) -> Result<Event, Failure>);

const KINDS: [Kind; 4] = [
    ("a policy comes or goes", |policies, round| match round.is_multiple_of(2) {
        true => objects::changed(objects::policy(policies, 0)),
        false => Ok(objects::gone(policies)),
    }),
    ("a policy of other pods comes or goes", |policies, round| match round.is_multiple_of(2) {
        true => {
            let mut policy = objects::policy(policies, 0);
            policy["spec"]["podSelector"] = serde_json::json!({ "matchLabels": { "role": "nobody" } });
            objects::changed(policy)
        }
        false => Ok(objects::gone(policies)),
    }),
    ("another node's pod becomes a peer or none", |_, round| objects::foreign_pod(1, round + 1)),
    ("another node's pod is not selected before or after", |_, round| objects::foreign_pod(2_001 + round, 1)),
];

/// Packets to the server on the other node, which both nodes judge, while policies and peers change on both.
fn packets(lab: &mut Lab, effort: &Effort, report: &mut Report) -> Result<(), Failure> {
    lab.have_policies(100)?;
    eprintln!("packets: {} changes", effort.changes);
    let ends = AtomicBool::new(false);
    let to = SocketAddr::new(lab.servers[1].address, PORT);
    let netns = lab.client.netns.path().to_owned();
    let packets = thread::scope(|scope| {
        let sending = scope.spawn(|| inside(&netns, || send_until(&ends, to)));
        let changed = (0..effort.changes).try_for_each(|round| lab.tell(&vec![change(round)?]));
        ends.store(true, Ordering::Relaxed);
        let packets = sending.join().map_err(|_| "the sender panicked")??;
        changed.map(|()| packets)
    })?;
    let Packets { allowed, lost, forbidden, passed } = packets;
    report.line(format!(
        "packets through {} changes: {lost} of {allowed} allowed were lost, {passed} of {forbidden} forbidden passed",
        effort.changes
    ));
    Ok(())
}

/// Policies get another port, peers come and go, in turns. What is measured stays allowed.
fn change(round: usize) -> Result<Event, Failure> {
    let number = round / 3 % 99 + 1;
    match round % 3 {
        0 => objects::changed(objects::policy(number, round / 297 + 1)),
        1 => objects::foreign_pod(number, round / 297 + 1),
        // The one that allows it gets a second rule, and loses it.
        _ => {
            let mut policy = objects::policy(0, 0);
            if round.is_multiple_of(2) {
                let second = serde_json::json!({ "ports": [{ "port": 9_000 + number }] });
                policy["spec"]["ingress"]
                    .as_array_mut()
                    .into_iter()
                    .for_each(|rules| rules.push(second.clone()));
            }
            objects::changed(policy)
        }
    }
}
