//! What an ADD and a DEL take of the node's memory, and of its disk.

use crate::Failure;
use crate::contender::{Contender, FERRULE};
use crate::invocation::Invocation;
use crate::lab::Lab;
use crate::report::Report;
use std::fs;

const RUNS: usize = 5;

/// Fills "memory" of the report.
pub fn measure(lab: &Lab, contenders: &[Contender], report: &mut Report) -> Result<(), Failure> {
    let mut lines = Vec::new();
    for contender in contenders {
        let (mut add, mut del) = (0, 0);
        for _ in 0..RUNS {
            let pod = lab.make_pod()?;
            add = add.max(peak(lab, contender.add(&pod))?);
            del = del.max(peak(lab, contender.del(&pod))?);
        }
        lines.push((contender.name, add, del));
        if contender.name == FERRULE {
            let size = fs::metadata(lab.ferrule())?.len();
            report.measured("binary in MiB", Some(size as f64 / 1024.0 / 1024.0));
            report.measured("peak memory in MiB", Some(add.max(del) as f64 / 1024.0));
        }
    }
    report.memory(&lines);
    Ok(())
}

/// The most memory the run ever held, in KiB, its children included.
fn peak(lab: &Lab, invocation: Invocation) -> Result<u64, Failure> {
    let said = invocation.under(&lab.peak()).run()?.complaint;
    let last = said.lines().last().unwrap_or_default();
    last.parse().map_err(|_| format!("peak said {said:?} instead of a number").into())
}
