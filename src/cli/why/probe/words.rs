//! What became of a packet, in one sentence. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::cli::why::probe::passage::{End, Passage};
use crate::connectivity::probe::{AnswerKind, DroppedBy, Outcome, ProbeAnswer};
use crate::desired::nftables;
use crate::policy::names;

/// All that is known of it.
pub(super) struct Known<'a> {
    /// `a TCP SYN`
    pub packet: &'a str,
    /// Who sent it.
    pub source: IpAddr,
    /// Where to, with its port.
    pub door: &'a str,
    /// This node.
    pub node: &'a str,
    /// How far it came.
    pub forth: &'a Passage,
    /// How far its answer came, on this node.
    pub back: &'a Passage,
    /// What came back to the source.
    pub answer: Option<&'a ProbeAnswer>,
    /// What dropped it, or its answer.
    pub dropped_by: Option<&'a DroppedBy>,
    /// Whether the destination is on this node.
    pub is_here: bool,
    /// Why the source's kernel did not send it.
    pub send_error: Option<&'a str>,
    /// The link that it left by.
    pub link: Option<&'a str>,
    /// The next hop on that link.
    pub next_hop: Option<IpAddr>,
    /// Whether it was sent with few hops, to end at the other node.
    pub few_hops: bool,
    /// For how long an answer was waited for.
    pub patience: Duration,
    /// Tables of iptables-legacy, of which nothing is told.
    pub legacy: &'a [String],
    /// Whether the kernel had more to tell than was read.
    pub has_lost: bool,
}

/// Outcome, sentence and remedy.
pub(super) fn tell(known: &Known<'_>) -> (Outcome, String, Option<String>) {
    let outcome = known.outcome();
    let Known { packet, source, door, .. } = known;
    let mut sentence = format!("{packet} was sent from {source} to {door}: {}", known.what(outcome));
    if known.has_lost {
        sentence
            .push_str("; the kernel had more to tell than was read, so what dropped it may be missing here");
    }
    (outcome, sentence, known.remedy(outcome))
}

