//! CHECK's verb: what is missing or wrong, object by object. Pure: a list against two snapshots.

use std::fmt;
use std::ops::RangeInclusive;

use crate::datapath::changes::{is_of_hop, token_bucket};
use crate::datapath::interfaces;
use crate::datapath::observe::Snapshot;
use crate::desired::object::{Link, Neighbour, Object, Pair, Place, Redirect, Route, Shaper, Sysctl};
use crate::linux::addr::Address;
use crate::linux::link as kernel;
use crate::linux::link::Ifb;
use crate::linux::qdisc::Qdisc;
use crate::linux::route::Route as KernelRoute;
use crate::mac::MacAddr;

/// One object that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What must be there, in iproute2's words.
    pub wanted: String,
    /// What is there instead.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.wanted, self.found)
    }
}

/// The pod's namespace.
#[derive(Debug, Clone, Copy)]
pub enum Sandbox<'a> {
    /// What it has.
    Seen(&'a Snapshot),
    /// It is gone: every object in it is missing.
    Gone,
    /// This process may not enter it: nothing is said of the objects in it.
    Unseen,
}

/// All differences between what must be and what was found.
pub fn differences(objects: &[Object], node: &Snapshot, sandbox: Sandbox<'_>) -> Vec<Difference> {
    let mut differences = Vec::new();
    for object in objects {
        let found = match (object.place(), sandbox) {
            (Place::Node, _) => fault(object, node, sandbox),
            (Place::Sandbox, Sandbox::Seen(snapshot)) => fault(object, snapshot, sandbox),
            (Place::Sandbox, Sandbox::Gone) => Some("the pod's namespace is gone".into()),
            (Place::Sandbox, Sandbox::Unseen) => None,
        };
        differences.extend(found.map(|found| Difference { wanted: object.to_string(), found }));
    }
    differences
}

/// Those of the node's objects that are not as they must be, in their order; but for the pair, which is one with the pod.
pub fn faulty_on_node<'a>(objects: &'a [Object], node: &Snapshot) -> Vec<&'a Object> {
    let on_node = objects.iter().filter(|it| it.place() == Place::Node && !matches!(it, Object::Pair(_)));
    on_node.filter(|object| fault(object, node, Sandbox::Unseen).is_some()).collect()
}

/// What is wrong with `object` in the snapshot of its place; `None` if nothing is.
fn fault(object: &Object, here: &Snapshot, sandbox: Sandbox<'_>) -> Option<String> {
    match object {
        Object::Pair(pair) => pair_fault(pair, here, sandbox),
        Object::Sysctl(sysctl) => sysctl_fault(sysctl, here),
        Object::Link(link) => link_fault(link, here),
        Object::Address(_, it) => {
            let index = here.links.get(&it.device)?.index;
            let there = |found: &Address| (found.device, found.network) == (index, it.network);
            if !here.addresses.iter().any(there) {
                return Some("missing".into());
            }
            (object.place() == Place::Sandbox).then(|| interfaces::fault(it, index, here)).flatten()
        }
        Object::Neighbour(neighbour) => neighbour_fault(neighbour, here),
        Object::Route(place, route) => route_fault(*place, route, here),
        Object::Ifb(ifb) => ifb_fault(ifb, here),
        Object::Shaper(shaper) => shaper_fault(shaper, here),
        Object::Redirect(redirect) => redirect_fault(redirect, here),
    }
}

