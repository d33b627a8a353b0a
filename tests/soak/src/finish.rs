//! The end of a run: half of the pods die untold, the range is filled to its last address, and everything is taken down.

use crate::Failure;
use crate::call::{Call, Outcome, Verb, attachment};
use crate::check::Checker;
use crate::node::ROOM;
use crate::runtime::Pod;
use crate::soak::Soak;
use crate::system::remove_namespace;
use kit::at_once;
use serde_json::{Value, json};

/// The code of a range without a free address.
const EXHAUSTED: u64 = 100;

/// At once.
const WIDTH: usize = 8;

/// Every address of the range can be had, and in the end all are free.
///
/// # Errors
/// Where that is not so.
pub fn finish(soak: &Soak, checker: &mut Checker) -> Result<(), Failure> {
    checker.look(soak)?;
    let mut pods = soak.runtime.pods();
    for pod in pods.iter_mut().step_by(2).filter(|pod| pod.has_namespace) {
        remove_namespace(&pod.netns)?;
        pod.has_namespace = false;
    }
    let living = pods.iter().filter(|pod| pod.has_namespace).count();
    // What ADD finds dead it may only take once the kernel has removed the pair.
    let newcomers: Vec<Pod> = (living..ROOM).map(|_| newcomer(soak)).collect::<Result<_, _>>()?;
    for_each(&newcomers, |pod| expect_success(soak, Verb::Add, pod))?;
    let one_too_many = newcomer(soak)?;
    match run(soak, Verb::Add, &one_too_many)? {
        Outcome::Error(EXHAUSTED, _) => {}
        other => return Err(format!("ADD where {ROOM} pods have all addresses: {other}").into()),
    }
    pods.extend(newcomers);
    pods.push(one_too_many);
    for_each(&pods, |pod| {
        expect_success(soak, Verb::Del, pod)?;
        soak.runtime.forget(&pod.id);
        if pod.has_namespace { remove_namespace(&pod.netns) } else { Ok(()) }
    })?;
    checker.expect_nothing(soak)
}

fn newcomer(soak: &Soak) -> Result<Pod, Failure> {
    let netns = soak.namespaces.take()?;
    let id = soak.runtime.begin();
    Ok(Pod { id, netns, has_namespace: true, wishes: json!({}), result: Value::Null })
}

fn run(soak: &Soak, verb: Verb, pod: &Pod) -> Result<Outcome, Failure> {
    let (conf, attachment) = (soak.node.conf_for(pod), attachment(&pod.id, &pod.netns));
    Ok(soak.run(&Call { verb, attachment, conf, blow: None, is_weighed: false })?.outcome)
}

fn expect_success(soak: &Soak, verb: Verb, pod: &Pod) -> Result<(), Failure> {
    match run(soak, verb, pod)? {
        Outcome::Success(_) => Ok(()),
        other => Err(format!("{} of {}: {other}", verb.name(), pod.id).into()),
    }
}

/// The first failure, when all have ended.
fn for_each(pods: &[Pod], work: impl Fn(&Pod) -> Result<(), Failure> + Sync) -> Result<(), Failure> {
    at_once(pods.len(), WIDTH, |n| work(&pods[n])).into_iter().collect()
}
