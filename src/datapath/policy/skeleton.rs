//! What the table has whatever the policies are: where packets enter it, the maps that lead a link's packets to a pod's
//! chain, and what becomes of those that no rule allows.

use crate::datapath::policy::layout::{Made, lookup_verdict, rule, table};
use crate::desired::nftables::expr::{
    Field, RELATED, iifname, ip_saddr, ip6_saddr, ipv4, ipv6, is_in, is_in_state, oifname, verdict,
};
use crate::linux::error::KernelError;
use crate::linux::nft::change::{Change, Rejection};
use crate::linux::nft::expr::{Expr, Log, Verdict};
use crate::linux::nft::rule::Rule;
use crate::linux::nft::set::{Set, Type};
use crate::linux::nft::table::{Base, Chain, ChainKind, Hook};
use crate::policy::names::{FROM_POD, OWN4, OWN6, TO_POD, denied_chain};
use crate::policy::plan::Direction;

/// What the rule says that drops what no rule allows.
const DROPS: &str = "no rule allows it";
/// The same in a kernel that cannot tell of it.
const DROPS_UNTOLD: &str = "no rule allows it, and this kernel has no log";

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

/// All of it. `judges_own`: see [`chains`].
pub(super) fn changes(judges_own: bool) -> Vec<Change> {
    let mut changes = vec![Change::AddTable(table(), None)];
    changes.extend(sets().into_iter().map(|set| Change::AddSet(table(), set)));
    changes.extend(chains(judges_own).iter().flat_map(Made::changes));
    changes
}

/// The chains of forwarded packets made anew, in one transaction.
pub(super) fn switch_own(judges_own: bool) -> Vec<Change> {
    let chains = chains(judges_own);
    let forwarded = chains.iter().filter(|it| [POLICY_OUT, POLICY_IN].contains(&it.chain.name.as_str()));
    forwarded.flat_map(Made::changes).collect()
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

/// The chains, each after those that send packets to it. `judges_own`: what a pod sends to itself goes to its chain too, because
/// ClusterNetworkPolicies judge it; the chains of pods let it through then ([`own`]).
pub(super) fn chains(judges_own: bool) -> Vec<Made> {
    let base = |name: &str, hook, priority, rules: Vec<Rule>| Made {
        chain: Chain {
            name: name.to_owned(),
            base: Some(Base { kind: ChainKind::Filter, hook, priority, accept: true }),
            comment: None,
        },
        rules,
    };
    let forwarded = |name, by: Field, map| {
        let own = if judges_own { Vec::new() } else { own(name) };
        [known_flow(name), own, lead(name, by, map)].concat()
    };
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
pub(super) fn own(chain: &str) -> Vec<Rule> {
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
        rule(name, [vec![Expr::Counter], verdict(Verdict::Drop)], Some(DROPS)),
    ];
    Made::new(name, None, rules)
}

/// The rules of a chain for a kernel without nft_log, nft_limit or nfnetlink_log: without those that tell of packets. What
/// drops them says so, so that whoever reads the table knows that nothing is missing.
pub(super) fn untold(rules: &[Rule]) -> Vec<Rule> {
    rules.iter().filter(|rule| !tells(rule)).map(as_untold).collect()
}

/// The same changes for such a kernel, if nothing else is why it refused them.
pub(super) fn changes_untold(changes: &[Change], rejection: &Rejection) -> Option<Vec<Change>> {
    let adds_telling = |change: &Change| matches!(change, Change::AddRule(_, rule) if tells(rule));
    let is_missing = |reason: &KernelError| reason.is_not_found() || reason.is_unsupported();
    let is_about_telling = !rejection.0.is_empty()
        && rejection.0.iter().all(|blame| {
            blame.change.and_then(|place| changes.get(place)).is_some_and(adds_telling)
                && is_missing(&blame.refusal)
        });
    is_about_telling.then(|| {
        let kept = changes.iter().filter(|change| !adds_telling(change));
        kept.map(|change| match change {
            Change::AddRule(table, rule) => Change::AddRule(table.clone(), as_untold(rule)),
            other => other.clone(),
        })
        .collect()
    })
}

fn tells(rule: &Rule) -> bool {
    rule.exprs.iter().any(|expr| matches!(expr, Expr::Log(_)))
}

fn as_untold(rule: &Rule) -> Rule {
    let mut rule = rule.clone();
    if rule.comment.as_deref() == Some(DROPS) {
        rule.comment = Some(DROPS_UNTOLD.to_owned());
    }
    rule
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::nft::change::Blame;
    use rustix::io::Errno;

    fn rejected(of: &[(Option<usize>, Errno)]) -> Rejection {
        let blame = |(change, errno): &(Option<usize>, Errno)| {
            let (errno, operation) = (errno.raw_os_error(), "add rule".to_owned());
            Blame { change: *change, refusal: KernelError { errno, text: None, operation } }
        };
        Rejection(of.iter().map(blame).collect())
    }

    #[test]
    fn a_kernel_without_log_gets_all_but_the_log() {
        let all = changes(false);
        let places: Vec<usize> = (0..all.len())
            .filter(|place| matches!(&all[*place], Change::AddRule(_, rule) if tells(rule)))
            .collect();
        assert_eq!(places.len(), 2);
        let both = |errno| rejected(&[(Some(places[0]), errno), (Some(places[1]), errno)]);
        let left = changes_untold(&all, &both(Errno::NOENT)).unwrap();
        assert_eq!(changes_untold(&all, &both(Errno::OPNOTSUPP)).as_ref(), Some(&left));
        assert_eq!(left.len(), all.len() - 2);
        // It is what a table is compared with that has it.
        let wanted = chains(false).into_iter().flat_map(|made| untold(&made.rules));
        let made = left.iter().filter_map(|it| match it {
            Change::AddRule(_, rule) => Some(rule.clone()),
            _ => None,
        });
        assert_eq!(made.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
        let says = |it: &&Change| matches!(it, Change::AddRule(_, rule) if rule.comment.as_deref() == Some(DROPS_UNTOLD));
        assert_eq!(left.iter().filter(says).count(), 2, "both still drop");
    }

    #[test]
    fn any_other_refusal_is_no_reason_to_leave_the_log_out() {
        let all = changes(false);
        let log = all.iter().position(|it| matches!(it, Change::AddRule(_, rule) if tells(rule)));
        let others: [&[(Option<usize>, Errno)]; 5] = [
            &[],
            &[(None, Errno::NOENT)],
            &[(log, Errno::NOENT), (Some(0), Errno::NOENT)],
            &[(log, Errno::NOMEM)],
            &[(Some(0), Errno::NOENT)],
        ];
        for of in others {
            assert_eq!(changes_untold(&all, &rejected(of)), None, "{of:?}");
        }
    }
}
