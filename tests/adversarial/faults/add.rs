//! ADD, broken: it makes everything, or nothing, and stands in nobody's way.

use serde_json::Value;

use super::host::{Host, expect_an_answer};
use super::points::{self, Point};
use super::strace::{Fault, strike, watch};
use super::{HOSTS, break_each};
use kit::answer::Answer;

/// The first ADD on a node, which makes the store, the table and the node's routes as well.
fn break_the_first_add(what: &str, hosts: &[Host]) {
    hosts[0].make_new();
    let (answer, steps) = watch(&hosts[0].call("ADD"), hosts[0].scratch());
    answer.success();
    hosts[0].call("DEL").run().success();
    let mut points = points::errors(&steps);
    points.extend(points::kills(&steps));
    points.extend(points::lies(&steps));
    break_each(what, hosts, &points, |host, point| {
        host.make_new();
        let Some(answer) = strike(&host.call("ADD"), &point.step, &point.fault, host.scratch()) else {
            host.call("DEL").run().success();
            return Ok(false);
        };
        let outcome = follow(host, &answer).and_then(|()| match point.fault {
            Fault::Killed => expect_del_to_clear(host, point),
            _ => Ok(()),
        });
        if outcome.is_err() {
            // Whatever it was: the next point must not suffer from it.
            host.call("DEL").run();
        }
        outcome.map(|()| true).map_err(|it| format!("{it}\n    {answer:?}"))
    });
}

/// What must be true after a broken ADD, and of the ADD and the DEL after it.
fn follow(host: &Host, answer: &Answer) -> Result<(), String> {
    match answer.status.code() {
        Some(0) => {
            let result = expect_an_answer(answer)?.ok_or("a success without a result")?;
            host.expect_whole(&result).or_else(|complaint| excuse(answer, complaint))?;
        }
        Some(_) => {
            expect_an_answer(answer)?;
            host.expect_bare()?;
            expect_another_add(host)?;
        }
        // It died, after its answer or before it.
        None if !answer.stdout.is_empty() => {
            expect_result(answer)?;
            host.expect_usable()?;
        }
        None => {
            if host.is_ipam() {
                // Whether the main plugin has its address is not to be seen. Only a DEL tells that it has not.
                host.call("DEL").run().success();
            }
            expect_another_add(host)?;
        }
    }
    let del = host.call("DEL").run();
    if !del.status.success() {
        return Err(format!("DEL: {del:?}"));
    }
    host.expect_bare().map_err(|it| format!("after DEL: {it}"))
}

/// What a runtime does whose ADD was killed: no other ADD, but a DEL.
fn expect_del_to_clear(host: &Host, point: &Point) -> Result<(), String> {
    host.make_new();
    strike(&host.call("ADD"), &point.step, &point.fault, host.scratch());
    let del = host.call("DEL").run();
    if !del.status.success() {
        return Err(format!("DEL straight after the kill: {del:?}"));
    }
    host.expect_bare().map_err(|it| format!("after DEL straight after the kill: {it}"))
}

fn expect_another_add(host: &Host) -> Result<(), String> {
    let again = host.call("ADD").run();
    if !again.status.success() {
        return Err(format!("the next ADD: {again:?}"));
    }
    host.expect_whole(&again.result()).map_err(|it| format!("the next ADD: {it}"))
}

/// The pod is there, and that is what counts; the log says that the ways to other nodes are not.
fn excuse(answer: &Answer, complaint: String) -> Result<(), String> {
    let is_told = ["routes to peers", "no route to peer"].iter().any(|words| answer.stderr.contains(words));
    let is_peers = |line: &str| line.contains("10.88.16.0/20") || line.contains("fd00:88:1::/64");
    let mut lines = complaint.lines().filter(|line| line.trim_start().starts_with('"'));
    if is_told && lines.all(is_peers) { Ok(()) } else { Err(complaint) }
}

/// That what stands on stdout is one whole result.
fn expect_result(answer: &Answer) -> Result<(), String> {
    let result: Value = serde_json::from_slice(&answer.stdout).map_err(|it| format!("stdout: {it}"))?;
    if result["ips"].is_array() { Ok(()) } else { Err("no result on stdout".to_owned()) }
}

#[test]
fn every_system_call_of_the_first_add_can_fail() {
    let hosts: Vec<Host> = (0..HOSTS).map(|_| Host::new()).collect();
    break_the_first_add("the first ADD", &hosts);
}

#[test]
fn every_system_call_of_an_ipam_add_can_fail() {
    break_the_first_add("ADD of the IPAM role", &[Host::for_ipam(), Host::for_ipam()]);
}
