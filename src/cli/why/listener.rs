//! Whether somebody listens at the destination.

use std::net::IpAddr;

use crate::cli::policy::protocol_word;
use crate::cli::why::ends::Ends;
use crate::cli::why::look::Look;
use crate::cli::why::pod::namespace;
use crate::connectivity::half::{Kind, Step};
use crate::linux::listeners::listeners;
use crate::store::Record;

/// In a pod.
pub fn in_pod(look: &Look<'_>, record: &Record, ends: &Ends<'_>) -> Option<Step> {
    let flow = &ends.flow;
    if flow.port == 0 {
        return None;
    }
    let what = format!("{} {}", protocol_word(flow.protocol), flow.port);
    if !look.can_enter {
        let sentence = format!("whether somebody listens at {what} in the pod (that needs CAP_SYS_ADMIN)");
        return Some(Step::unknown(Kind::Listener, sentence));
    }
    let found = namespace(record).and_then(|netns| {
        let found = netns.run(|| listeners(flow.protocol, flow.port)).map_err(|error| error.to_string())?;
        found.map_err(|error| error.to_string())
    });
    Some(judge(found, flow.destination, &what, "the pod"))
}

/// On the node.
pub fn on_node(look: &Look<'_>, ends: &Ends<'_>) -> Option<Step> {
    let flow = &ends.flow;
    if flow.port == 0 {
        return None;
    }
    let what = format!("{} {}", protocol_word(flow.protocol), flow.port);
    let found = listeners(flow.protocol, flow.port).map_err(|error| error.to_string());
    Some(judge(found, flow.destination, &what, &ends.destination.node_name(look)))
}

fn judge(found: Result<Option<Vec<IpAddr>>, String>, address: IpAddr, what: &str, whose: &str) -> Step {
    let found = match found {
        Ok(Some(found)) => found,
        Ok(None) => {
            return Step::unknown(Kind::Listener, format!("whether somebody listens at {what} in {whose}"));
        }
        Err(error) => {
            let sentence = format!("whether somebody listens at {what} in {whose}: {error}");
            return Step::unknown(Kind::Listener, sentence);
        }
    };
    // A socket of IPv6 takes IPv4 as well, unless it says that it does not, which nobody tells.
    let takes = |it: &&IpAddr| **it == address || it.is_unspecified() && (it.is_ipv6() || address.is_ipv4());
    if let Some(it) = found.iter().find(takes) {
        return Step::ok(Kind::Listener, format!("somebody in {whose} listens at {what} on {it}"));
    }
    if found.is_empty() {
        let sentence = format!("nobody in {whose} listens at {what}");
        let remedy = "start the program, or ask for the port at which it listens";
        return Step::broken(Kind::Listener, sentence, remedy);
    }
    let others: Vec<String> = found.iter().map(ToString::to_string).collect();
    let sentence =
        format!("what listens in {whose} at {what} does so on {} only, not on {address}", others.join(", "));
    let remedy = "have the program listen on all addresses (0.0.0.0, or [::])";
    Step::broken(Kind::Listener, sentence, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectivity::half::State;

    #[test]
    fn who_listens_elsewhere_does_not_listen_here() {
        let ask = |found: &[&str], address: &str| {
            let found = found.iter().map(|it| it.parse().unwrap()).collect();
            judge(Ok(Some(found)), address.parse().unwrap(), "TCP 80", "the pod")
        };
        for (found, address, state) in [
            (&["0.0.0.0"][..], "10.0.0.1", State::Ok),
            (&["::"], "10.0.0.1", State::Ok),
            (&["::"], "fd00::1", State::Ok),
            (&["127.0.0.1", "10.0.0.1"], "10.0.0.1", State::Ok),
            (&["0.0.0.0"], "fd00::1", State::Broken),
            (&["127.0.0.1"], "10.0.0.1", State::Broken),
            (&[], "10.0.0.1", State::Broken),
        ] {
            assert_eq!(ask(found, address).state, state, "{found:?} {address}");
        }
        assert!(ask(&["127.0.0.1"], "10.0.0.1").sentence.contains("on 127.0.0.1 only, not on 10.0.0.1"));
        assert_eq!(judge(Ok(None), "10.0.0.1".parse().unwrap(), "SCTP 1", "the pod").state, State::Unknown);
    }
}