fn pair_fault(pair: &Pair, node: &Snapshot, sandbox: Sandbox<'_>) -> Option<String> {
    let Some(host) = node.links.get(&pair.host.name) else { return Some("the node's end is missing".into()) };
    let mut faults = Vec::new();
    // The pod's end may have less: tuning behind us sets it, and no result tells. More would be lost at the node's end.
    let (all_of_it, at_most) = (pair.mtu..=pair.mtu, 0..=pair.mtu);
    let mut compare = |end: &str, link: &kernel::Link, mac: MacAddr, mtu: RangeInclusive<u32>| {
        if link.mac != Some(mac) {
            faults.push(format!("the {end}'s end has address {}", show_mac(link.mac)));
        }
        if !mtu.contains(&link.mtu) {
            faults.push(format!("the {end}'s end has mtu {}", link.mtu));
        }
    };
    compare("node", host, pair.host.mac, all_of_it);
    match sandbox {
        Sandbox::Seen(snapshot) => match snapshot.links.get(&pair.pod.name) {
            Some(pod) => {
                compare("pod", pod, pair.pod.mac, at_most);
                if host.peer_index != Some(pod.index) {
                    faults.push(format!("{} is not the peer of {}", pair.pod.name, pair.host.name));
                }
            }
            None => faults.push("the pod's end is missing".into()),
        },
        Sandbox::Gone => faults.push("the pod's namespace is gone".into()),
        Sandbox::Unseen => {}
    }
    (!faults.is_empty()).then(|| faults.join(", "))
}

fn sysctl_fault(wanted: &Sysctl, here: &Snapshot) -> Option<String> {
    match here.sysctls.get(&wanted.path) {
        Some(value) if is_same(value, &wanted.value) => None,
        Some(value) => Some(format!("it is {value}")),
        None => Some("no such setting".into()),
    }
}

/// Whether the kernel shows as `found` what was written as `wanted`: word by word, as it puts tabs between them, and
/// numbers by their value, as it reads them like C (`proc_dointvec`, kernel/sysctl.c).
fn is_same(found: &str, wanted: &str) -> bool {
    let same_word = |(found, wanted): (&str, &str)| {
        found == wanted || c_integer(found).is_some_and(|number| Some(number) == c_integer(wanted))
    };
    let (found, wanted) = (found.split_whitespace(), wanted.split_whitespace());
    found.clone().count() == wanted.clone().count() && found.zip(wanted).all(same_word)
}

/// A number in C's notation: `0x1f` and `037` are 31.
fn c_integer(text: &str) -> Option<i128> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (digits, radix) = match digits.strip_prefix('0') {
        Some("") | None => (digits, 10),
        Some(rest) => rest.strip_prefix(['x', 'X']).map_or((rest, 8), |rest| (rest, 16)),
    };
    let is_number = digits.starts_with(|c: char| c.is_digit(radix));
    i128::from_str_radix(digits, radix).ok().filter(|_| is_number).and_then(|number| number.checked_mul(sign))
}

fn link_fault(wanted: &Link, here: &Snapshot) -> Option<String> {
    let Some(link) = here.links.get(&wanted.name) else { return Some("missing".into()) };
    if !link.up {
        return Some("it is down".into());
    }
    match (&wanted.alias, &link.alias) {
        (Some(wanted), Some(found)) if wanted != found => Some(format!("its alias is {found:?}")),
        (Some(_), None) => Some("it has no alias".into()),
        _ => None,
    }
}

fn neighbour_fault(wanted: &Neighbour, here: &Snapshot) -> Option<String> {
    let index = here.links.get(&wanted.link)?.index;
    let found = here.neighbours.iter().find(|it| it.index == index && it.address == wanted.address);
    match found {
        None => Some("missing".into()),
        Some(it) if it.mac != Some(wanted.mac) => Some(format!("it is at {}", show_mac(it.mac))),
        Some(it) if !it.is_permanent() => Some("it is not permanent".into()),
        Some(_) => None,
    }
}

