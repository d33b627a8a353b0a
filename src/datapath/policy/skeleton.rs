//! What the table has whatever the policies are: where packets enter it, the maps that lead a link's packets to a pod's
//! chain, and what becomes of those that no rule allows.

use crate::datapath::policy::layout::{Made, lookup_verdict, rule, table};
use crate::desired::nftables::expr::{
    Field, RELATED, iifname, ip_saddr, ip6_saddr, ipv4, ipv6, is_in, is_in_state, oifname, verdict,
};
use crate::linux::nft::change::Change;
use crate::linux::nft::expr::{Expr, Log, Verdict};
use crate::linux::nft::rule::Rule;
use crate::linux::nft::set::{Set, Type};
use crate::linux::nft::table::{Base, Chain, ChainKind, Hook};
use crate::policy::names::{FROM_POD, OWN4, OWN6, TO_POD, denied_chain};
use crate::policy::plan::Direction;

/// Forwarded packets: whether their pod may send them.
pub const POLICY_OUT: &str = "policy_out";
/// Forwarded packets: whether their pod may get them.
pub const POLICY_IN: &str = "policy_in";
/// What pods send to their node: whether they may.
pub const POLICY_NODE: &str = "policy_node";

/// The group of nfnetlink_log that denied packets are copied to, ten a second of each direction.
pub const LOG_GROUP: u16 = 102;

/// What the copy begins with, which tells the direction.
pub fn log_prefix(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ferrule denied in: ",
        Direction::Egress => "ferrule denied out: ",
    }
}

/// `filter` and a little: after the host's own firewall, which may drop, and after destinations were rewritten.
const OUT_PRIORITY: i32 = 10;
const IN_PRIORITY: i32 = 11;

/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)` (include/uapi/linux/netfilter/nf_conntrack_common.h).
const ESTABLISHED: u32 = 1 << 1;

/// As much of a packet as tells addresses, protocol and ports.
const LOG_LENGTH: u32 = 128;

/// All of it.
pub(super) fn changes() -> Vec<Change> {
    let mut changes = vec![Change::AddTable(table(), None)];
    changes.extend(sets().into_iter().map(|set| Change::AddSet(table(), set)));
    changes.extend(chains().iter().flat_map(Made::changes));
    changes
}

/// The maps and sets, whose elements are those of pods.
pub(super) fn sets() -> Vec<Set> {
    let set = |name: &str, key: &[Type], data: &[Type]| Set {
        name: name.to_owned(),
        key: key.to_vec(),
        data: data.to_vec(),
        interval: false,
        // A DEL lets them expire.
        expires: true,
    };
    vec![
        set(OWN4, &[Type::LinkName, Type::Ipv4], &[]),
        set(OWN6, &[Type::LinkName, Type::Ipv6], &[]),
        set(FROM_POD, &[Type::LinkName], &[Type::Verdict]),
        set(TO_POD, &[Type::LinkName], &[Type::Verdict]),
    ]
}

/// The chains, each after those that send packets to it.
pub(super) fn chains() -> Vec<Made> {
    let base = |name: &str, hook, priority, rules: Vec<Rule>| Made {
        chain: Chain {
            name: name.to_owned(),
            base: Some(Base { kind: ChainKind::Filter, hook, priority, accept: true }),
            comment: None,
        },
        rules,
    };
    let forwarded = |name, by: Field, map| [known_flow(name), own(name), lead(name, by, map)].concat();
    vec![
        base(POLICY_OUT, Hook::Forward, OUT_PRIORITY, forwarded(POLICY_OUT, iifname, FROM_POD)),
        base(POLICY_IN, Hook::Forward, IN_PRIORITY, forwarded(POLICY_IN, oifname, TO_POD)),
        base(
            POLICY_NODE,
            Hook::Input,
            OUT_PRIORITY,
            [known_flow(POLICY_NODE), lead(POLICY_NODE, iifname, FROM_POD)].concat(),
        ),
        denied(Direction::Ingress),
        denied(Direction::Egress),
    ]
}

/// `ct state established,related accept`
fn known_flow(chain: &str) -> Vec<Rule> {
    let parts = [is_in_state(ESTABLISHED | RELATED), verdict(Verdict::Accept)];
    vec![rule(chain, parts, Some("of a flow that was allowed"))]
}

/// `oifname . ip saddr @own4 iifname . ip saddr @own4 accept`: a source is easily said to be the pod's, so the packet must
/// come from the pod's link as well. Of others, the first look-up is the only one.
fn own(chain: &str) -> Vec<Rule> {
    let own = |family: Vec<Expr>, address: Field, set| {
        rule(
            chain,
            [
                family,
                is_in(&[oifname, address], set),
                is_in(&[iifname, address], set),
                verdict(Verdict::Accept),
            ],
            Some("a pod to itself"),
        )
    };
    vec![own(ipv4(), ip_saddr, OWN4), own(ipv6(), ip6_saddr, OWN6)]
}

/// `iifname vmap @from_pod`
fn lead(chain: &str, by: Field, map: &str) -> Vec<Rule> {
    vec![rule(chain, [lookup_verdict(&[by], map)], Some("to the pod's chain"))]
}

fn denied(direction: Direction) -> Made {
    let name = denied_chain(direction);
    let log = Log { group: LOG_GROUP, prefix: log_prefix(direction).to_owned(), length: LOG_LENGTH };
    let told = vec![Expr::Limit { per_second: 10, burst: 5 }, Expr::Log(log)];
    let rules = vec![
        rule(name, [told], Some("ten a second are told")),
        rule(name, [vec![Expr::Counter], verdict(Verdict::Drop)], Some("no rule allows it")),
    ];
    Made::new(name, None, rules)
}