impl Known<'_> {
    fn outcome(&self) -> Outcome {
        match (&self.forth.end, self.answer) {
            (End::Dropped(_), _) => Outcome::Dropped,
            (End::Held(..), _) => Outcome::Held,
            (_, Some(answer)) => match answer.kind {
                AnswerKind::SynAck | AnswerKind::EchoReply => Outcome::Answered,
                AnswerKind::IcmpError if self.few_hops && is_out_of_hops(answer) => Outcome::Held,
                AnswerKind::IcmpError | AnswerKind::Reset => Outcome::Refused,
            },
            (_, None) if self.send_error.is_some() => Outcome::Unsent,
            (_, None) if self.back.is_seen() => match self.back.end {
                End::Dropped(_) => Outcome::AnswerDropped,
                _ => Outcome::AnswerVanished,
            },
            // Errors of ICMP are few, and often dropped: that none came says nothing.
            (End::Left(_) | End::Arrived, None) if self.few_hops => Outcome::Held,
            (End::Left(_) | End::Arrived, None) => Outcome::Silent,
            (End::Unseen | End::LastSeen(..) | End::Taken(_), None) => Outcome::Vanished,
        }
    }

    fn what(&self, outcome: Outcome) -> String {
        let way = self.way();
        let answer = self.answer.map(answer_word).unwrap_or_default();
        match outcome {
            Outcome::Dropped => {
                let answered = if answer.is_empty() { String::new() } else { format!(", with {answer}") };
                format!("{way}was {}{answered}", self.dropped())
            }
            Outcome::Held if self.answer.is_some() => format!(
                "{way}{}, and ended at the other node, as it was meant to, since an application would have seen it: {answer} \
                 came back",
                self.left()
            ),
            Outcome::Held if self.few_hops && !self.forth.is_stopped() => format!(
                "{way}{}, to end at the other node, since an application would have seen it; no error of ICMP came back from \
                 there within {}, as not each node sends them",
                self.left(),
                self.seconds()
            ),
            Outcome::Held => {
                let place = match (&self.forth.end, self.link) {
                    (End::Held("input", _), _) => format!("before it was handed to {}", self.node),
                    (_, Some(link)) => format!("before it left by {link}"),
                    _ => "before it left".to_owned(),
                };
                format!("{way}was held {place}, since an application would have seen it")
            }
            Outcome::Answered => format!("{way}{}, and {answer} came back", self.left()),
            Outcome::Refused => match &self.forth.end {
                end @ End::LastSeen(..) => format!("{way}{}, and {answer} came back", self.vanished(end)),
                _ => format!("{way}{}, and {answer} came back", self.left()),
            },
            Outcome::Unsent => {
                let error = self.send_error.unwrap_or_default();
                let by = match &self.forth.end {
                    End::Unseen => " before this node saw it",
                    _ => "",
                };
                format!("{way}was turned away{by}: {error}")
            }
            Outcome::AnswerDropped | Outcome::AnswerVanished => {
                let end = match &self.back.end {
                    End::Dropped(_) => format!("was {}", self.dropped()),
                    End::Left(_) => "left towards the source, which it did not reach".to_owned(),
                    end => self.vanished(end),
                };
                format!("{way}{}, its answer came to {}, and that {end}", self.left(), self.node)
            }
            Outcome::Silent => format!("{way}{}, and no answer came within {}", self.left(), self.seconds()),
            Outcome::Vanished | Outcome::Skipped | Outcome::Other => {
                format!("{way}{}", self.vanished(&self.forth.end))
            }
        }
    }

    /// `it went through prerouting and forward of node-1, and `
    fn way(&self) -> String {
        match self.forth.hooks.split_last() {
            None => "it ".to_owned(),
            Some((last, [])) => format!("it went through {last} of {}, and ", self.node),
            Some((last, others)) => {
                let and = if matches!(self.forth.end, End::Left(_) | End::Arrived) { ", " } else { ", and " };
                format!("it went through {} and {last} of {}{and}", others.join(", "), self.node)
            }
        }
    }

    fn left(&self) -> String {
        match (&self.forth.end, self.link) {
            (End::Unseen, _) => {
                format!(
                    "was not seen on {}, so a rule inside of the source's namespace leads it elsewhere",
                    self.node
                )
            }
            (End::Arrived, _) => format!("was handed to {}", self.node),
            (End::Left(_), Some(link)) => {
                let mut left = format!("left by {link}");
                if let Some(next_hop) = self.next_hop {
                    let _ = write!(left, " towards {next_hop}");
                }
                if self.forth.in_tunnel {
                    left.push_str(", in a tunnel's packet");
                }
                left
            }
            (End::Left(_), None) => "left".to_owned(),
            // Something took it past the other hooks.
            (End::LastSeen(hook, _), _) => format!("was last seen in {hook}"),
            (end, _) => self.vanished(end),
        }
    }

    fn dropped(&self) -> String {
        let Some(by) = self.dropped_by else { return "dropped".to_owned() };
        let DroppedBy { family, table, chain, rule, comment, rejects } = by;
        let tunnel = if self.forth.in_tunnel || self.back.in_tunnel { ", in a tunnel's packet," } else { "" };
        let place = format!("chain {chain} of table {family} {table}");
        let mut text = match rule {
            Some(handle) => {
                let verb = if *rejects { "rejected" } else { "dropped" };
                format!("{verb}{tunnel} on {} by the rule with handle {handle} of {place}", self.node)
            }
            None => format!("dropped{tunnel} on {} by the policy of {place}", self.node),
        };
        if let Some(comment) = comment {
            let _ = write!(text, " (\"{comment}\")");
        }
        text
    }

    fn vanished(&self, end: &End) -> String {
        let legacy = match self.legacy {
            [] => String::new(),
            tables => format!(" (tables of iptables-legacy are there: {})", tables.join(", ")),
        };
        match end {
            End::Unseen => format!(
                "was not seen by nf_tables of {}: what drops it is before that, inside of the source's namespace or in tc",
                self.node
            ),
            End::Taken(event) => format!(
                "was taken by a rule of chain {} of table {}, which gave it to a program (a queue) or elsewhere, and did not \
                 come back",
                event.chain, event.table
            ),
            End::LastSeen(hook, false) => format!(
                "vanished in {hook}, by something that is no rule of nf_tables: iptables-legacy, conntrack, IPVS{legacy}"
            ),
            End::LastSeen(hook, true) => format!(
                "vanished behind {hook}, where nf_tables do not look: a route that discards, the check of where packets come \
                 from (rp_filter), forwarding that is off, or no next hop"
            ),
            End::Dropped(_) | End::Held(..) | End::Left(_) | End::Arrived => "vanished".to_owned(),
        }
    }

    fn seconds(&self) -> String {
        format!("{} s", self.patience.as_secs())
    }

    fn remedy(&self, outcome: Outcome) -> Option<String> {
        let other = "ask on the node of the other end as well, and see what comes in there (ferrulectl why, ferrulectl \
                     capture)";
        Some(match outcome {
            Outcome::Answered | Outcome::Held | Outcome::Skipped | Outcome::Other => return None,
            Outcome::Dropped | Outcome::AnswerDropped => {
                let DroppedBy { family, table, chain, .. } = self.dropped_by?;
                match table.as_str() {
                    names::TABLE => "ferrulectl policy why says which policy that is".to_owned(),
                    nftables::table::TABLE => format!(
                        "it is a rule of ferrule's own: nft -a list chain {family} {table} {chain}; ferrulectl doctor"
                    ),
                    _ => format!(
                        "nft -a list chain {family} {table} {chain} shows it; let the program that owns the table accept \
                         the packet"
                    ),
                }
            }
            Outcome::Refused if matches!(self.forth.end, End::LastSeen(..)) => {
                "see the steps below; ferrulectl doctor; iptables-legacy -S, where that is used".to_owned()
            }
            Outcome::Refused => match self.answer.map(|it| it.kind) {
                Some(AnswerKind::Reset) => {
                    "nobody listens there, or a firewall that is not on this node rejects it: see who listens in the \
                     destination"
                        .to_owned()
                },
                _ => "see what the sender of the error has: its routes, its next hop, its firewall".to_owned(),
            },
            Outcome::Silent => match self.forth.end {
                End::Arrived => "see the process that listens: its queue of connections may be full".to_owned(),
                _ if self.is_here => {
                    "the pod has got it: see the rules inside of its namespace (nft list ruleset), and its sockets (ss -lnt)"
                        .to_owned()
                }
                _ => format!(
                    "something between the nodes (a cloud's security group, a firewall) or on the other node drops it: \
                     {other}"
                ),
            },
            Outcome::AnswerVanished | Outcome::Vanished => {
                "see the steps below; ferrulectl doctor; iptables-legacy -S, where that is used".to_owned()
            }
            Outcome::Unsent => {
                "see the routes and rules inside of the source's namespace: ip route get, nft list ruleset"
                    .to_owned()
            },
        })
    }
}

