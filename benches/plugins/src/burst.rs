//! A node that starts: 80 ADDs, sixteen at a time, and then 80 DELs.

use crate::contender::Group;
use crate::invocation::Invocation;
use crate::lab::{Lab, Pod};
use crate::report::{Report, Samples, Table};
use crate::{Effort, Failure};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PODS: u32 = 80;
const AT_ONCE: usize = 16;

/// Fills "80 ADD" and "80 DEL" of the report, for the group's job.
pub fn measure(lab: &Lab, group: &Group, effort: &Effort, report: &mut Report) -> Result<(), Failure> {
    let (contenders, job) = (&group.contenders, group.job);
    eprintln!("{AT_ONCE} at once{job}: {} rounds", effort.bursts);
    let mut adds = vec![Samples::default(); contenders.len()];
    let mut dels = adds.clone();
    for round in 0..effort.bursts {
        for i in (0..contenders.len()).map(|i| (i + round) % contenders.len()) {
            let pods = lab.make_pods(PODS as usize)?;
            let all = |run: &dyn Fn(&Pod) -> Invocation| pods.iter().map(run).collect::<Vec<_>>();
            lab.settle(PODS);
            adds[i].push(run_all(&all(&|pod| contenders[i].add(pod)), AT_ONCE)?);
            lab.settle(PODS);
            dels[i].push(run_all(&all(&|pod| contenders[i].del(pod)), AT_ONCE)?);
            lab.end_pods(&pods)?;
        }
    }
    for (verb, samples) in [("80 ADD", adds), ("80 DEL", dels)] {
        let title = format!("{verb}s{job}, {AT_ONCE} at once, until the last one has ended");
        let mut table = Table::new(&title, &group.pairs.map(|(_, reference)| reference));
        for (contender, samples) in contenders.iter().zip(&samples) {
            table.row(contender.name, samples);
        }
        for (name, reference) in group.pairs {
            report.measured(&format!("{verb}{job} to {reference}"), table.ratio(name, reference));
        }
        report.show(table);
    }
    Ok(())
}

/// Runs all of them, `at_once` at a time, and says how long that took. The first failure is returned when those that
/// run have ended.
pub fn run_all(invocations: &[Invocation], at_once: usize) -> Result<Duration, Failure> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), Failure> {
        while let Some(invocation) = invocations.get(next.fetch_add(1, Ordering::Relaxed)) {
            invocation.run()?;
        }
        Ok(())
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| Failure::from("a worker panicked"))?)
    })?;
    Ok(started.elapsed())
}
