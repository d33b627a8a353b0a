//! What became of a packet that was sent to see.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::connectivity::answer::Verdict;
use crate::policy::evaluate::Flow;

/// A packet of one flow, sent by the node of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Of which flow it was the first.
    pub flow: Flow,
    /// What became of it.
    pub outcome: Outcome,
    /// In one sentence.
    pub sentence: String,
    /// What to do, if it did not arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// What came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<ProbeAnswer>,
    /// What dropped it, or the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_by: Option<DroppedBy>,
    /// Rules and chains that saw it on this node, in order; those of the answer last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<Traced>,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The destination's kernel answered as for a connection that works.
    Answered,
    /// Somebody turned it away: a reset, or an error of ICMP.
    Refused,
    /// A rule or a chain's policy on this node dropped it.
    Dropped,
    /// The same of the answer.
    AnswerDropped,
    /// The node sent it on, and nothing came back.
    Silent,
    /// The node did not send it on, and nothing in nf_tables dropped it.
    Vanished,
    /// The answer came back to the node and did not reach the source.
    AnswerVanished,
    /// The kernel of the source did not send it.
    Unsent,
    /// It came as far as it may without an application seeing it.
    Held,
    /// No packet was sent: that cannot be done here.
    Skipped,
    /// Of a newer version.
    #[serde(other)]
    Other,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeAnswer {
    /// `syn-ack`, `reset`, `echo-reply`, `icmp-error`
    pub kind: AnswerKind,
    /// Who sent it.
    pub from: IpAddr,
    /// Type and code of an error of ICMP, or of ICMPv6 if `from` is an address of IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, u8)>,
}

/// How it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerKind {
    /// TCP: somebody listens.
    SynAck,
    /// TCP: nobody does, or a firewall says so.
    Reset,
    /// ICMP: the destination is there.
    EchoReply,
    /// ICMP: an error.
    IcmpError,
}

/// What dropped a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DroppedBy {
    /// Family of the table: `inet`, `ip`, `ip6`, `bridge`, `netdev`.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's handle; none if it was the chain's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u64>,
    /// The rule's comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the rule says so to the sender.
    pub rejects: bool,
}

/// A rule that matched, or a base chain that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traced {
    /// Which packet.
    pub packet: Leg,
    /// Family of the table.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's handle; none if the chain ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u64>,
    /// `accept`, `drop`, `jump NAME`, ...
    pub verdict: String,
}

/// A packet of those that are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leg {
    /// The one that was sent.
    Forth,
    /// The one of a tunnel that carries it.
    ForthInTunnel,
    /// The answer.
    Back,
    /// The one of a tunnel that carries the answer.
    BackInTunnel,
    /// An error of ICMP about the one that was sent.
    Error,
}

impl Outcome {
    /// What follows for the connection.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Answered => Verdict::Works,
            Self::Held | Self::Skipped | Self::Other => Verdict::Unknown,
            Self::Refused
            | Self::Dropped
            | Self::AnswerDropped
            | Self::Silent
            | Self::Vanished
            | Self::AnswerVanished
            | Self::Unsent => Verdict::Broken,
        }
    }
}

/// What state and packets say together. What the state shows to be broken stays so: a small packet that passes does not
/// show that large ones do. What it could not look at is decided by packets, if all were answered.
pub fn judge(state: Verdict, probes: &[Probe]) -> Verdict {
    let of = |verdict| probes.iter().any(|it| it.outcome.verdict() == verdict);
    let is_skipped = probes.iter().any(|it| it.outcome == Outcome::Skipped);
    match state {
        Verdict::Broken => Verdict::Broken,
        _ if of(Verdict::Broken) => Verdict::Broken,
        _ if is_skipped => Verdict::Unknown,
        _ if of(Verdict::Works) && !of(Verdict::Unknown) => Verdict::Works,
        state => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(outcome: Outcome) -> Probe {
        let address = "10.0.0.1".parse().unwrap();
        Probe {
            flow: Flow { source: address, destination: address, protocol: 6, port: 80 },
            outcome,
            sentence: String::new(),
            remedy: None,
            answer: None,
            dropped_by: None,
            trace: Vec::new(),
        }
    }

    #[test]
    fn state_and_packets_are_judged_together() {
        use Outcome::{Answered, Dropped, Held, Skipped};
        use Verdict::{Broken, Unknown, Works};
        for (state, outcomes, wanted) in [
            (Works, vec![], Works),
            (Unknown, vec![], Unknown),
            (Unknown, vec![Answered, Answered], Works),
            (Unknown, vec![Answered, Held], Unknown),
            (Works, vec![Held], Works),
            (Works, vec![Skipped], Unknown),
            (Works, vec![Answered, Dropped], Broken),
            (Broken, vec![Answered], Broken),
            (Broken, vec![Skipped], Broken),
        ] {
            let probes: Vec<Probe> = outcomes.iter().map(|it| probe(*it)).collect();
            assert_eq!(judge(state, &probes), wanted, "{state:?} {outcomes:?}");
        }
    }

    #[test]
    fn a_probe_reads_as_it_was_written() {
        let icmp = Some((3, 13));
        let answer = ProbeAnswer { kind: AnswerKind::IcmpError, from: "10.0.0.2".parse().unwrap(), icmp };
        let written = Probe { answer: Some(answer), ..probe(Outcome::AnswerDropped) };
        let value = serde_json::to_value(&written).unwrap();
        assert_eq!(
            (value["outcome"].as_str(), value["answer"]["kind"].as_str()),
            (Some("answer-dropped"), Some("icmp-error"))
        );
        assert_eq!(serde_json::from_value::<Probe>(value).unwrap(), written);
        assert_eq!(serde_json::from_str::<Outcome>("\"of-tomorrow\"").unwrap(), Outcome::Other);
    }
}
