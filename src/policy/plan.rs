//! What the table `inet ferrule-policy` of this node must be, as data: what planning makes, what is written into the
//! kernel, what is kept on disk, and what is walked to say why.
//!
//! ```text
//! link --from_pod|to_pod--> in-<uid> --goto--> pi-<hash>: by port: vmap, jump to that port's rules: pp-<hash>-tcp-80
//!                                                          rules for all ports
//!                                                          goto denied_in
//! rule = one look-up of the other end's address in a set, or none; then accept
//! ```
//!
//! Where ClusterNetworkPolicies have a say, chains of their tiers stand before and behind that of NetworkPolicies
//! ([`Way`]). Their rules are in order, and accept, deny or pass on ([`Action`]).
//!
//! A chain of rules ([`Chain`]) is named by a hash of its content and never changed. A set of pods ([`Members::Pods`]) is
//! named by what selects its members, so its elements change; a set of blocks is named by its content.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Seen from the pod that is isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// Who decides when about a connection. What a tier decides is final, but for [`Action::Pass`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// ClusterNetworkPolicies that nobody overrules.
    Admin,
    /// NetworkPolicies.
    #[default]
    NetworkPolicy,
    /// ClusterNetworkPolicies for what no NetworkPolicy isolates.
    Baseline,
}

impl Tier {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Baseline => "Baseline",
        }
    }

    fn is_of_namespaces(&self) -> bool {
        *self == Self::NetworkPolicy
    }
}

/// What the table must be. What is in `sets` and `chains` is what something refers to, and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Sets by their name, which ends in `4` or `6`.
    pub sets: BTreeMap<String, Members>,
    /// Chains of rules by their name: `pi-<hash>` of ingress, `po-<hash>` of egress; those of the tiers Admin and Baseline
    /// `ai-`, `ao-`, `bi-`, `bo-`.
    pub chains: BTreeMap<String, Chain>,
    /// This node's pods by uid: those of namespaces in which a policy isolates somebody, isolated or not.
    pub pods: BTreeMap<String, PodPlan>,
    /// What unknown pods have, by namespace: of those in which a policy isolates somebody.
    pub holds: BTreeMap<String, HoldPlan>,
}

/// The chains of one pod of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPlan {
    /// `namespace/name`, for people.
    pub name: String,
    /// Whether its namespace has a policy of that direction at all, and the chain of rules; see [`Isolation`].
    pub ingress: Isolation,
    /// Likewise of egress.
    pub egress: Isolation,
    /// What ClusterNetworkPolicies have around that.
    #[serde(default, skip_serializing_if = "Tiers::is_empty")]
    pub tiers: Tiers,
}

impl PodPlan {
    /// Whether it is isolated, in one direction or both, or ClusterNetworkPolicies have a say.
    pub fn is_isolated(&self) -> bool {
        self.ingress.isolates() || self.egress.isolates() || !self.tiers.is_empty()
    }

    /// All that decides about packets of one direction.
    pub fn way(&self, direction: Direction) -> Way<'_> {
        Way::of(self.of(direction), self.tiers.of(direction))
    }

    /// Of one direction.
    pub fn of(&self, direction: Direction) -> &Isolation {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// What a pod, or one that is held, has in one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Isolation {
    /// No policy of its namespace isolates anybody in this direction.
    #[default]
    None,
    /// It is not isolated, and others of its namespace are.
    Open,
    /// Its chain leads to this chain of rules.
    Rules(String),
    /// One of its policies cannot be compiled: its chain leads to `denied_in` or `denied_out` at once.
    Closed,
}

impl Isolation {
    /// Whether packets of this direction are judged.
    pub fn isolates(&self) -> bool {
        matches!(self, Self::Rules(_) | Self::Closed)
    }
}

