//! What an event of the kernel calls to look at.
//!
//! An ADD and a DEL change nothing but the elements of their pod: two maps and two sets are read again, which costs the
//! same whatever the policies are. Whatever else somebody changes in the table has it read and compared as a whole.

use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::desired::names::is_node_link;
use crate::linux::monitor::{Event, SetEvent};
use crate::policy::names::{FROM_POD, OWN4, OWN6, TABLE, TO_POD};

/// `NFPROTO_INET` (include/uapi/linux/netfilter.h).
const FAMILY_INET: u8 = 1;

/// Sets whose elements are those of pods.
const OF_PODS: [&str; 4] = [FROM_POD, TO_POD, OWN4, OWN6];

/// What to look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// The records: a pod may have come or gone.
    pub records: bool,
    /// Where packets of pods are led, and which addresses are their own.
    pub bindings: bool,
    /// All of the table.
    pub whole: bool,
}

impl Look {
    /// All of it.
    pub const ALL: Self = Self { records: true, bindings: true, whole: true };

    /// Whether it is nothing.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            records: self.records || other.records,
            bindings: self.bindings || other.bindings,
            whole: self.whole || other.whole,
        }
    }

    /// What an event calls to look at. `own` is the socket by which the agent changes the table.
    pub fn after(event: &Event, own: u32) -> Self {
        match event {
            Event::Missed => Self::ALL,
            Event::Link { name, .. } if is_node_link(name) => Self { records: true, ..Self::default() },
            Event::Nftables { family: FAMILY_INET, table: Some(table), set, port, .. }
                if table == TABLE && *port != own =>
            {
                let is_of_pods = |set: &SetEvent| set.is_element && OF_PODS.contains(&set.name.as_str());
                let whole = !set.as_ref().is_some_and(is_of_pods);
                Self { records: true, bindings: true, whole }
            }
            _ => Self::default(),
        }
    }
}

/// Tells the task what to look at. Never waits, and forgets nothing.
#[derive(Debug, Default)]
pub struct Signal {
    waiting: Mutex<Look>,
    told: Notify,
}

impl Signal {
    /// Has this looked at.
    pub fn tell(&self, look: Look) {
        if !look.is_nothing() {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            *waiting = waiting.or(look);
            self.told.notify_one();
        }
    }

    /// Waits until something is to be looked at. Cancel safe.
    pub fn told(&self) -> Notified<'_> {
        self.told.notified()
    }

    /// What to look at; nothing, if that was taken already.
    pub fn take(&self) -> Look {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nftables(table: &str, set: Option<(&str, bool)>, port: u32) -> Event {
        let set = set.map(|(name, is_element)| SetEvent { name: name.to_owned(), is_element });
        Event::Nftables { family: 1, table: Some(table.to_owned()), chain: None, set, removed: false, port }
    }

    #[test]
    fn a_pod_costs_its_maps_and_sets_and_anything_else_the_whole() {
        let look = |event: &Event| Look::after(event, 7);
        let pods = Look { records: true, bindings: true, whole: false };
        assert_eq!(look(&nftables(TABLE, Some((TO_POD, true)), 9)), pods);
        assert_eq!(look(&nftables(TABLE, Some((OWN6, true)), 9)), pods);
        assert_eq!(look(&nftables(TABLE, Some((TO_POD, false)), 9)), Look::ALL, "the map itself");
        assert_eq!(look(&nftables(TABLE, Some(("peers-1-4", true)), 9)), Look::ALL);
        assert_eq!(look(&nftables(TABLE, None, 9)), Look::ALL, "a chain, a rule, the table");
        assert_eq!(look(&nftables(TABLE, None, 7)), Look::default(), "the agent's own");
        assert_eq!(look(&nftables("ferrule", None, 9)), Look::default());
        let link =
            |name: &str| Event::Link { index: 5, name: name.to_owned(), up: true, mtu: 1500, removed: false };
        assert_eq!(look(&link("veth0123456789a")), Look { records: true, ..Look::default() });
        assert_eq!(look(&link("eth0")), Look::default());
        assert_eq!(look(&Event::Missed), Look::ALL);
    }
}
