use super::*;
use proptest::prelude::*;

fn block(cidr: &str, except: &[&str]) -> Result<Blocks, Invalid> {
    let except = except.iter().map(|it| (*it).to_owned()).collect();
    Blocks::compile(&IpBlock { cidr: cidr.into(), except }, "ipBlock")
}

fn text(blocks: &Blocks) -> Vec<String> {
    let all = blocks.v4().into_iter().chain(blocks.v6());
    all.map(|it| format!("{}-{}", it.start(), it.end())).collect()
}

#[test]
fn exceptions_are_cut_out() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("10.0.0.0/8", &[], &["10.0.0.0-10.255.255.255"]),
        ("10.0.0.0/30", &["10.0.0.1/32"], &["10.0.0.0-10.0.0.0", "10.0.0.2-10.0.0.3"]),
        ("10.0.0.0/30", &["10.0.0.0/31"], &["10.0.0.2-10.0.0.3"]),
        ("10.0.0.0/30", &["10.0.0.2/31"], &["10.0.0.0-10.0.0.1"]),
        ("10.0.0.0/30", &["10.0.0.0/31", "10.0.0.2/31"], &[]),
        ("10.0.0.0/30", &["10.0.0.3/32", "10.0.0.2/31", "10.0.0.3/32"], &["10.0.0.0-10.0.0.1"]),
        ("0.0.0.0/0", &["255.255.255.255/32"], &["0.0.0.0-255.255.255.254"]),
        ("0.0.0.0/0", &["0.0.0.0/1", "128.0.0.0/1"], &[]),
        ("::/0", &["8000::/1"], &["::-7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]),
        ("::/0", &["::/1", "8000::/1"], &[]),
        ("fd00::/126", &["fd00::2/128"], &["fd00::-fd00::1", "fd00::3-fd00::3"]),
        ("10.0.0.7/32", &[], &["10.0.0.7-10.0.0.7"]),
    ];
    for (cidr, except, expected) in cases {
        assert_eq!(text(&block(cidr, except).unwrap()), *expected, "{cidr} {except:?}");
    }
}

/// What API servers have accepted for years is in clusters.
#[test]
fn what_the_api_server_accepts_is_accepted() {
    assert_eq!(block("10.1.2.3/8", &["10.9.9.9/16"]), block("10.0.0.0/8", &["10.9.0.0/16"]));
    assert_eq!(block("010.000.0.08/08", &[]), block("10.0.0.8/8", &[]));
    assert_eq!(block("::ffff:10.0.0.0/104", &[]), block("10.0.0.0/8", &[]));
    assert_eq!(text(&block("fd00::1/64", &[]).unwrap()), ["fd00::-fd00::ffff:ffff:ffff:ffff"]);
}

#[test]
fn what_is_no_block_is_named_by_its_field() {
    for cidr in
        ["", "10.0.0.0", "10.0.0/8", "10.0.0.0/33", "256.0.0.0/8", "fd00::/129", "fd00::", "x/8", "/8"]
    {
        assert_eq!(block(cidr, &[]).unwrap_err().field, "ipBlock.cidr", "{cidr}");
    }
    for cidr in ["10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8", " 10.0.0.0/8", "10.0.0.0.0/8", "10..0.0/8"] {
        assert_eq!(block(cidr, &[]).unwrap_err().field, "ipBlock.cidr", "{cidr}");
    }
    for (cidr, except) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/8", "10.1.2.3/8"),
        ("10.0.0.0/8", "11.0.0.0/16"),
        ("10.0.0.0/8", "0.0.0.0/0"),
        ("10.0.0.0/8", "fd00::/16"),
        ("::/0", "10.0.0.0/8"),
        ("::/0", "::/0"),
        ("10.0.0.0/8", "10.0.0.1"),
    ] {
        let except = ["10.0.0.0/16", except];
        let invalid = block(cidr, if cidr == "::/0" { &except[1..] } else { &except }).unwrap_err();
        assert!(invalid.field.starts_with("ipBlock.except["), "{invalid}");
    }
}

#[test]
fn blocks_that_overlap_or_touch_are_one() {
    let of = |cidrs: &[&str]| {
        let blocks: Vec<Blocks> = cidrs.iter().map(|cidr| block(cidr, &[]).unwrap()).collect();
        text(&Blocks::union(&blocks))
    };
    assert_eq!(of(&["10.1.0.0/16", "10.0.0.0/16", "10.0.3.0/24"]), ["10.0.0.0-10.1.255.255"]);
    assert_eq!(of(&["128.0.0.0/1", "0.0.0.0/1"]), ["0.0.0.0-255.255.255.255"]);
    assert_eq!(of(&["::/0", "fd00::/8"]), ["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]);
    assert_eq!(of(&["10.0.0.0/32", "10.0.0.2/32"]), ["10.0.0.0-10.0.0.0", "10.0.0.2-10.0.0.2"]);
    // The last IPv4 address and the first of IPv6 have bits that touch; the families do not.
    assert_eq!(of(&["255.255.255.255/32", "::1:0:0/128"]).len(), 2);
}

/// In a world of 256 addresses of each family, so that everything overlaps.
fn any_block() -> impl Strategy<Value = IpBlock> {
    let cidr = |v6: bool, bits: u8, length: u8| {
        if v6 { format!("fd00::{bits:x}/{}", 120 + length) } else { format!("10.0.0.{bits}/{}", 24 + length) }
    };
    let except = prop::collection::vec((any::<u8>(), 1_u8..=8), 0..5);
    (any::<bool>(), any::<u8>(), 0_u8..=8, except).prop_map(move |(v6, bits, length, except)| IpBlock {
        cidr: cidr(v6, bits, length),
        except: except.into_iter().map(|(it, more)| cidr(v6, it, more)).collect(),
    })
}

proptest! {
    #[test]
    fn an_address_is_in_if_a_block_has_it(written in prop::collection::vec(any_block(), 0..6)) {
        // Invalid exceptions go, one by one, as the API server would not have taken them.
        let valid: Vec<IpBlock> = written.into_iter().map(|mut it| {
            it.except.retain(|except| {
                Blocks::compile(&IpBlock { cidr: it.cidr.clone(), except: vec![except.clone()] }, "").is_ok()
            });
            it
        }).collect();
        let union = Blocks::union(&valid.iter().map(|it| Blocks::compile(it, "").unwrap()).collect::<Vec<_>>());
        let inside = |cidr: &str, address: IpAddr| {
            let net: ipnetwork::IpNetwork = cidr.parse().unwrap();
            net.contains(address)
        };
        for bits in 0..=255_u8 {
            for address in [IpAddr::from([10, 0, 0, bits]), format!("fd00::{bits:x}").parse().unwrap()] {
                let expected = valid.iter().any(|it| {
                    inside(&it.cidr, address) && !it.except.iter().any(|except| inside(except, address))
                });
                prop_assert_eq!(union.contains(address), expected, "{}", address);
            }
        }
        for (before, after) in union.v4.iter().zip(union.v4.iter().skip(1)) {
            prop_assert!(before.0 <= before.1 && before.1 + 1 < after.0);
        }
        for (before, after) in union.v6.iter().zip(union.v6.iter().skip(1)) {
            prop_assert!(before.0 <= before.1 && before.1 + 1 < after.0);
        }
    }
}
