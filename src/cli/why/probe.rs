//! `ferrulectl why --probe`: a packet is sent as the source would send it, and followed through this node.
//!
//! ```text
//! the source's namespace            this node                           elsewhere
//!   raw socket -- SYN --> prerouting ... postrouting -- link --> ...  kernel of the destination
//!   raw socket <- copy -- postrouting ... prerouting <- link --- ...  SYN-ACK, reset, error of ICMP
//!   kernel: no socket has that port: reset ------------------------>  forgets it; nobody has accepted
//! ```
//!
//! | file         | what it is                                                  |
//! |--------------|-------------------------------------------------------------|
//! | [`packet`]   | the packet, and what is an answer to it                     |
//! | [`tracer`]   | the table that has the kernel tell of it                    |
//! | [`passage`]  | how far it came                                             |
//! | [`words`]    | the same as a sentence                                      |
//!
//! No application sees it: of TCP and ICMP the destination's kernel answers, and a connection never comes about. Of UDP no
//! kernel answers, so the packet is held before it leaves this node or is handed to it. Only to a pod of another node it
//! goes on, with so few hops that it ends where that node would forward it.

mod packet;
mod passage;
mod tracer;
mod words;

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use tokio::time::{Instant, sleep_until, timeout};

use crate::cli::why::ends::{Ends, Place};
use crate::cli::why::look::Look;
use crate::cli::why::pod;
use crate::cni::error::CniError;
use crate::connectivity::probe::{DroppedBy, Outcome, Probe, ProbeAnswer, Traced};
use crate::connectivity::question::{EndKind, Question};
use crate::linux::conntrack::FlowFilter;
use crate::linux::nft::expr::{Expr, Extension};
use crate::linux::nft::rule::Rule;
use crate::linux::nft::table::{Family, Table};
use crate::linux::nft::trace::{TraceEvent, Verdict};
use crate::linux::raw::{self, Opened};
use crate::linux::route::PacketRoute;
use crate::linux::xtables::legacy_tables;
use crate::policy::names::{TCP, UDP};
use packet::ProbePacket;
use passage::{End, Passage, family_word, verdict_word};
use tracer::{Hold, Seen, SeenAt, Tracer};
use words::{Known, tell};

/// How long an answer is waited for: longer than the kernel asks for a next hop's hardware address.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long what follows is waited for: an error after a packet was rejected, and what the kernel tells of an answer.
const AFTERMATH: Duration = Duration::from_millis(300);

/// The end of it, whatever happens.
const DEADLINE: Duration = Duration::from_secs(20);

/// Of a Service with many endpoints.
pub(super) const MOST: usize = 16;

/// Messages that are kept of one packet: rules may send it in circles.
const MOST_SEEN: usize = 4096;

/// Sends the first packet of a flow, and tells what became of it.
pub(super) async fn probe(look: &Look<'_>, question: &Question, ends: &Ends<'_>) -> Probe {
    let skipped = |outcome, why: String| Probe {
        flow: ends.flow,
        outcome,
        sentence: format!("no packet was sent: {why}"),
        remedy: None,
        answer: None,
        dropped_by: None,
        trace: Vec::new(),
    };
    let probing = async {
        let Some(packet) = ProbePacket::new(ends.flow) else {
            return Err((Outcome::Skipped, "of this protocol none can be made".to_owned()));
        };
        let sending = Sending::prepare(look, ends, packet).await?;
        let done = sending.run().await.map_err(|error| (Outcome::Skipped, error.to_string()))?;
        Ok(done.tell(look, question, ends).await)
    };
    match timeout(DEADLINE, probing).await {
        Ok(Ok(probe)) => probe,
        Ok(Err((outcome, why))) => skipped(outcome, why),
        Err(_) => skipped(Outcome::Skipped, format!("the kernel has not answered within {DEADLINE:?}")),
    }
}

/// Why no packet was sent, and what follows from that.
type Unsent = (Outcome, String);

/// Everything that is needed to send.
struct Sending {
    packet: ProbePacket,
    tracer: Tracer,
    sockets: Opened,
    protocol: u8,
    few_hops: bool,
}

/// What was heard.
struct Done {
    packet: ProbePacket,
    seen: Vec<Seen>,
    answer: Option<ProbeAnswer>,
    send_error: Option<io::Error>,
    port: Option<u16>,
    few_hops: bool,
    has_lost: bool,
}