/// What a pod that the agent does not know yet has, in the directions in which somebody of its namespace is isolated:
/// never [`Isolation::Open`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldPlan {
    /// Of ingress.
    pub ingress: Isolation,
    /// Of egress.
    pub egress: Isolation,
    /// What ClusterNetworkPolicies have around that.
    #[serde(default, skip_serializing_if = "Tiers::is_empty")]
    pub tiers: Tiers,
}

impl HoldPlan {
    /// Whether pods that it holds are isolated, in one direction or both, or ClusterNetworkPolicies have a say.
    pub fn is_isolated(&self) -> bool {
        self.ingress.isolates() || self.egress.isolates() || !self.tiers.is_empty()
    }

    /// All that decides about packets of one direction.
    pub fn way(&self, direction: Direction) -> Way<'_> {
        let around = self.tiers.of(direction);
        // If no NetworkPolicy isolates the pod, which is not known yet, Baseline judges that.
        Way { own_passes: !around.baseline.isolates(), ..Way::of(self.of(direction), around) }
    }

    /// Of one direction.
    pub fn of(&self, direction: Direction) -> &Isolation {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// What ClusterNetworkPolicies have around NetworkPolicies, in each direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiers {
    /// Of ingress.
    #[serde(default)]
    pub ingress: Around,
    /// Of egress.
    #[serde(default)]
    pub egress: Around,
}

/// The chains of the two tiers in one direction: [`Isolation::None`] where no policy of the tier selects the pod,
/// [`Isolation::Closed`] where they are too large together. Never [`Isolation::Open`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Around {
    /// Before NetworkPolicies.
    #[serde(default)]
    pub admin: Isolation,
    /// Where no NetworkPolicy isolates the pod.
    #[serde(default)]
    pub baseline: Isolation,
}

impl Tiers {
    /// Whether no policy selects the pod.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Of one direction.
    pub fn of(&self, direction: Direction) -> &Around {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// All four.
    pub fn all_mut(&mut self) -> [&mut Isolation; 4] {
        let Self { ingress, egress } = self;
        [&mut ingress.admin, &mut ingress.baseline, &mut egress.admin, &mut egress.baseline]
    }

    /// All four.
    pub fn all(&self) -> [&Isolation; 4] {
        [&self.ingress.admin, &self.ingress.baseline, &self.egress.admin, &self.egress.baseline]
    }
}

/// What packets of one direction meet, in order. A tier that decides ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way<'p> {
    /// The tier Admin.
    pub admin: &'p Isolation,
    /// NetworkPolicies, which always decide about pods that they isolate.
    pub policies: &'p Isolation,
    /// The tier Baseline, which therefore is asked about other pods only.
    pub baseline: &'p Isolation,
    /// Whether what a pod that NetworkPolicies isolate sends to itself passes them.
    pub own_passes: bool,
}

impl<'p> Way<'p> {
    fn of(policies: &'p Isolation, around: &'p Around) -> Self {
        let none = &Isolation::None;
        let baseline = if policies.isolates() { none } else { &around.baseline };
        Self { admin: &around.admin, policies, baseline, own_passes: true }
    }

    /// Whether packets are judged at all.
    pub fn isolates(&self) -> bool {
        [self.admin, self.policies, self.baseline].into_iter().any(Isolation::isolates)
    }

    /// Whether a ClusterNetworkPolicy has a say.
    pub fn has_tiers(&self) -> bool {
        self.admin.isolates() || self.baseline.isolates()
    }
}

impl Plan {
    /// Whether a ClusterNetworkPolicy has a say about any pod: then what a pod sends to itself, by its own Service, is
    /// judged as well.
    pub fn has_tiers(&self) -> bool {
        let pods = self.pods.values().map(|it| &it.tiers);
        pods.chain(self.holds.values().map(|it| &it.tiers)).any(|it| !it.is_empty())
    }
}

