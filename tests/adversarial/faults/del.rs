//! DEL and GC, broken: what they say is gone is gone, and what they do not say so of goes the next time. The pod beside
//! it keeps all that it has.

use super::host::{Host, expect_an_answer};
use super::points;
use super::strace::{strike, watch};
use super::{HOSTS, break_each};
use kit::answer::Answer;
use kit::call::Call;

/// The command that removes the pod: its DEL, or a GC to which it is not valid.
type Removal = fn(&Host) -> Call;

fn break_removal(what: &str, hosts: &[Host], removal: Removal) {
    attach(&hosts[0]).unwrap();
    let (answer, steps) = watch(&removal(&hosts[0]), hosts[0].scratch());
    answer.success();
    hosts[0].expect_bare().unwrap();
    let mut points = points::errors(&steps);
    points.extend(points::kills(&steps));
    points.extend(points::lies(&steps));
    break_each(what, hosts, &points, |host, point| {
        attach(host)?;
        let Some(answer) = strike(&removal(host), &point.step, &point.fault, host.scratch()) else {
            return Ok(false);
        };
        let outcome = follow(host, &answer, removal);
        if outcome.is_err() {
            // Whatever it was: the next point must not suffer from it.
            host.call("DEL").run();
        }
        outcome.map(|()| true).map_err(|it| format!("{it}\n    {answer:?}"))
    });
}

fn attach(host: &Host) -> Result<(), String> {
    let added = host.call("ADD").run();
    if !added.status.success() {
        return Err(format!("the ADD before: {added:?}"));
    }
    host.send_to_host_port();
    Ok(())
}

/// What must be true after a broken removal, and of the one after it.
fn follow(host: &Host, answer: &Answer, removal: Removal) -> Result<(), String> {
    match answer.status.code() {
        Some(0) => return host.expect_bare(),
        Some(_) => {
            expect_an_answer(answer)?;
        }
        // It died, and with it the runtime, which has forgotten that it wanted to end the pod.
        None => host.expect_usable()?,
    }
    let again = removal(host).run();
    if !again.status.success() {
        return Err(format!("the next one: {again:?}"));
    }
    host.expect_bare().map_err(|it| format!("after the next one: {it}"))
}

fn hosts() -> Vec<Host> {
    (0..HOSTS).map(|_| Host::with_neighbour()).collect()
}

#[test]
fn every_system_call_of_a_del_can_fail() {
    break_removal("DEL", &hosts(), |host| host.call("DEL"));
}

#[test]
fn every_system_call_of_a_gc_can_fail() {
    break_removal("GC", &hosts(), Host::collect_garbage);
}

#[test]
fn every_system_call_of_an_ipam_del_can_fail() {
    let hosts = [Host::for_ipam()];
    break_removal("DEL of the IPAM role", &hosts, |host| host.call("DEL"));
    break_removal("GC of the IPAM role", &hosts, Host::collect_garbage);
}
