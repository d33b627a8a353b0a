//! Defects that system-call faults have found: for each the one fault that showed it.

use super::host::Host;
use super::points::lies_about;
use super::strace::{Fault, Step, strike, watch};
use kit::answer::Answer;

/// A host on which ferrule never was, and what the first ADD does there.
fn new_host() -> (Host, Vec<Step>) {
    let host = Host::new();
    let (answer, steps) = watch(&host.call("ADD"), host.scratch());
    answer.success();
    host.call("DEL").run().success();
    (host, steps)
}

/// The last call that reads like all `parts`.
fn last<'a>(steps: &'a [Step], parts: &[&str]) -> &'a Step {
    let fits = |step: &&Step| step.place.is_some() && parts.iter().all(|part| step.text.contains(part));
    steps.iter().rev().find(fits).unwrap_or_else(|| panic!("no call reads like {parts:?}"))
}

/// That ADD, with `fault` at one of its calls.
fn broken_add(host: &Host, step: &Step, fault: &Fault) -> Answer {
    host.make_new();
    strike(&host.call("ADD"), step, fault, host.scratch()).expect("the same call again")
}

/// The lie of that name about an answer of the kernel's.
fn lie(step: &Step, name: &str) -> Fault {
    let fits = |fault: &Fault| fault.to_string() == name;
    lies_about(step).into_iter().find(fits).unwrap_or_else(|| panic!("no {name} of {step}"))
}

/// It gave an address of IPv4 alone, and said that all was well.
#[test]
fn a_look_that_fails_does_not_make_a_node_one_without_ipv6() {
    let (host, steps) = new_host();
    let looks =
        steps.iter().filter(|step| step.call == "statx" && step.text.contains("/proc/sys/net/ipv6/conf\""));
    for look in looks {
        let answer = broken_add(&host, look, &Fault::Error("EIO"));
        host.expect_whole(&answer.result()).unwrap();
        host.call("DEL").run().success();
    }
}

/// The undo went over the socket that had failed, and the pod kept its links until a DEL came.
#[test]
fn undo_does_not_use_the_socket_that_failed() {
    let (host, steps) = new_host();
    let look_at_both_ends = last(&steps, &["recvfrom(", "RTM_NEWLINK"]);
    broken_add(&host, look_at_both_ends, &Fault::Error("EIO")).failure(103);
    host.expect_bare().unwrap();
}

/// Without its alias, a second ADD would have begun again.
#[test]
fn a_pod_is_marked_complete_over_a_second_socket() {
    let (host, steps) = new_host();
    let alias = last(&steps, &["sendto(", "RTM_SETLINK"]);
    let answer = broken_add(&host, alias, &Fault::Error("ENOBUFS"));
    host.expect_whole(&answer.result()).unwrap();
    host.call("ADD").run().failure(101);
}

/// It waited for them: ADD for 30 seconds, every other command for ever.
#[test]
fn nobody_waits_for_an_answer_that_is_lost() {
    let (host, steps) = new_host();
    let made_the_pair =
        steps.iter().position(|step| step.text.contains("RTM_NEWLINK") && step.call == "sendto");
    let routes = last(&steps[made_the_pair.unwrap()..], &["recvfrom(", "NLMSG_ERROR"]);
    let elements = last(&steps, &["recvfrom(", "NFNL_SUBSYS_NFTABLES", "NLMSG_ERROR"]);
    for answer in [routes, elements] {
        for name in ["a wrong sequence number", "a message that is cut short"] {
            broken_add(&host, answer, &lie(answer, name));
        }
    }
}

/// An ADD that failed between the two left a table of which every later ADD took it for granted that it was
/// remembered: after a flush, pods would have been masqueraded everywhere.
#[test]
fn exemptions_are_stored_before_the_table_has_them() {
    let (host, steps) = new_host();
    let remember = last(&steps, &["renameat(", "\"no_masquerade\""]);
    broken_add(&host, remember, &Fault::Error("EIO")).failure(5);
    // Nor is the file left that was to replace the other.
    host.expect_bare().unwrap();
    let result = host.call("ADD").run().result();
    host.expect_whole(&result).unwrap();
}

/// DEL took it for a record that says nothing, and left the flows of its hostPorts; GC as well, and took from the pods
/// beside it what they had in the table.
#[test]
fn a_record_that_cannot_be_read_is_not_ignored() {
    let host = Host::with_neighbour();
    for command in ["DEL", "GC"] {
        let call = || if command == "GC" { host.collect_garbage() } else { host.call(command) };
        let attach = || {
            host.call("ADD").run().success();
            host.send_to_host_port();
        };
        attach();
        let (answer, steps) = watch(&call(), host.scratch());
        answer.success();
        let is_read =
            |step: &&Step| step.call == "read" && step.text.contains("/by-id/") && step.place.is_some();
        let reads: Vec<&Step> = steps.iter().filter(is_read).collect();
        assert!(reads.len() > 1, "{steps:#?}");
        for read in reads {
            attach();
            let answer =
                strike(&call(), read, &Fault::Error("EIO"), host.scratch()).expect("the same call again");
            if !answer.status.success() {
                answer.failure(5);
                call().run().success();
            }
            host.expect_bare().unwrap_or_else(|it| panic!("{command} without {read}: {it}"));
        }
    }
}

/// What was wrong with this node's socket was put down to its peers, whom the next ADDs then left alone.
#[test]
fn a_socket_that_fails_is_no_peers_failure() {
    let (host, steps) = new_host();
    let routes = last(&steps, &["sendto(", "RTM_NEWROUTE", "NLM_F_REPLACE"]);
    let answer = broken_add(&host, routes, &Fault::Error("ENOBUFS"));
    host.expect_whole(&answer.result()).unwrap();
}

/// It spares the next command some work, and is no reason to fail.
#[test]
fn a_boot_file_that_cannot_be_renamed_is_removed() {
    let (host, steps) = new_host();
    let boot = last(&steps, &["renameat(", "\"boot\""]);
    let answer = broken_add(&host, boot, &Fault::Error("ENOSPC"));
    host.expect_whole(&answer.result()).unwrap();
}