/// A chain of rules, which ends in `denied_in` or `denied_out`; that of a tier ends where it was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Which of them.
    pub direction: Direction,
    /// Rules by port; disjoint, in order. Without one that is a range the map is a hash.
    pub ports: Vec<PortRules>,
    /// What `ports` are cut into where they are many: runs of them, in order. So a change of one port makes one group's
    /// map anew, and not that of a thousand ports.
    pub groups: Vec<PortGroup>,
    /// Rules for all ports of all protocols; they come after those of the port.
    pub rules: Vec<ChainRule>,
    /// The policies whose rules these are, `namespace/name`, for people.
    pub policies: Vec<String>,
    /// Whose rules these are. Of a ClusterNetworkPolicy's the rules of a port are all that are asked there.
    #[serde(default, skip_serializing_if = "Tier::is_of_namespaces")]
    pub tier: Tier,
}

/// Ports that have a map of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortGroup {
    /// The chain with that map, `pg-<hash>`, named by what is in it.
    pub chain: String,
    /// How many of [`Chain::ports`].
    pub ports: usize,
}

/// The rules of one port or of one range of ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRules {
    /// Their chain, `pp-<hash>-tcp-80`, named by what is in it: chains of rules share it.
    #[serde(with = "shared")]
    pub chain: Arc<str>,
    /// An `IPPROTO_*`.
    pub protocol: u8,
    /// First port, 0 with `last` 65535: all of the protocol.
    pub first: u16,
    /// Last port, included.
    pub last: u16,
    /// What is allowed there. Kept with the policy's rule and shared, so that a plan of thousands of ports is made, and
    /// copied, quickly.
    #[serde(with = "shared")]
    pub rules: Arc<[ChainRule]>,
}

impl PortRules {
    /// Whether a port is one of these.
    pub fn is_about(&self, protocol: u8, port: u16) -> bool {
        self.protocol == protocol && (self.first..=self.last).contains(&port)
    }
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It passes.
    #[default]
    Accept,
    /// It is denied.
    Deny,
    /// The next tier decides.
    Pass,
}

impl Action {
    fn is_accept(&self) -> bool {
        *self == Self::Accept
    }
}

/// One rule. NetworkPolicies have only such that accept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChainRule {
    /// The other end.
    pub peer: PeerMatch,
    /// `namespace/policy ingress[0]`, one or several, for people.
    pub comment: String,
    /// What becomes of that.
    #[serde(default, skip_serializing_if = "Action::is_accept")]
    pub action: Action,
}

/// What of a packet's other end (source of ingress, destination of egress) must be where.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PeerMatch {
    /// Whoever.
    Any,
    /// Its address is in the set of that name with `4` or `6` added; either may be missing from the plan: nobody.
    Address(String),
    /// Its address, protocol and port are, likewise. Of egress by a named port only.
    AddressAndPort(String),
}

/// What is in a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Members {
    /// Addresses of pods. A hash; its name says what selects them.
    Pods(BTreeSet<IpAddr>),
    /// Addresses, protocols and ports of pods. A hash; likewise.
    Ports(BTreeSet<(IpAddr, u8, u16)>),
    /// Addresses, disjoint and not even adjacent, in order. Intervals; the name is a hash of them.
    Blocks(Vec<RangeInclusive<IpAddr>>),
}

/// What of a plan may differ from when that was last asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Anything: compare the whole.
    pub all: bool,
    /// Names of sets whose members changed, that came, or that went.
    pub sets: BTreeSet<String>,
    /// Of sets of pods among them, the addresses that came or went; of a set that is not here any may have. So that a change
    /// of one of 150,000 costs what one costs.
    pub moved: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Uids of pods.
    pub pods: BTreeSet<String>,
    /// Namespaces whose hold changed.
    pub holds: BTreeSet<String>,
}

impl Touched {
    /// Anything may differ.
    pub fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }
}

/// What is shared in memory is written each time.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize + ?Sized, S: Serializer>(
        value: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: ?Sized, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error>
    where
        Box<T>: Deserialize<'de>,
    {
        Box::deserialize(deserializer).map(Arc::from)
    }
}