fn route_fault(place: Place, wanted: &Route, here: &Snapshot) -> Option<String> {
    let index = match &wanted.device {
        Some(link) => Some(here.links.get(link)?.index),
        None => None,
    };
    let wanted = wanted.by_index(index);
    let is_there =
        |actual: &&KernelRoute| (actual.destination, actual.table) == (wanted.destination, wanted.table);
    let there: Vec<&KernelRoute> = here.routes.iter().filter(is_there).collect();
    if there.iter().any(|actual| fulfils(actual, &wanted)) {
        return None;
    }
    // As ADD lets it be: the pod had that route by another of its interfaces.
    let behind =
        index.filter(|_| place == Place::Sandbox).map(|index| interfaces::behind_others(&wanted, index));
    if behind.is_some_and(|behind| there.iter().any(|actual| fulfils(actual, &behind))) {
        return None;
    }
    // A plugin behind us may have moved it, as sbr moves all routes of the link to a table of its own, and makes one of its
    // own of the default route.
    let way = |route: &KernelRoute| (route.destination, route.kind, route.device, route.gateway);
    let is_moved = |actual: &KernelRoute| {
        wanted.table.is_none() && actual.table.is_some() && way(actual) == way(&wanted)
    };
    match there.iter().find(|actual| actual.device == wanted.device) {
        Some(_) => Some("there is another route".into()),
        None if place == Place::Sandbox && here.routes.iter().any(is_moved) => None,
        // Or got it, and ours was lost.
        None if place == Place::Sandbox && !there.is_empty() && !is_of_hop(&wanted) => None,
        None => Some("missing".into()),
    }
}

fn ifb_fault(wanted: &Ifb, here: &Snapshot) -> Option<String> {
    match here.links.get(&wanted.name) {
        None => Some("missing".into()),
        Some(link) if link.kind.as_deref() != Some("ifb") => Some("another link has that name".into()),
        Some(link) if link.mtu != wanted.mtu => Some(format!("it has mtu {}", link.mtu)),
        Some(_) => None,
    }
}

fn shaper_fault(wanted: &Shaper, here: &Snapshot) -> Option<String> {
    let index = here.links.get(&wanted.link)?.index;
    let mut found =
        here.qdiscs.iter().filter(|(link, _)| *link == index).filter_map(|(_, qdisc)| match qdisc {
            Qdisc::Tbf(tbf) => Some(tbf),
            Qdisc::Ingress => None,
        });
    match found.next() {
        None => Some("missing".into()),
        Some(tbf) if *tbf != token_bucket(wanted) => {
            Some(format!("it has rate {}bps limit {}", tbf.rate, tbf.limit))
        }
        Some(_) => None,
    }
}

fn redirect_fault(wanted: &Redirect, here: &Snapshot) -> Option<String> {
    let index = here.links.get(&wanted.from)?.index;
    let target = here.links.get(&wanted.to)?.index;
    let there = here.redirects.iter().any(|found| (found.from, found.to) == (index, target));
    (!there).then(|| "missing".into())
}

/// Whether an actual route does what the wanted one asks. Link and source address, where `wanted` leaves them
/// open, are the kernel's choice.
pub fn fulfils(actual: &KernelRoute, wanted: &KernelRoute) -> bool {
    let filled = KernelRoute {
        device: wanted.device.or(actual.device),
        source: wanted.source.or(actual.source),
        ..wanted.clone()
    };
    *actual == filled
}

fn show_mac(mac: Option<MacAddr>) -> String {
    mac.map_or_else(|| "none".into(), |mac| mac.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysctl_is_compared_by_what_the_kernel_understood() {
        for (found, wanted) in [
            ("500", "500"),
            ("32768\t60999", "32768 60999"),
            ("4096\t131072\t6291456", " 4096  131072 6291456 "),
            ("16", "0x10"),
            ("8", "010"),
            ("-1", "-01"),
            ("0", "00"),
            ("cubic", "cubic"),
        ] {
            assert!(is_same(found, wanted), "{found:?} {wanted:?}");
        }
        for (found, wanted) in [
            ("500", "501"),
            ("1\t2", "1"),
            ("1", "1 2"),
            ("cubic", "reno"),
            ("10", "010"),
            ("1", "0x"),
            ("1", "+1"),
            ("0", "--0"),
            ("", "0"),
        ] {
            assert!(!is_same(found, wanted), "{found:?} {wanted:?}");
        }
    }
}
