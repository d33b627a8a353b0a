//! What the kernel says over route netlink, or would if it lied: one datagram, as recv(2) has it.

use std::slice::from_ref;

use ferrule::cni::error::CniError;
use ferrule::cni::version::SpecVersion;
use ferrule::linux::change::Change;
use ferrule::linux::error::KernelError;
use ferrule::linux::fuzzing::{Told, message_of};
use ferrule::linux::monitor::Event;
use ferrule::linux::neigh::Reachability;
use ferrule::linux::qdisc::{Qdisc, Redirect, Tbf};
use ferrule::linux::route::AddMode;

use crate::promises;

/// Reads a datagram.
pub fn check(data: &[u8]) {
    let told = Told::by(data);
    told.refusals.iter().for_each(refused);
    told.events.windows(2).for_each(|two| assert_ne!(two[0], two[1], "equal events that follow each other"));
    let is_named = |event: &&Event| matches!(event, Event::Link { name, .. } if name.is_empty());
    assert!(told.events.iter().find(is_named).is_none());
    asked_for_again(&told);
}

fn refused(refusal: &KernelError) {
    assert!(refusal.errno > 0, "{refusal:?}");
    promises::refusal(&CniError::from(refusal.clone()), SpecVersion::NEWEST);
}

/// What was read can be asked for, and then reads the same: nothing of it is lost or made up.
fn asked_for_again(told: &Told) {
    for route in &told.routes {
        assert_eq!(route.clone().canonical(), *route);
        let add = Change::AddRoute { route: route.clone(), mode: AddMode::Exclusive };
        assert_eq!(again(&add).routes, from_ref(route));
    }
    for address in &told.addresses {
        // Only IPv6 looks for duplicates.
        let mut wanted = address.clone();
        wanted.no_dad &= address.network.is_ipv6();
        assert_eq!(again(&Change::AddAddress(address.clone())).addresses, [wanted]);
    }
    for neighbour in &told.neighbours {
        let Some(mac) = neighbour.mac else { continue };
        let add = Change::AddNeighbour { index: neighbour.index, address: neighbour.address, mac };
        let mut wanted = neighbour.clone();
        wanted.reachability = Reachability::Permanent;
        assert_eq!(again(&add).neighbours, [wanted]);
    }
    for entry in &told.forwarding_entries {
        assert_eq!(again(&Change::SetForwardingEntry(*entry)).forwarding_entries, [*entry]);
    }
    for rule in &told.rules {
        assert_eq!(again(&Change::AddRule(*rule)).rules, [*rule]);
    }
    for qdisc in &told.qdiscs {
        // How large the bucket is, is asked for and not told.
        let wanted = match qdisc {
            Qdisc::Tbf(tbf) => Qdisc::Tbf(Tbf { burst: Some(1), ..tbf.clone() }),
            Qdisc::Ingress => Qdisc::Ingress,
        };
        assert_eq!(again(&Change::AddQdisc { index: 7, qdisc: wanted }).qdiscs, from_ref(qdisc));
    }
    for (from, to) in &told.redirects {
        let Some(from) = *from else { continue };
        let add = Change::AddRedirect(Redirect { from, to: *to });
        assert_eq!(again(&add).redirects, [(Some(from), *to)]);
    }
}

fn again(change: &Change) -> Told {
    promises::one_line(&change.to_string());
    Told::by(&message_of(change))
}
