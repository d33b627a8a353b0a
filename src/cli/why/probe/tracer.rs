//! The table that has the kernel tell of the packet, and who listens.
//!
//! ```text
//! table inet ferrule_probe_TOKEN { flags owner
//!     chain prerouting_first  { type filter hook prerouting priority FIRST
//!         meta l4proto tcp @th,32,32 SEQUENCE       meta nftrace set 1    the packet
//!         meta l4proto tcp @th,64,32 SEQUENCE + 1   meta nftrace set 1    its answer
//!         meta l4proto icmp @th,256,32 SEQUENCE     meta nftrace set 1    an error that quotes it
//!         meta l4proto udp @th,432,32 SEQUENCE      meta nftrace set 1    VXLAN with it inside
//!         meta l4proto udp @th,464,32 SEQUENCE + 1  meta nftrace set 1    VXLAN with its answer inside
//!     }
//!     chain prerouting_last   { type filter hook prerouting priority LAST }
//!     ... output likewise; of input, forward and postrouting only chains without these rules
//! }
//! ```
//!
//! The first and the last chain of each hook tell how far a packet came where nobody else has a chain, and between which
//! two it vanished. The kernel removes the table with the socket that made it, however this process ends.

use std::collections::HashMap;

use crate::cli::why::probe::packet::{ICMP_HEADER, Mark, ProbePacket};
use crate::cni::error::{CniError, Code};
use crate::connectivity::probe::Leg;
use crate::connectivity::question::{ICMP, ICMPV6};
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::change::Change;
use crate::linux::nft::expr::{Comparison, Expr, Header, MetaField, Reg, Verdict};
use crate::linux::nft::rule::Rule;
use crate::linux::nft::table::{Base, Chain, ChainKind, Family, Hook, Table};
use crate::linux::nft::trace::{TraceEvent, TraceLog};
use crate::policy::evaluate::Flow;
use crate::policy::names::UDP;

/// Before and behind whatever anybody has. Conntrack confirms a flow at the very last priority.
const FIRST: i32 = i32::MIN + 1;
const LAST: i32 = i32::MAX - 1;

/// Headers of UDP, of VXLAN and of the Ethernet frame in it, in bytes.
const IN_TUNNEL: usize = 8 + 8 + 14;

/// `IFNAMSIZ`
const NAME: usize = 16;

/// What our tables' names begin with.
pub(super) const TABLE: &str = "ferrule_probe_";

const HOOKS: [(Hook, &str); 5] = [
    (Hook::Prerouting, "prerouting"),
    (Hook::Input, "input"),
    (Hook::Forward, "forward"),
    (Hook::Output, "output"),
    (Hook::Postrouting, "postrouting"),
];

/// Which packets of ours are not to go on from here, so that no application sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hold {
    /// None: the destination's kernel answers by itself.
    Nothing,
    /// Those that would be handed to this node or leave it, but by this link.
    AllBut(Option<String>),
}

/// Hears of the packet while it lives.
pub(super) struct Tracer {
    table: Table,
    log: TraceLog,
    /// By the handles of our rules.
    legs: HashMap<u64, Leg>,
    /// By the numbers that the kernel gave to packets.
    packets: HashMap<u32, Leg>,
    /// The table is this socket's.
    _owner: Nfnetlink,
}

/// Where a packet was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Which packet.
    pub leg: Leg,
    /// Where.
    pub place: SeenAt,
    /// The message.
    pub event: TraceEvent,
}

