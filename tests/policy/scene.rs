//! A node with three pods and a host outside, and plans for them.

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrule::datapath::policy::{self, Applied, Attached, Mirror};
use ferrule::linux::nfnetlink::Nfnetlink;
use ferrule::policy::content::{PortContent, Segment, digest_of};
use ferrule::policy::names;
use ferrule::policy::plan::{
    Action, Chain, ChainRule, Direction, HoldPlan, Isolation, Members, PeerMatch, Plan, PodPlan, PortRules,
    Tiers, Touched,
};

use crate::nftables::table::world::{Pod, World};
use kit::block_on;
use kit::netns::{Namespace, inside};
use kit::traffic::{BRIEF, tcp};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// The pods `a` (10.244.1.10), `b` (.11) and `c` (.12) of the namespace `shop`, and what the table is known to be.
pub struct Scene {
    pub world: World,
    pub a: Pod,
    pub b: Pod,
    pub c: Pod,
    pub nft: Nfnetlink,
    mirror: Mirror,
}

impl Scene {
    pub fn new() -> Self {
        let world = World::new();
        let (a, b, c) = (world.pod("a", 10), world.pod("b", 11), world.pod("c", 12));
        let nft = world.nft();
        Self { world, a, b, c, nft, mirror: Mirror::default() }
    }

    pub fn node(&self) -> &Namespace {
        &self.world.node
    }

    /// All three, as their records would say.
    pub fn attached(&self) -> Vec<Attached> {
        [&self.a, &self.b, &self.c].map(attached).to_vec()
    }

    /// Makes the table what the plan says.
    pub fn apply(&mut self, plan: &Plan) -> Applied {
        self.apply_touched(plan, &all())
    }

    /// The same, where no more is touched.
    pub fn apply_touched(&mut self, plan: &Plan, touched: &Touched) -> Applied {
        let attached = self.attached();
        let applied = policy::apply(
            &self.nft,
            &mut self.mirror,
            plan,
            touched,
            &attached,
            ferrule::datapath::policy::Unknown::Open,
        );
        block_on(applied).unwrap()
    }

    /// The same, and how often whoever has the thread meanwhile could work, and the longest that he had to wait.
    pub fn apply_beside_others(&mut self, plan: &Plan) -> (Applied, usize, Duration) {
        let (attached, touched) = (self.attached(), all());
        let unknown = ferrule::datapath::policy::Unknown::Open;
        let mut apply = pin!(policy::apply(&self.nft, &mut self.mirror, plan, &touched, &attached, unknown));
        let (mut turns, mut longest) = (0, Duration::ZERO);
        let applied = block_on(poll_fn(|context| {
            let begin = Instant::now();
            let outcome = apply.as_mut().poll(context);
            (turns, longest) = (turns + 1, longest.max(begin.elapsed()));
            outcome
        }));
        (applied.unwrap(), turns, longest)
    }

    /// Reads what is there, as an agent does that starts.
    pub fn read(&mut self) {
        self.mirror = block_on(policy::read(&self.nft)).unwrap();
    }

    /// Where the table, read afresh, is not what the plan says.
    pub fn differences(&self, plan: &Plan) -> Vec<String> {
        block_on(policy::read(&self.nft)).unwrap().differences(plan)
    }

    /// Whether it was made, or read, as that of a kernel without a log.
    pub fn is_untold(&self) -> bool {
        self.mirror.is_untold()
    }

    pub fn try_to_tell(&mut self) {
        self.mirror.try_to_tell();
    }

    /// Packets that no rule allows in.
    pub fn denied_in(&self) -> u64 {
        block_on(policy::denied(&self.nft, Direction::Ingress)).unwrap()
    }

    pub fn generation(&self) -> u32 {
        block_on(self.nft.generation()).unwrap()
    }

    /// What `nft` prints of the table; empty if there is none.
    pub fn list(&self, flags: &str) -> String {
        let tables = self.world.list("list tables");
        if !tables.contains("ferrule-policy") {
            return String::new();
        }
        self.world.list(format!("{flags} list table inet ferrule-policy").trim_start())
    }

    /// Has `nft` do something.
    pub fn nft(&self, words: &str) {
        kit::nft::run(self.node(), words).unwrap();
    }
}