fn is_out_of_hops(answer: &ProbeAnswer) -> bool {
    answer.icmp == Some(if answer.from.is_ipv4() { (11, 0) } else { (3, 0) })
}

/// `a SYN-ACK from 10.0.0.1`
fn answer_word(answer: &ProbeAnswer) -> String {
    let ProbeAnswer { kind, from, icmp } = answer;
    match (kind, icmp) {
        (AnswerKind::SynAck, _) => format!("a SYN-ACK from {from}"),
        (AnswerKind::Reset, _) => format!("a reset from {from}"),
        (AnswerKind::EchoReply, _) => format!("an echo reply from {from}"),
        (AnswerKind::IcmpError, icmp) => {
            let (kind, code) = icmp.unwrap_or_default();
            let name = icmp_name(from.is_ipv4(), kind, code);
            format!("an ICMP error ({name}, type {kind}, code {code}) from {from}")
        }
    }
}

/// RFC 792, 1122, 1812 and 4443.
fn icmp_name(ipv4: bool, kind: u8, code: u8) -> &'static str {
    match (ipv4, kind, code) {
        (true, 3, 0) => "network unreachable",
        (true, 3, 1) | (false, 1, 3) => "host unreachable",
        (true, 3, 2) => "protocol unreachable",
        (true, 3, 3) | (false, 1, 4) => "port unreachable",
        (true, 3, 4) | (false, 2, _) => "packet too big",
        (true, 3, 9 | 10 | 13) | (false, 1, 1) => "administratively prohibited",
        (true, 3, _) | (false, 1, 2..) => "unreachable",
        (false, 1, 0) => "no route",
        (true, 11, _) | (false, 3, _) => "time exceeded",
        _ => "parameter problem",
    }
}