/// A place of a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeenAt {
    /// The beginning (`false`) or the end of a hook.
    Hook(&'static str, bool),
    /// Held by us at the end of a hook.
    Held(&'static str),
    /// A rule or a chain of somebody.
    Chain,
}

impl Tracer {
    /// Begins.
    ///
    /// # Errors
    /// The kernel cannot trace, or CAP_NET_ADMIN is missing.
    pub(super) async fn open(packet: &ProbePacket, flow: &Flow, hold: &Hold) -> Result<Self, CniError> {
        let log = TraceLog::open_here().map_err(|error| refused(&error.to_string()))?;
        let owner = Nfnetlink::open_here().map_err(|error| refused(&error.to_string()))?;
        let table = Table { family: Family::Inet, name: format!("{TABLE}{}", packet.name()) };
        owner.commit(None, &changes(&table, packet, flow, hold)).await.map_err(|rejection| {
            let is_old = rejection.is_because(KernelError::is_unsupported)
                || rejection.is_because(KernelError::is_not_found);
            let hint = if is_old {
                "; that needs a kernel with nf_tables' trace, and with tables that go with their owner (Linux 5.12)"
            } else {
                ""
            };
            refused(&format!("{rejection}{hint}"))
        })?;
        let rules = owner.placed_rules(&table).await?;
        let leg = |comment: &str| LEGS.iter().find(|(_, name)| *name == comment).map(|(leg, _)| *leg);
        let legs = rules.iter().filter_map(|it| Some((it.handle, leg(it.rule.comment.as_ref()?)?))).collect();
        Ok(Self { table, log, legs, packets: HashMap::new(), _owner: owner })
    }

    /// Where a packet of ours is seen next; waits for it. Cancel safe.
    ///
    /// # Errors
    /// Where the kernel tells no more.
    pub(super) async fn next(&mut self) -> Result<Seen, CniError> {
        loop {
            let event = self.log.next().await.map_err(|error| refused(&error.to_string()))?;
            if let Some(seen) = self.take(event) {
                return Ok(seen);
            }
        }
    }

    /// Whether the kernel had more to tell than was read.
    pub(super) fn has_lost(&self) -> bool {
        self.log.has_lost()
    }

    fn take(&mut self, event: TraceEvent) -> Option<Seen> {
        let is_ours = event.table == self.table.name;
        if let Some(leg) = event.rule.filter(|_| is_ours).and_then(|rule| self.legs.get(&rule)) {
            self.packets.insert(event.id, *leg);
        }
        // Packets that others trace go through our chains as well.
        let leg = *self.packets.get(&event.id)?;
        let place = match (is_ours, place_of(&event.chain)) {
            (false, _) => SeenAt::Chain,
            (true, Some((hook, _))) if event.verdict == crate::linux::nft::trace::Verdict::Drop => {
                SeenAt::Held(hook)
            }
            (true, Some((hook, is_last))) => SeenAt::Hook(hook, is_last),
            (true, None) => return None,
        };
        Some(Seen { leg, place, event })
    }
}

fn refused(why: &str) -> CniError {
    let hint = if why.contains("not permitted") { " (that needs CAP_NET_ADMIN)" } else { "" };
    CniError::new(Code::KernelRefused, "cannot have packets traced").with_details(format!("{why}{hint}"))
}

/// As rules are commented.
const LEGS: [(Leg, &str); 5] = [
    (Leg::Forth, "forth"),
    (Leg::Back, "back"),
    (Leg::Error, "error"),
    (Leg::ForthInTunnel, "forth in tunnel"),
    (Leg::BackInTunnel, "back in tunnel"),
];

fn chain_name(hook: &str, is_last: bool) -> String {
    format!("{hook}_{}", if is_last { "last" } else { "first" })
}

fn place_of(chain: &str) -> Option<(&'static str, bool)> {
    let (hook, place) = chain.split_once('_')?;
    let (_, hook) = HOOKS.iter().find(|(_, name)| *name == hook)?;
    Some((hook, place == "last"))
}

fn changes(table: &Table, packet: &ProbePacket, flow: &Flow, hold: &Hold) -> Vec<Change> {
    let mut changes = vec![Change::AddOwnedTable(table.clone())];
    for (hook, name) in HOOKS {
        for (is_last, priority) in [(false, FIRST), (true, LAST)] {
            let base = Base { kind: ChainKind::Filter, hook, priority, accept: true };
            let chain = Chain { name: chain_name(name, is_last), base: Some(base), comment: None };
            changes.push(Change::AddChain(table.clone(), chain));
        }
    }
    let icmp = if flow.source.is_ipv4() { ICMP } else { ICMPV6 };
    let marks = |leg| match leg {
        Leg::Forth => (flow.protocol, packet.marks()),
        Leg::Back => (flow.protocol, packet.answer_marks()),
        Leg::Error => (icmp, packet.quoted(packet.marks(), ICMP_HEADER)),
        Leg::ForthInTunnel => (UDP, packet.quoted(packet.marks(), IN_TUNNEL)),
        Leg::BackInTunnel => (UDP, packet.quoted(packet.answer_marks(), IN_TUNNEL)),
    };
    for hook in ["prerouting", "output"] {
        for (leg, comment) in LEGS {
            let (protocol, marks) = marks(leg);
            if marks.is_empty() {
                continue;
            }
            let mut exprs = matching(protocol, &marks);
            // The number of the protocol is still in the register, and whatever is not 0 begins the trace.
            exprs.push(Expr::Trace { from: Reg(0) });
            let rule = Rule { chain: chain_name(hook, false), exprs, comment: Some(comment.to_owned()) };
            changes.push(Change::AddRule(table.clone(), rule));
        }
    }
    if let Hold::AllBut(link) = hold {
        for (hook, link) in [("input", None), ("postrouting", link.as_ref())] {
            let mut exprs = matching(flow.protocol, &packet.marks());
            if let Some(link) = link {
                let mut value = link.clone().into_bytes();
                value.resize(NAME, 0);
                exprs.extend([
                    Expr::Meta { field: MetaField::OutputName, to: Reg(0) },
                    Expr::Compare { from: Reg(0), comparison: Comparison::NotEqual, value },
                ]);
            }
            exprs.push(Expr::Verdict(Verdict::Drop));
            let rule = Rule { chain: chain_name(hook, true), exprs, comment: None };
            changes.push(Change::AddRule(table.clone(), rule));
        }
    }
    changes
}

/// Packets of a protocol with these bytes in them. The protocol's number stays in the first register.
fn matching(protocol: u8, marks: &[Mark]) -> Vec<Expr> {
    let mut exprs = vec![
        Expr::Meta { field: MetaField::Protocol, to: Reg(0) },
        Expr::Compare { from: Reg(0), comparison: Comparison::Equal, value: vec![protocol] },
    ];
    for Mark { offset, value } in marks {
        let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let (offset, length) = (number(*offset), number(value.len()));
        exprs.extend([
            Expr::Payload { header: Header::Transport, offset, length, to: Reg(1) },
            Expr::Compare { from: Reg(1), comparison: Comparison::Equal, value: value.clone() },
        ]);
    }
    exprs
}