pub fn attached(pod: &Pod) -> Attached {
    let name = pod.host_link.trim_start_matches("veth");
    Attached {
        uid: uid(name),
        name: format!("shop/{name}"),
        link: pod.host_link.clone(),
        addresses: pod.addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

pub fn uid(name: &str) -> String {
    format!("00000000-0000-4000-8000-00000000000{name}")
}

pub fn all() -> Touched {
    Touched::everything()
}

/// Whether a server there answers by TCP.
pub fn connects(from: &Namespace, to: &str, port: u16) -> bool {
    tcp(from, to, port).is_some()
}

/// Whether a connection is not even refused. What is slow is taken for denied: ask [`connects`] as well.
pub fn denied(from: &Namespace, to: &str, port: u16) -> bool {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    inside(from, || {
        TcpStream::connect_timeout(&to, BRIEF).is_err_and(|error| error.kind() == ErrorKind::TimedOut)
    })
}

/// The same from an address of one's own choice.
pub fn denied_from(from: &Namespace, source: &str, to: &str, port: u16) -> bool {
    let (source, to) =
        (SocketAddr::new(source.parse().unwrap(), 0), SocketAddr::new(to.parse().unwrap(), port));
    inside(from, || {
        block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(source).unwrap();
            tokio::time::timeout(BRIEF, socket.connect(to)).await.is_err()
        })
    })
}

/// A rule for whoever.
pub fn anyone() -> ChainRule {
    ChainRule { peer: PeerMatch::Any, comment: "shop/open ingress[0]".into(), action: Action::Accept }
}

/// A rule for the members of a set.
pub fn peers(set: &str) -> ChainRule {
    ChainRule {
        peer: PeerMatch::Address(set.into()),
        comment: "shop/peers ingress[0]".into(),
        action: Action::Accept,
    }
}

pub fn port(protocol: u8, port: u16, rules: &[ChainRule]) -> PortRules {
    range(protocol, port, port, rules)
}

/// Is named when its chain is.
pub fn range(protocol: u8, first: u16, last: u16, rules: &[ChainRule]) -> PortRules {
    PortRules { chain: "".into(), protocol, first, last, rules: rules.into() }
}

/// The chain of a port of the direction in.
pub fn port_chain(protocol: u8, port: u16, rules: &[ChainRule]) -> String {
    names::port_chain(&digest_of(Direction::Ingress, rules), protocol, port, port)
}

/// Makes a plan, piece by piece.
#[derive(Default, Clone)]
pub struct Planning(pub Plan);

impl Planning {
    pub fn pods(mut self, base: &str, addresses: &[&str]) -> Self {
        let addresses: Vec<IpAddr> = addresses.iter().map(|it| it.parse().unwrap()).collect();
        for (suffix, is_ipv4) in [("4", true), ("6", false)] {
            let of_family = addresses.iter().filter(|it| it.is_ipv4() == is_ipv4).copied().collect();
            self.0.sets.insert(format!("{base}{suffix}"), Members::Pods(of_family));
        }
        self
    }

    pub fn named_ports(mut self, base: &str, ports: &[(&str, u8, u16)]) -> Self {
        let ports: Vec<(IpAddr, u8, u16)> = ports
            .iter()
            .map(|(address, protocol, port)| (address.parse().unwrap(), *protocol, *port))
            .collect();
        for (suffix, is_ipv4) in [("4", true), ("6", false)] {
            let of_family = ports.iter().filter(|it| it.0.is_ipv4() == is_ipv4).copied().collect();
            self.0.sets.insert(format!("{base}{suffix}"), Members::Ports(of_family));
        }
        self
    }

    pub fn blocks(mut self, name: &str, blocks: &[(&str, &str)]) -> Self {
        let block = |(first, last): &(&str, &str)| -> RangeInclusive<IpAddr> {
            first.parse().unwrap()..=last.parse().unwrap()
        };
        self.0.sets.insert(name.into(), Members::Blocks(blocks.iter().map(block).collect()));
        self
    }

    pub fn chain(mut self, name: &str, ports: &[PortRules], rules: &[ChainRule]) -> Self {
        let direction = if name.starts_with("pi") { Direction::Ingress } else { Direction::Egress };
        let named = |it: &PortRules| Segment {
            protocol: it.protocol,
            first: it.first,
            last: it.last,
            content: Arc::new(PortContent::new(direction, it.rules.to_vec(), Vec::new())),
        };
        let ports = ports.iter().map(named).collect();
        let chain = Chain::new(direction, ports, rules.to_vec(), vec!["shop/p".into()], None);
        self.0.chains.insert(name.into(), chain);
        self
    }

    /// A pod with its chains; empty: not isolated.
    pub fn pod(mut self, name: &str, ingress: &str, egress: &str) -> Self {
        let [ingress, egress] = [ingress, egress].map(isolation);
        let pod = PodPlan { name: format!("shop/{name}"), ingress, egress, tiers: Tiers::default() };
        self.0.pods.insert(uid(name), pod);
        self
    }

    pub fn hold(mut self, ingress: &str, egress: &str) -> Self {
        let [ingress, egress] = [ingress, egress].map(isolation);
        self.0.holds.insert("shop".into(), HoldPlan { ingress, egress, tiers: Tiers::default() });
        self
    }
}

fn isolation(word: &str) -> Isolation {
    match word {
        "" => Isolation::Open,
        "none" => Isolation::None,
        "closed" => Isolation::Closed,
        chain => Isolation::Rules(chain.to_owned()),
    }
}
