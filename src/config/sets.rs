//! Reads the range sets of a conf: host-local's `ranges`, its older short form, and the `ipRanges`
//! capability, in the order in which host-local takes them.

use super::range::{Range, RangeSet, parse_subnet};
use crate::cni::json::{Node, Noted};
use crate::cni::route::parse_address;
use crate::cni::version::SpecVersion;

/// A set, and where it was written.
struct Placed {
    path: String,
    set: RangeSet,
}

/// The range sets of a conf whose ipam is ours. Sets that are none are problems and left out.
pub(super) fn read_sets(root: &Node<'_, '_>, version: SpecVersion, may_be_empty: bool) -> Vec<RangeSet> {
    let Some(ipam) = root.object("ipam") else { return Vec::new() };
    let runtime = root.object("runtimeConfig");
    let ip_ranges = runtime.as_ref().and_then(|runtime| runtime.list("ipRanges"));
    let ranges = ipam.list("ranges");
    let has_short_form = ipam.member("subnet").is_some();

    let lists = [&ip_ranges, &ranges];
    let is_empty =
        !has_short_form && lists.iter().all(|list| list.is_none_or(|list| list.items().next().is_none()));
    // What is no list has been noted as such already.
    let is_readable = ipam.member("ranges").is_none() || ranges.is_some();
    if is_empty && is_readable && !may_be_empty {
        let example = r#"[[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]]"#;
        ipam.refuse_member("ranges", format!("has no range set; give one for each family: {example}"));
    }

    let mut placed = Vec::new();
    placed.extend(ip_ranges.iter().flat_map(read_list));
    if has_short_form && let Ok(range) = read_range(&ipam) {
        placed.extend(
            place(&ipam, vec![range]).map(|short| Placed { path: "ipam.subnet".to_owned(), ..short }),
        );
    }
    placed.extend(ranges.iter().flat_map(read_list));

    refuse_overlaps(root, &placed);
    if version < SpecVersion::V0_3_0 {
        refuse_more_than_one_of_a_family(&ipam, version, &placed);
    }
    placed.into_iter().map(|placed| placed.set).collect()
}

fn read_list(list: &Node<'_, '_>) -> Vec<Placed> {
    list.items().filter_map(|item| read_set(&item)).collect()
}

fn read_set(node: &Node<'_, '_>) -> Option<Placed> {
    if node.value().is_object() {
        node.refuse(
            r#"is one range where a range set is needed; put it into a list of its own: [{"subnet": ...}]"#,
        );
        return None;
    }
    if !node.is_list() {
        return None;
    }
    let ranges: Vec<Result<Range, Noted>> = node.items().map(|item| read_range(&item)).collect();
    // A set that lacks one of its ranges is judged when that range is corrected.
    let ranges: Result<Vec<Range>, Noted> = ranges.into_iter().collect();
    place(node, ranges.ok()?)
}

fn place(node: &Node<'_, '_>, ranges: Vec<Range>) -> Option<Placed> {
    match RangeSet::new(ranges) {
        Ok(set) => Some(Placed { path: node.path(), set }),
        Err(error) => {
            node.refuse(error.to_string());
            None
        }
    }
}

fn read_range(node: &Node<'_, '_>) -> Result<Range, Noted> {
    if !node.is_object() {
        return Err(Noted);
    }
    let subnet = node.try_parsed("subnet", parse_subnet);
    let start = node.try_parsed("rangeStart", parse_address);
    let end = node.try_parsed("rangeEnd", parse_address);
    let gateway = node.try_parsed("gateway", parse_address);
    let Some(subnet) = subnet? else {
        node.refuse_member("subnet", "is missing; write it like 10.244.1.0/24 or fd00:10:244:1::/64");
        return Err(Noted);
    };
    Range::new(subnet, start?, end?, gateway?).and_then(Range::of_hosts).map_err(|error| {
        node.refuse_member(error.field(), error.to_string());
        Noted
    })
}

/// An address that two sets hold would be handed out by both.
fn refuse_overlaps(root: &Node<'_, '_>, placed: &[Placed]) {
    for (at, later) in placed.iter().enumerate() {
        let earlier = placed.iter().take(at).find(|earlier| {
            let ranges = earlier.set.ranges();
            later.set.ranges().iter().any(|range| ranges.iter().any(|other| range.overlaps(other)))
        });
        if let Some(earlier) = earlier {
            let text = format!("overlaps {}; an address can be of one range set only", earlier.path);
            root.refuse_at(&later.path, text);
        }
    }
}

/// Results before 0.3.0 hold one address of each family: a second would be taken and never told.
fn refuse_more_than_one_of_a_family(ipam: &Node<'_, '_>, version: SpecVersion, placed: &[Placed]) {
    for (family, is_ipv4) in [("IPv4", true), ("IPv6", false)] {
        let count = placed.iter().filter(|placed| placed.set.is_ipv4() == is_ipv4).count();
        if count > 1 {
            let text = format!(
                "has {count} range sets of {family}, and cniVersion {version} tells one address of each \
                 family; use 0.3.0 or later"
            );
            ipam.refuse_member("ranges", text);
        }
    }
}
