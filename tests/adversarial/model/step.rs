//! The language of a sequence: what may happen to a network on its node, one step a line.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

/// How many pods there are: more than any range has room for.
pub const PODS: u8 = 6;

/// One of them. It keeps its container id, also when it died and comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod(pub u8);

impl Pod {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PODS).map(Self)
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", char::from(b'a' + self.0))
    }
}

/// What a runtime asks for.
#[derive(Debug, Clone)]
pub enum Command {
    Add(Pod),
    Del(Pod),
    Check(Pod),
    /// With the pods that the runtime lists as valid.
    Gc(BTreeSet<Pod>),
}

impl Command {
    /// Whether the command takes the pod's attachment away, if it has one.
    pub fn removes(&self, pod: Pod) -> bool {
        match self {
            Self::Del(deleted) => *deleted == pod,
            Self::Gc(valid) => !valid.contains(&pod),
            Self::Add(_) | Self::Check(_) => false,
        }
    }

    /// Whether the command is an ADD of this pod.
    pub fn adds(&self, pod: Pod) -> bool {
        matches!(self, Self::Add(added) if *added == pod)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(pod) => write!(f, "ADD {pod}"),
            Self::Del(pod) => write!(f, "DEL {pod}"),
            Self::Check(pod) => write!(f, "CHECK {pod}"),
            Self::Gc(valid) if valid.is_empty() => f.write_str("GC, nothing is valid"),
            Self::Gc(valid) => {
                let valid: Vec<String> = valid.iter().map(Pod::to_string).collect();
                write!(f, "GC, valid: {}", valid.join(" "))
            }
        }
    }
}

/// The conf that commands are given from now on. The subnets stay; the ranges in them do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conf {
    /// Which of [`RANGES`].
    pub ranges: usize,
    /// MTU of new pods.
    pub mtu: u16,
    /// Whether new pods have a route of their own beside the default ones.
    pub has_route: bool,
}

/// First and last address of IPv4 and of IPv6, as the last number of each. Four pods have room; two, because the
/// range shrank; two, because IPv6 ends before IPv4 does, and half of the range is another.
const RANGES: [[(u8, u8); 2]; 3] = [[(10, 13), (16, 20)], [(10, 11), (16, 18)], [(12, 15), (18, 19)]];

impl Conf {
    /// The one that every sequence begins with.
    pub const FIRST: Self = Self { ranges: 0, mtu: 1500, has_route: false };

    /// First and last address of each range set.
    pub fn bounds(self) -> [(IpAddr, IpAddr); 2] {
        let [(first4, last4), (first6, last6)] = RANGES[self.ranges];
        let four = |last: u8| IpAddr::from(Ipv4Addr::new(10, 88, 0, last));
        let six = |last: u8| IpAddr::from(Ipv6Addr::new(0xfd00, 0x88, 0, 0, 0, 0, 0, last.into()));
        [(four(first4), four(last4)), (six(first6), six(last6))]
    }

    /// The addresses of each range set.
    pub fn room(self) -> Vec<BTreeSet<IpAddr>> {
        let addresses = |(first, last): (IpAddr, IpAddr)| match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                (first.to_bits()..=last.to_bits()).map(|bits| Ipv4Addr::from_bits(bits).into()).collect()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                (first.to_bits()..=last.to_bits()).map(|bits| Ipv6Addr::from_bits(bits).into()).collect()
            }
            _ => unreachable!("a range has one family"),
        };
        self.bounds().map(addresses).into()
    }
}

/// One step.
#[derive(Debug, Clone)]
pub enum Step {
    /// A command, from its beginning to its end.
    Run(Command),
    /// Commands that begin together.
    AtOnce(Vec<Command>),
    /// A command that is killed before its n-th change, if it has as many; if not, it comes to its end.
    Kill(Command, u16),
    /// The pod's namespace is removed, and nobody sends a DEL.
    Die(Pod),
    /// The pod's link is removed by hand.
    Unplug(Pod),
    /// The node boots: the kernel has nothing, the disk has what it had.
    Reboot,
    /// Another conf.
    Reconfigure(Conf),
    /// So many half minutes pass: as long as an address rests that was freed.
    Wait(u16),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(command) => write!(f, "{command}"),
            Self::AtOnce(commands) => {
                let commands: Vec<String> = commands.iter().map(Command::to_string).collect();
                write!(f, "at once: {}", commands.join(" | "))
            }
            Self::Kill(command, at) => write!(f, "{command}, killed at {at}"),
            Self::Die(pod) => write!(f, "the namespace of {pod} goes"),
            Self::Unplug(pod) => write!(f, "the link of {pod} is removed by hand"),
            Self::Reboot => f.write_str("reboot"),
            Self::Reconfigure(conf) => {
                let [(first4, last4), (first6, last6)] = conf.bounds();
                let route = if conf.has_route { ", one more route" } else { "" };
                write!(f, "new conf: {first4}-{last4}, {first6}-{last6}, mtu {}{route}", conf.mtu)
            }
            Self::Wait(halves) => write!(f, "{} seconds pass", 30 * halves),
        }
    }
}

fn any_pod() -> impl Strategy<Value = Pod> {
    (0..PODS).prop_map(Pod)
}

fn any_command() -> impl Strategy<Value = Command> {
    let some = (0_u8..1 << PODS).prop_map(|bits| Pod::all().filter(|pod| bits & 1 << pod.0 != 0).collect());
    // The first of them is what a failure shrinks to.
    prop_oneof![
        8 => any_pod().prop_map(Command::Add),
        4 => any_pod().prop_map(Command::Del),
        2 => any_pod().prop_map(Command::Check),
        1 => some.prop_map(Command::Gc),
    ]
}

fn any_conf() -> impl Strategy<Value = Conf> {
    let fields = (0..RANGES.len(), prop::sample::select(vec![1500, 1400]), any::<bool>());
    fields.prop_map(|(ranges, mtu, has_route)| Conf { ranges, mtu, has_route })
}

/// Any step; a command may be killed before any of its first `kills` changes, and more often before one of the first
/// of them, as most have few.
pub fn any_step(kills: u16) -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => any_command().prop_map(Step::Run),
        3 => any_pod().prop_map(Step::Die),
        1 => any_pod().prop_map(Step::Unplug),
        1 => Just(Step::Reboot),
        2 => any_conf().prop_map(Step::Reconfigure),
        1 => (1_u16..4).prop_map(Step::Wait),
        5 => (any_command(), 0..kills, 1_u16..5).prop_map(|(command, at, part)| Step::Kill(command, at / part)),
        4 => vec(any_command(), 2..6).prop_map(Step::AtOnce),
    ]
}
