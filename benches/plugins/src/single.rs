//! One ADD, then one DEL, of each contender in turn.

use crate::contender::{Contender, FERRULE, FERRULE_V4, FLOOR, PTP};
use crate::lab::Lab;
use crate::report::{Report, Samples, Table};
use crate::{Effort, Failure};

/// Fills "ADD" and "DEL" of the report.
pub fn measure(
    lab: &Lab,
    contenders: &[Contender],
    effort: &Effort,
    report: &mut Report,
) -> Result<(), Failure> {
    eprintln!("one after another: {} rounds", effort.single);
    let mut samples = rounds(lab, contenders, effort.single)?;

    // Apart from the others: in turns with them it would take minutes.
    let slow = [Contender::dual_stack_ptp(lab)];
    match slow.iter().try_for_each(|contender| contender.works(lab)) {
        Ok(()) => samples.extend(rounds(lab, &slow, effort.slow)?),
        Err(reason) => slow.iter().for_each(|contender| report.left_out(contender.name, &reason.to_string())),
    }

    let mut adds = Table::new("ADD, one after another", &[FLOOR, PTP]);
    let mut dels = Table::new("DEL, one after another", &[FLOOR, PTP]);
    for (name, (add, del)) in &samples {
        adds.row(name, add);
        dels.row(name, del);
    }
    for (name, reference) in [(FERRULE, FLOOR), (FERRULE_V4, PTP)] {
        report.measured(&format!("ADD to {reference}"), adds.ratio(name, reference));
        report.measured(&format!("DEL to {reference}"), dels.ratio(name, reference));
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
        // Another one begins each time, as what one leaves to the kernel to finish hits the next.
        let turn = |i: usize| (i + round) % contenders.len();
        for i in (0..contenders.len()).map(turn) {
            samples[i].1.0.push(contenders[i].add(&pods[i]).run()?.elapsed);
        }
        for i in (0..contenders.len()).map(turn) {
            samples[i].1.1.push(contenders[i].del(&pods[i]).run()?.elapsed);
        }
    }
    Ok(samples)
}
