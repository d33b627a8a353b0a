use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn range(subnet: &str, start: &str, end: &str, gateway: &str) -> Result<Range, InvalidRange> {
    let optional = |text: &str| (!text.is_empty()).then(|| ip(text));
    Range::new(parse_subnet(subnet)?, optional(start), optional(end), optional(gateway))
}

fn set(subnets: &[&str]) -> RangeSet {
    RangeSet::new(subnets.iter().map(|subnet| range(subnet, "", "", "").unwrap()).collect()).unwrap()
}

#[test]
fn without_bounds_a_range_is_the_hosts_of_its_subnet() {
    for (subnet, first, last, gateway) in [
        ("10.1.2.0/24", "10.1.2.1", "10.1.2.254", Some("10.1.2.1")),
        ("10.1.2.0/30", "10.1.2.1", "10.1.2.2", Some("10.1.2.1")),
        ("10.1.2.4/31", "10.1.2.4", "10.1.2.5", None),
        ("10.1.2.7/32", "10.1.2.7", "10.1.2.7", None),
        ("0.0.0.0/0", "0.0.0.1", "255.255.255.254", Some("0.0.0.1")),
        ("fd00:1::/64", "fd00:1::1", "fd00:1::ffff:ffff:ffff:ffff", Some("fd00:1::1")),
        ("fd00:1::/126", "fd00:1::1", "fd00:1::3", Some("fd00:1::1")),
        ("fd00:1::/127", "fd00:1::", "fd00:1::1", None),
        ("fd00:1::5/128", "fd00:1::5", "fd00:1::5", None),
        ("::/0", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("::1")),
    ] {
        let range = range(subnet, "", "", "").unwrap();
        assert_eq!((range.first(), range.last()), (ip(first), ip(last)), "{subnet}");
        assert_eq!(range.gateway(), gateway.map(ip), "{subnet}");
        assert_eq!(range.names_gateway(), None, "{subnet}");
        assert_eq!(range.to_string(), subnet);
    }
}

