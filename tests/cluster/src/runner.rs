//! Runs cases: those that leave others alone side by side, with those beside them that go on as long as they do; then those
//! that disturb, one after another.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::Options;
use crate::cases::{Case, Company};
use crate::cluster::Cluster;
use crate::process::{Failure, Result, seconds};
use crate::space::{Length, Space};

/// How many cases ended how.
#[derive(Default)]
struct Tally {
    passed: usize,
    skipped: usize,
    failed: Vec<&'static str>,
    /// Those of the passed that failed once.
    unsteady: Vec<&'static str>,
}

/// Runs all of these; whether none failed.
pub fn run(cluster: &Cluster, cases: Vec<Case>, options: Options) -> Result<bool> {
    let Options { any_plugin, jobs, .. } = options;
    let start = Instant::now();
    let ours = cluster.kubectl(&["--namespace", "kube-system", "get", "daemonset", "ferrule"]);
    match ours {
        Err(failure) if !any_plugin => {
            return Err(
                format!("ferrule is not installed here (--any-plugin if that is wanted): {failure}").into()
            );
        }
        _ => {}
    }
    println!("cluster {}: {} nodes, {:?}", cluster.name, cluster.nodes.len(), cluster.families);
    let tally = Mutex::new(Tally::default());
    for (case, reason) in cases.iter().filter_map(|case| Some((case, case.cannot_run(any_plugin)?))) {
        println!("skip            {}: {reason}", case.name);
        count(&tally, |tally| tally.skipped += 1);
    }
    let runs = cases.into_iter().filter(|case| case.cannot_run(any_plugin).is_none());
    let (alone, beside): (Vec<_>, Vec<_>) = runs.partition(|case| case.company == Company::None);
    let (together, throughout): (Vec<_>, Vec<_>) =
        beside.into_iter().partition(|case| case.company == Company::Any);
    let queue = Mutex::new(together.into_iter());
    let next = || queue.lock().ok()?.next();
    let over = AtomicBool::new(false);
    let run_case = |case: &Case| run_one(cluster, case, &options, &over, &tally);
    std::thread::scope(|scope| {
        for case in &throughout {
            scope.spawn(move || run_case(case));
        }
        let lanes: Vec<_> = (0..jobs.max(1))
            .map(|_| {
                scope.spawn(|| {
                    while let Some(case) = next() {
                        run_case(&case);
                    }
                })
            })
            .collect();
        for lane in lanes {
            // One that panicked has told so; the others are over as well.
            let _ = lane.join();
        }
        over.store(true, Ordering::Relaxed);
    });
    alone.iter().for_each(run_case);
    let tally = tally.into_inner().map_err(|error| error.to_string())?;
    for name in &tally.failed {
        println!("failed: {name}");
    }
    for name in &tally.unsteady {
        println!("failed once, then passed: {name}");
    }
    println!("all of it took {}", seconds(start.elapsed()));
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed.len(), tally.skipped);
    Ok(tally.failed.is_empty())
}

/// Runs a case, and where the options allow it and it fails, a second time.
fn run_one(cluster: &Cluster, case: &Case, options: &Options, over: &AtomicBool, tally: &Mutex<Tally>) {
    let attempt = |name: &str| attempt(cluster, case, name, options.length, over);
    let is_well = attempt(&namespace(case.name));
    let is_unsteady = !is_well && options.again && attempt(&format!("{}-2", namespace(case.name)));
    count(tally, |tally| match (is_well, is_unsteady) {
        (false, false) => tally.failed.push(case.name),
        (_, is_unsteady) => {
            tally.passed += 1;
            tally.unsteady.extend(is_unsteady.then_some(case.name));
        }
    });
}

/// Runs a case once, and prints how it ended; whether it passed.
fn attempt(cluster: &Cluster, case: &Case, namespace: &str, length: Length, over: &AtomicBool) -> bool {
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let space = Space::make(cluster, namespace, length, over)?;
        let outcome = (case.run)(&space);
        space.remove(case.company == Company::None);
        let measured = |failure| Failure::from(format!("{failure}\n{}", space.notes().join("\n")));
        outcome.map(|()| space.notes()).map_err(measured)
    }));
    let took = seconds(start.elapsed());
    match outcome.unwrap_or_else(|_| Err("the case itself is broken: it panicked".into())) {
        Ok(notes) if notes.is_empty() => {
            println!("PASS  {took:>8}  {}", case.name);
            true
        }
        Ok(notes) => {
            println!("PASS  {took:>8}  {}: {}", case.name, notes.join("; "));
            true
        }
        Err(failure) => {
            let indented = failure.to_string().trim_end().replace('\n', "\n                ");
            println!("FAIL  {took:>8}  {}\n                {indented}", case.name);
            false
        }
    }
}

fn count(tally: &Mutex<Tally>, change: impl FnOnce(&mut Tally)) {
    if let Ok(mut tally) = tally.lock() {
        change(&mut tally);
    }
}

/// A case's namespace: the last part of its name, as far as Kubernetes takes it.
fn namespace(name: &str) -> String {
    let last = name.rsplit("::").next().unwrap_or(name).replace('_', "-");
    last.chars().take(50).collect::<String>().trim_end_matches('-').to_owned()
}