impl Sending {
    async fn prepare(look: &Look<'_>, ends: &Ends<'_>, packet: ProbePacket) -> Result<Self, Unsent> {
        let skip = |why: String| (Outcome::Skipped, why);
        let flow = ends.flow;
        let source = match ends.source.place {
            Place::Elsewhere => {
                let name = &ends.source.asked.name;
                return Err(skip(format!(
                    "{name} is not on this node, and its own node sends it: run the same command there"
                )));
            }
            Place::Pod(_) if !look.can_enter => {
                return Err(skip(
                    "it is sent from inside of the pod's namespace, which cannot be entered from here (that needs \
                     CAP_SYS_ADMIN, which the agent's container does not have): run ferrulectl on the node itself"
                        .to_owned(),
                ));
            }
            Place::Pod(record) => Some(record),
            Place::Node => None,
        };
        let (hold, hops) = hold(look, ends).await;
        let opened = || raw::open_here(flow.protocol, flow.source, flow.destination, hops);
        let opened = match source {
            None => opened(),
            Some(record) => {
                let netns = pod::namespace(record)
                    .map_err(|why| skip(format!("the pod cannot be entered: {why}")))?;
                netns.run(opened).map_err(|error| skip(error.to_string()))?
            }
        };
        let sockets = opened.map_err(|error| refused(&error, ends))?;
        let tracer = Tracer::open(&packet, &flow, &hold).await.map_err(|error| skip(error.to_string()))?;
        Ok(Self { packet, tracer, sockets, protocol: flow.protocol, few_hops: hops.is_some() })
    }

    /// Sends, and listens until nothing more is to be expected. The table is gone when it returns.
    async fn run(self) -> Result<Done, CniError> {
        let Self { mut packet, mut tracer, sockets, protocol, few_hops } = self;
        let failed = |error: io::Error| {
            CniError::new(crate::cni::error::Code::KernelRefused, "cannot send a packet")
                .with_details(error.to_string())
        };
        let socket = sockets.start().map_err(failed)?;
        let port = socket.port();
        if let Some(port) = port {
            packet.set_source_port(port);
        }
        let send_error = socket.send(&packet.bytes()).err();
        let (mut seen, mut answer) = (Vec::new(), None);
        let mut end = Instant::now() + PATIENCE;
        let mut is_ending = false;
        loop {
            let has_ended = answer.is_some() || send_error.is_some() || Passage::forth(&seen).is_stopped();
            if has_ended && !is_ending {
                is_ending = true;
                end = end.min(Instant::now() + AFTERMATH);
            }
            tokio::select! {
                biased;
                () = sleep_until(end) => break,
                it = tracer.next() => {
                    let it = it?;
                    if seen.len() < MOST_SEEN {
                        seen.push(it);
                    }
                }
                it = socket.next(protocol) => answer = answer.or_else(|| packet.judge(&it)),
            }
        }
        let has_lost = tracer.has_lost() || seen.len() >= MOST_SEEN;
        Ok(Done { packet, seen, answer, send_error, port, few_hops, has_lost })
    }
}

/// Which packets must not go on, and how many hosts they may go through.
async fn hold(look: &Look<'_>, ends: &Ends<'_>) -> (Hold, Option<u8>) {
    if ends.flow.protocol != UDP {
        return (Hold::Nothing, None);
    }
    let is_far = !ends.destination.is_here() && ends.destination.asked.kind == EndKind::Pod;
    let link = route(look, ends).await.filter(|it| is_far && !it.local).map(|it| look.link_name(it.device));
    // This node forwards a pod's packet, and the other node does not forward it any more. None decrements its own.
    let hops = link.as_ref().map(|_| if ends.source.pod().is_some() { 2 } else { 1 });
    (Hold::AllBut(link), hops)
}

/// Where the node sends the packet to, as far as its routes say.
async fn route(look: &Look<'_>, ends: &Ends<'_>) -> Option<crate::linux::route::Resolved> {
    let input = ends.source.pod().and_then(|record| look.host_link(record)).map(|link| link.index);
    let packet = PacketRoute { source: Some(ends.flow.source), destination: ends.flow.destination, input };
    look.node.netlink.route_of(packet).await.ok().flatten().map(|(way, _)| way)
}

/// The kernel does not give us the sockets.
fn refused(error: &io::Error, ends: &Ends<'_>) -> Unsent {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    if is(Errno::PERM) || is(Errno::ACCESS) {
        return (Outcome::Skipped, format!("{error}; raw sockets need CAP_NET_RAW"));
    }
    if is(Errno::ADDRNOTAVAIL) {
        let why = format!("{} has not the address {}", ends.source.asked.name, ends.flow.source);
        return (Outcome::Unsent, why);
    }
    let is_wayless = is(Errno::NETUNREACH) || is(Errno::HOSTUNREACH) || is(Errno::INVAL);
    let outcome = if is_wayless { Outcome::Unsent } else { Outcome::Skipped };
    (outcome, format!("{} has no way to {}: {error}", ends.source.asked.name, ends.flow.destination))
}