#[test]
fn a_set_without_networks_hands_out_all_the_rest_and_goes_on_in_turn() {
    let networks =
        |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNetwork>>();
    let whole = set(&["10.1.2.0/28"]);
    let rest = whole.without(&networks(&["10.1.2.4/30", "10.1.2.5/32", "10.1.2.0/31", "fd00::/64"])).unwrap();
    let shown = |last: Option<&str>| {
        let hosts = rest.addresses_after(last.map(ip)).map(|it| it.to_string());
        hosts.map(|it| it.rsplit('.').next().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(rest.to_string(), "10.1.2.2-10.1.2.3 of 10.1.2.0/28, 10.1.2.8-10.1.2.14 of 10.1.2.0/28");
    assert_eq!(shown(None), "2 3 8 9 10 11 12 13 14");
    assert_eq!(shown(Some("10.1.2.5")), "8 9 10 11 12 13 14 2 3", "behind one that it lacks");
    assert_eq!(rest.capacity(), 9);
    assert!(!rest.hands_out(ip("10.1.2.5")) && rest.hands_out(ip("10.1.2.8")));
    assert_eq!(whole.without(&[]), Some(whole.clone()));
    assert_eq!(whole.without(&networks(&["10.0.0.0/8"])), None);
    assert_eq!(set(&["fd00::/126"]).without(&networks(&["fd00::2/127"])), None, "the gateway alone is left");
    let end = set(&["255.255.255.0/24"]).without(&networks(&["255.255.255.128/25"])).unwrap();
    assert_eq!(end.to_string(), "255.255.255.1-255.255.255.127 of 255.255.255.0/24");
}

#[test]
fn each_mistake_names_its_field_and_what_would_be_right() {
    for (subnet, start, end, gateway, field, words) in [
        ("10.1.2.0", "", "", "", "subnet", "prefix length is missing"),
        ("10.1.2.0/33", "", "", "", "subnet", "not a subnet"),
        ("10.1.2/24", "", "", "", "subnet", "10.244.1.0/24"),
        ("pods/24", "", "", "", "subnet", "\"pods/24\" is not a subnet"),
        ("10.1.2.3/24", "", "", "", "subnet", "this prefix length is 10.1.2.0/24"),
        ("fd00:1::1/64", "", "", "", "subnet", "this prefix length is fd00:1::/64"),
        ("10.1.2.0/24", "10.1.3.1", "", "", "rangeStart", "outside the subnet 10.1.2.0/24"),
        ("10.1.2.0/24", "fd00::1", "", "", "rangeStart", "not of the family"),
        ("10.1.2.0/24", "", "10.1.1.255", "", "rangeEnd", "outside the subnet"),
        ("10.1.2.0/24", "10.1.2.20", "10.1.2.10", "", "rangeEnd", "before rangeStart 10.1.2.20"),
        ("10.1.2.0/24", "", "", "fd00::1", "gateway", "not of the family"),
        ("10.1.2.0/24", "", "", "10.1.2.0", "gateway", "the network address"),
        ("10.1.2.0/24", "", "", "10.1.2.255", "gateway", "the broadcast address"),
        ("10.1.2.0/24", "", "", "0.0.0.0", "gateway", "the unspecified address"),
        ("10.1.2.0/24", "", "", "224.0.0.1", "gateway", "a multicast address"),
        ("10.1.2.7/32", "", "", "10.1.2.7", "subnet", "no address of 10.1.2.7/32"),
        ("10.1.2.0/24", "10.1.2.1", "10.1.2.1", "", "subnet", "no address"),
        ("10.1.2.0/24", "10.1.2.255", "", "", "subnet", "no address"),
    ] {
        let error = range(subnet, start, end, gateway).unwrap_err();
        assert_eq!(error.field(), field, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_gateway_may_lie_outside_the_bounds_and_outside_the_subnet() {
    let narrow = range("10.1.2.0/24", "10.1.2.10", "10.1.2.20", "10.1.2.1").unwrap();
    assert_eq!(narrow.names_gateway(), Some(ip("10.1.2.1")));
    assert_eq!(narrow.to_string(), "10.1.2.10-10.1.2.20 of 10.1.2.0/24");
    assert!(range("10.1.2.0/24", "", "", "169.254.1.1").is_ok());
    assert!(range("fd00:1::/64", "", "", "fe80::1").is_ok());
    // RFC 3021: both ends of a /31 are hosts, so one of them may well be the router.
    assert!(range("10.1.2.4/31", "", "", "10.1.2.4").is_ok());
}

#[test]
fn a_set_is_of_one_family_and_has_no_address_twice() {
    let ranges = |list: &[(&str, &str, &str)]| {
        RangeSet::new(
            list.iter().map(|(subnet, start, end)| range(subnet, start, end, "").unwrap()).collect(),
        )
    };
    assert_eq!(ranges(&[]), Err(InvalidRangeSet::Empty));
    let mixed = ranges(&[("10.1.2.0/24", "", ""), ("fd00:1::/64", "", "")]);
    assert!(matches!(mixed, Err(InvalidRangeSet::MixedFamilies { index: 1, .. })), "{mixed:?}");
    let nested = ranges(&[("10.1.2.0/24", "", ""), ("10.2.0.0/16", "", ""), ("10.1.0.0/16", "", "")]);
    assert!(matches!(nested, Err(InvalidRangeSet::Overlap { index: 2, .. })), "{nested:?}");
    let parts = [("10.1.2.0/24", "10.1.2.10", "10.1.2.20"), ("10.1.2.0/24", "10.1.2.21", "10.1.2.30")];
    let parts = ranges(&parts).unwrap();
    assert_eq!((parts.capacity(), parts.is_ipv4()), (21, true));
    assert_eq!(parts.to_string(), "10.1.2.10-10.1.2.20 of 10.1.2.0/24, 10.1.2.21-10.1.2.30 of 10.1.2.0/24");
    assert!(parts.overlaps(&set(&["10.1.0.0/16"])));
    assert!(!parts.overlaps(&set(&["10.2.0.0/16"])));
}

#[test]
fn a_gateway_of_one_range_is_handed_out_by_no_other() {
    let first = range("10.1.2.0/24", "10.1.2.10", "10.1.2.20", "10.1.2.35").unwrap();
    let second = range("10.1.2.0/24", "10.1.2.30", "10.1.2.40", "").unwrap();
    let set = RangeSet::new(vec![first, second]).unwrap();
    assert!(!set.hands_out(ip("10.1.2.35")));
    assert_eq!(set.capacity(), 11 + 10);
    assert!(set.addresses_after(None).all(|address| address != ip("10.1.2.35")));
}

#[test]
fn an_address_that_is_not_handed_out_has_a_reason() {
    let set = set(&["10.1.2.0/24", "10.1.4.4/31"]);
    for (address, standing) in [
        ("10.1.2.9", Standing::HandedOut),
        ("10.1.4.4", Standing::HandedOut),
        ("10.1.2.0", Standing::Reserved("the network address")),
        ("10.1.2.1", Standing::Reserved("a gateway")),
        ("10.1.2.255", Standing::Reserved("the broadcast address")),
        ("10.1.3.1", Standing::Outside),
        ("fd00::1", Standing::Outside),
    ] {
        assert_eq!(set.standing(ip(address)), standing, "{address}");
    }
}

#[test]
fn the_largest_ranges_cost_nothing_to_hold_or_to_begin() {
    for subnet in ["fd00:1::/64", "::/0", "10.0.0.0/8", "0.0.0.0/0"] {
        let set = set(&[subnet]);
        let last = set.ranges()[0].last();
        let around: Vec<_> = set.addresses_after(Some(last)).take(2).collect();
        assert_eq!(around, set.addresses_after(None).take(2).collect::<Vec<_>>(), "{subnet}");
        assert!(set.capacity() > 16_000_000, "{subnet}");
    }
}

prop_compose! {
    /// A small IPv4 range, its bounds and gateway anywhere in the subnet, or not given.
    fn any_range()(
        prefix in 24_u8..=32,
        base in 0_u32..256,
        start in proptest::option::of(0_u32..256),
        end in proptest::option::of(0_u32..256),
        gateway in proptest::option::of(0_u32..256),
    ) -> Option<Range> {
        let base = Ipv4Addr::from_bits(0x0a01_0000 | base << 8);
        let size = 1_u32 << (32 - prefix);
        let pick = |n: Option<u32>| n.map(|n| IpAddr::V4(Ipv4Addr::from_bits(base.to_bits() + n % size)));
        let subnet = IpNetwork::new(IpAddr::V4(base), prefix).unwrap();
        Range::new(subnet, pick(start), pick(end), pick(gateway)).ok()
    }
}

proptest! {
    #[test]
    fn what_a_set_hands_out_is_what_the_rules_leave(ranges in proptest::collection::vec(any_range(), 1..4)) {
        let ranges: Vec<Range> = ranges.into_iter().flatten().collect();
        let Ok(set) = RangeSet::new(ranges.clone()) else { return Ok(()) };
        // The rules once more, address by address.
        let mut expected = BTreeSet::new();
        for range in &ranges {
            let subnet = range.subnet();
            for address in subnet.iter() {
                let is_end = address == subnet.network() || address == subnet.broadcast();
                let is_gateway = ranges.iter().any(|range| range.gateway() == Some(address));
                let within = range.first() <= address && address <= range.last();
                if within && !is_gateway && (subnet.prefix() >= 31 || !is_end) {
                    expected.insert(address);
                }
            }
        }
        let all: Vec<IpAddr> = set.addresses_after(None).collect();
        prop_assert_eq!(all.iter().copied().collect::<BTreeSet<_>>(), expected.clone());
        prop_assert_eq!(all.len(), expected.len(), "an address came twice");
        prop_assert_eq!(set.capacity(), expected.len() as u128);
        for address in &expected {
            prop_assert_eq!(set.standing(*address), Standing::HandedOut);
        }
        // From anywhere, the same addresses in the same circular order.
        for (at, &last) in all.iter().enumerate() {
            let mut rotated = all.clone();
            rotated.rotate_left(at + 1);
            prop_assert_eq!(set.addresses_after(Some(last)).collect::<Vec<_>>(), rotated);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = parse_subnet(&text);
    }
}
