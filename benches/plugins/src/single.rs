//! One ADD, then one DEL, of each contender in turn.

use crate::contender::{Contender, Group};
use crate::lab::Lab;
use crate::report::{Report, Samples, Table};
use crate::{Effort, Failure};

/// Fills "ADD" and "DEL" of the report, for the group's job.
pub fn measure(lab: &Lab, group: &Group, effort: &Effort, report: &mut Report) -> Result<(), Failure> {
    let job = group.job;
    eprintln!("one after another{job}: {} rounds", effort.single);
    let mut samples = rounds(lab, &group.contenders, effort.single)?;
    // Apart from the others: in turns with them it would take minutes.
    samples.extend(rounds(lab, &group.slow, effort.slow)?);

    let references = group.pairs.map(|(_, reference)| reference);
    let mut adds = Table::new(&format!("ADD{job}, one after another"), &references);
    let mut dels = Table::new(&format!("DEL{job}, one after another"), &references);
    for (name, (add, del)) in &samples {
        adds.row(name, add);
        dels.row(name, del);
    }
    for (name, reference) in group.pairs {
        report.measured(&format!("ADD{job} to {reference}"), adds.ratio(name, reference));
        report.measured(&format!("DEL{job} to {reference}"), dels.ratio(name, reference));
    }
    report.show(adds);
    report.show(dels);
    Ok(())
}

type AddsAndDels = (Samples, Samples);

fn rounds(
    lab: &Lab,
    contenders: &[Contender],
    rounds: usize,
) -> Result<Vec<(&'static str, AddsAndDels)>, Failure> {
    let mut samples: Vec<(&'static str, AddsAndDels)> =
        contenders.iter().map(|contender| (contender.name, AddsAndDels::default())).collect();
    for round in 0..rounds {
        let pods = lab.make_pods(contenders.len())?;
        for i in order(contenders.len(), round) {
            lab.settle(1);
            samples[i].1.0.push(contenders[i].add(&pods[i]).run()?.elapsed);
        }
        for i in order(contenders.len(), round + 13) {
            lab.settle(1);
            samples[i].1.1.push(contenders[i].del(&pods[i]).run()?.elapsed);
        }
        lab.end_pods(&pods)?;
    }
    Ok(samples)
}

/// The numbers below `count` in the `nth` order of all there are. Were it always the same one, or the same one turned on,
/// each would always come after the same other, and pay for what that has left to the kernel.
pub fn order(count: usize, nth: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..count).collect();
    let mut rest = nth;
    let mut take = || {
        let place = rest % left.len();
        rest /= left.len();
        left.remove(place)
    };
    (0..count).map(|_| take()).collect()
}
