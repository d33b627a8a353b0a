//! How far a packet came, by what the kernel told of it. Pure.

use crate::cli::why::probe::tracer::{Seen, SeenAt};
use crate::connectivity::probe::Leg;
use crate::linux::nft::trace::{TraceEvent, Verdict};

/// The way of a packet through this node's hooks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Passage {
    /// Hooks that it came to the end of, in order.
    pub hooks: Vec<&'static str>,
    /// How that ended.
    pub end: End,
    /// Whether it was inside of a tunnel's packet at the end.
    pub in_tunnel: bool,
}

/// How it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum End {
    /// It was not seen at all.
    #[default]
    Unseen,
    /// A rule or a policy dropped it.
    Dropped(TraceEvent),
    /// A program or another hook has taken it, and has not given it back.
    Taken(TraceEvent),
    /// We held it at the end of a hook; index of the link that it would leave by.
    Held(&'static str, Option<u32>),
    /// It left by a link, by its index.
    Left(Option<u32>),
    /// It was handed to this node.
    Arrived,
    /// It was last seen at the beginning (`false`) or the end of a hook.
    LastSeen(&'static str, bool),
}

impl Passage {
    /// That of the packet and of what carries it.
    pub(super) fn forth(seen: &[Seen]) -> Self {
        Self::of(seen, &[Leg::Forth, Leg::ForthInTunnel])
    }

    /// That of its answer, an error among them.
    pub(super) fn back(seen: &[Seen]) -> Self {
        Self::of(seen, &[Leg::Back, Leg::BackInTunnel, Leg::Error])
    }

    fn of(seen: &[Seen], legs: &[Leg]) -> Self {
        let mut passage = Self::default();
        for it in seen.iter().filter(|it| legs.contains(&it.leg)) {
            passage.go_on(it);
        }
        passage
    }

    /// It was seen again.
    fn go_on(&mut self, seen: &Seen) {
        if matches!(self.end, End::Dropped(_) | End::Held(..)) {
            return;
        }
        let out = seen.event.out_device;
        self.in_tunnel = matches!(seen.leg, Leg::ForthInTunnel | Leg::BackInTunnel);
        self.end = match seen.place {
            SeenAt::Held(hook) => End::Held(hook, out),
            SeenAt::Hook(hook, is_last) => {
                if is_last && !self.hooks.contains(&hook) {
                    self.hooks.push(hook);
                }
                match (hook, is_last) {
                    // The links are told with the first message of a chain, which of ours has one or two.
                    ("postrouting", true) => match self.end {
                        End::Left(by) => End::Left(out.or(by)),
                        _ => End::Left(out),
                    },
                    ("input", true) => End::Arrived,
                    _ => End::LastSeen(hook, is_last),
                }
            }
            SeenAt::Chain => match seen.event.verdict {
                Verdict::Drop => End::Dropped(seen.event.clone()),
                Verdict::Queue | Verdict::Stolen => End::Taken(seen.event.clone()),
                // It goes on behind the place where it was seen.
                _ => return,
            },
        };
    }

    /// Whether nothing more is to be heard of it on this node.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.end, End::Dropped(_) | End::Held(..))
    }

    /// Whether it was seen.
    pub(super) fn is_seen(&self) -> bool {
        self.end != End::Unseen
    }
}

/// The verdict as `nft` has it.
pub(super) fn verdict_word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Stolen => "stolen".to_owned(),
        Verdict::Queue => "queue".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
        Verdict::Other(code) => format!("verdict {code}"),
    }
}

/// `NFPROTO_*` as `nft` has it.
pub(super) fn family_word(family: u8) -> &'static str {
    match family {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(leg: Leg, place: SeenAt, verdict: Verdict, out: Option<u32>) -> Seen {
        let (table, chain) = ("t".to_owned(), "c".to_owned());
        let event = TraceEvent {
            id: 1,
            family: 1,
            table,
            chain,
            rule: Some(3),
            verdict,
            in_device: None,
            out_device: out,
        };
        Seen { leg, place, event }
    }

    fn hook(leg: Leg, name: &'static str, is_last: bool) -> Seen {
        let out = (name == "postrouting").then_some(5);
        seen(leg, SeenAt::Hook(name, is_last), Verdict::Accept, out)
    }

    #[test]
    fn a_packet_is_where_it_was_seen_last() {
        use Leg::{Back, Forth, ForthInTunnel};
        let mut all = vec![hook(Forth, "prerouting", false), hook(Forth, "prerouting", true)];
        assert_eq!(Passage::forth(&all).end, End::LastSeen("prerouting", true));
        all.push(hook(Forth, "forward", false));
        all.push(seen(Forth, SeenAt::Chain, Verdict::Continue, None));
        assert_eq!(Passage::forth(&all).end, End::LastSeen("forward", false));
        let mut dropped = all.clone();
        dropped.push(seen(Forth, SeenAt::Chain, Verdict::Drop, None));
        let passage = Passage::forth(&dropped);
        assert!(matches!(passage.end, End::Dropped(_)) && passage.is_stopped());
        assert_eq!(passage.hooks, ["prerouting"]);
        all.extend([hook(Forth, "forward", true), hook(Forth, "postrouting", true)]);
        assert_eq!(Passage::forth(&all).end, End::Left(Some(5)));
        assert!(!Passage::back(&all).is_seen());
        all.push(hook(ForthInTunnel, "output", true));
        let passage = Passage::forth(&all);
        assert_eq!((passage.end, passage.in_tunnel), (End::LastSeen("output", true), true));
        all.push(hook(Back, "input", true));
        assert_eq!(Passage::back(&all).end, End::Arrived);
    }

    #[test]
    fn what_a_program_has_taken_goes_on_if_it_gives_it_back() {
        let mut all = vec![seen(Leg::Forth, SeenAt::Chain, Verdict::Queue, None)];
        assert!(matches!(Passage::forth(&all).end, End::Taken(_)));
        all.push(hook(Leg::Forth, "forward", true));
        assert_eq!(Passage::forth(&all).end, End::LastSeen("forward", true));
        all.push(seen(Leg::Forth, SeenAt::Held("postrouting"), Verdict::Drop, Some(7)));
        assert_eq!(Passage::forth(&all).end, End::Held("postrouting", Some(7)));
    }
}
