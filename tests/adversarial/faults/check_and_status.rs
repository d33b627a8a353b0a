//! CHECK and STATUS, broken: they answer, or say why not, and change nothing.

use serde_json::Value;

use super::break_each;
use super::host::{Host, expect_an_answer};
use super::points;
use super::strace::{strike, watch};
use kit::call::Call;

/// A command that looks at a pod with this result.
type Look = fn(&Host, &Value) -> Call;

fn break_look(what: &str, hosts: &[Host], look: Look) {
    let results: Vec<Value> = hosts.iter().map(|host| host.call("ADD").run().result()).collect();
    let result_of = |host: &Host| {
        let place = hosts.iter().position(|it| std::ptr::eq(it, host));
        &results[place.expect("one of ours")]
    };
    // The shortest of some: a list that had to be read twice would be struck at where later runs never come.
    let watched = (0..3).map(|_| {
        let (answer, steps) = watch(&look(&hosts[0], &results[0]), hosts[0].scratch());
        answer.success();
        steps
    });
    let steps = watched.min_by_key(Vec::len).expect("three of them");
    let mut points = points::errors(&steps);
    points.extend(points::kills(&steps));
    points.extend(points::lies(&steps));
    break_each(what, hosts, &points, |host, point| {
        let look = look(host, result_of(host));
        let Some(answer) = strike(&look, &point.step, &point.fault, host.scratch()) else { return Ok(false) };
        if answer.status.code().is_some() {
            expect_an_answer(&answer)?;
        }
        host.expect_whole(result_of(host)).map_err(|it| format!("{it}\n    {answer:?}"))?;
        Ok(true)
    });
    for host in hosts {
        look(host, result_of(host)).run().success();
        host.call("DEL").run().success();
    }
}

#[test]
fn every_system_call_of_a_check_can_fail() {
    let check: Look = |host, result| host.call_with("CHECK", "prevResult", result.clone());
    break_look("CHECK", &[Host::new(), Host::new()], check);
    break_look("CHECK of the IPAM role", &[Host::for_ipam()], check);
}

#[test]
fn every_system_call_of_a_status_can_fail() {
    let status: Look = |host, _| host.call("STATUS");
    break_look("STATUS", &[Host::new(), Host::new()], status);
    break_look("STATUS of the IPAM role", &[Host::for_ipam()], status);
}