impl Done {
    async fn tell(self, look: &Look<'_>, question: &Question, ends: &Ends<'_>) -> Probe {
        self.forget(look, ends).await;
        let (forth, back) = (Passage::forth(&self.seen), Passage::back(&self.seen));
        let dropped = match (&forth.end, &back.end) {
            (End::Dropped(event), _) => Some(event),
            (_, End::Dropped(event)) if self.answer.is_none() => Some(event),
            _ => None,
        };
        let dropped_by = match dropped {
            Some(event) => Some(dropped_by(look, event).await),
            None => None,
        };
        let out = match forth.end {
            End::Left(out) | End::Held(_, out) => out,
            _ => None,
        };
        let way = route(look, ends).await.filter(|way| Some(way.device) == out);
        let next_hop = way.and_then(|way| way.gateway);
        let legacy = legacy_tables(ends.flow.source.is_ipv4()).unwrap_or_default();
        let send_error = self.send_error.as_ref().map(ToString::to_string);
        let (outcome, sentence, remedy) = tell(&Known {
            packet: self.packet.word(),
            source: ends.flow.source,
            door: &question.door(&ends.flow),
            node: &ends.source.node_name(look),
            forth: &forth,
            back: &back,
            answer: self.answer.as_ref(),
            dropped_by: dropped_by.as_ref(),
            is_here: ends.destination.is_here(),
            send_error: send_error.as_deref(),
            link: out.map(|out| look.link_name(out)).as_deref(),
            next_hop,
            few_hops: self.few_hops,
            patience: PATIENCE,
            legacy: &legacy,
            has_lost: self.has_lost,
        });
        let trace = self.seen.iter().filter(|it| is_told(it)).map(traced).collect();
        Probe { flow: ends.flow, outcome, sentence, remedy, answer: self.answer, dropped_by, trace }
    }

    /// Has this node forget the flow. Best effort: by itself it goes in two minutes at most.
    async fn forget(&self, look: &Look<'_>, ends: &Ends<'_>) {
        let flow = ends.flow;
        let Some(own) = self.port.filter(|_| [TCP, UDP].contains(&flow.protocol)) else { return };
        let filter = FlowFilter::ToPort {
            ipv4: flow.source.is_ipv4(),
            protocol: flow.protocol,
            port: flow.port,
            address: Some(flow.destination),
        };
        let is_own =
            |it: &crate::linux::conntrack::Flow| it.source == flow.source && it.source_port == Some(own);
        if let Ok(flows) = look.nft.flows_where(filter, is_own).await {
            let _ = look.nft.forget_flows(&flows).await;
        }
    }
}

/// Whether others have a rule or a chain there. That a base chain came to its end is told twice, the second time with its
/// policy.
fn is_told(seen: &Seen) -> bool {
    let TraceEvent { table, rule, verdict, .. } = &seen.event;
    let is_end = rule.is_none() && *verdict == Verdict::Continue;
    seen.place == SeenAt::Chain && !is_end && !table.starts_with(tracer::TABLE)
}

fn traced(seen: &Seen) -> Traced {
    let TraceEvent { family, table, chain, rule, verdict, .. } = &seen.event;
    Traced {
        packet: seen.leg,
        family: family_word(*family).to_owned(),
        table: table.clone(),
        chain: chain.clone(),
        rule: *rule,
        verdict: verdict_word(verdict),
    }
}

/// What is to be said of a rule.
async fn dropped_by(look: &Look<'_>, event: &TraceEvent) -> DroppedBy {
    let TraceEvent { family, table, chain, rule: handle, .. } = event;
    let family_of = [Family::Inet, Family::Ipv4, Family::Ipv6].into_iter().find(|it| it.number() == *family);
    let found = match family_of.zip(*handle) {
        Some((family, handle)) => {
            let table = Table { family, name: table.clone() };
            let rules = look.nft.placed_rules_of(&table, chain).await.unwrap_or_default();
            rules.into_iter().find(|it| it.handle == handle).map(|it| it.rule)
        }
        None => None,
    };
    DroppedBy {
        family: family_word(*family).to_owned(),
        table: table.clone(),
        chain: chain.clone(),
        rule: *handle,
        comment: found.as_ref().and_then(comment_of),
        rejects: found.as_ref().is_some_and(rejects),
    }
}

/// The rule's comment, or that of iptables.
fn comment_of(rule: &Rule) -> Option<String> {
    let of_iptables = rule.exprs.iter().find_map(|it| match it {
        Expr::Extension(extension) => Extension::to_comment(extension).map(str::to_owned),
        _ => None,
    });
    rule.comment.clone().or(of_iptables)
}

fn rejects(rule: &Rule) -> bool {
    rule.exprs.iter().any(|it| match it {
        Expr::Foreign(name) => name == "reject",
        Expr::Extension(extension) => extension.is_target && extension.name == "REJECT",
        _ => false,
    })
}
