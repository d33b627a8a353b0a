//! How much a pod may send and receive, as runtimes tell it (capability `bandwidth`).
//!
//! The keys and their units are those of the reference plugin `bandwidth`, directions seen from the pod: rates in
//! bits per second, bursts in bits, 0 for none.

use crate::cni::json::Node;

/// Bursts from here on are no wish of anybody's. Kubernetes' annotations name a rate only, and runtimes fill in
/// the largest number that they have: containerd `MaxUint32`, CRI-O `MaxInt32`. Taken at its word, that would let a
/// pod of 10 Mbit/s send half a gigabyte before it is slowed down.
const BURST_UNSAID: u64 = i32::MAX as u64;

/// Slowest rate: a byte a second.
const RATE_MIN: u64 = 8;

/// Both directions; without a limit each unless said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// `ingressRate`, `ingressBurst`: what the pod receives.
    pub ingress: Option<Limit>,
    /// `egressRate`, `egressBurst`: what the pod sends.
    pub egress: Option<Limit>,
}

/// A limit of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Bits per second; 8 at least.
    pub rate: u64,
    /// Bits that may go at once after a rest; `None` where the runtime has no opinion.
    pub burst: Option<u64>,
}

impl Bandwidth {
    /// Reads `runtimeConfig.bandwidth`.
    pub(super) fn read(root: &Node<'_, '_>) -> Self {
        let read = |runtime: Node<'_, '_>| {
            let bandwidth = runtime.object("bandwidth")?;
            let ingress = read_limit(&bandwidth, "ingressRate", "ingressBurst");
            let egress = read_limit(&bandwidth, "egressRate", "egressBurst");
            Some(Self { ingress, egress })
        };
        root.object("runtimeConfig").and_then(read).unwrap_or_default()
    }
}

/// A rate and its burst, of which none or both are given, as the reference plugin has it.
fn read_limit(node: &Node<'_, '_>, rate_key: &str, burst_key: &str) -> Option<Limit> {
    // A number that is a problem must not make the other one look lonely.
    let number = |key: &str| match node.member(key) {
        None => Some(0),
        Some(member) => member.as_number(0..=u64::MAX),
    };
    match (number(rate_key)?, number(burst_key)?) {
        (0, 0) => None,
        (0, _) => {
            node.refuse_member(rate_key, format!("is missing, and {burst_key} is given; a limit needs both"));
            None
        }
        (_, 0) => {
            node.refuse_member(burst_key, format!("is missing, and {rate_key} is given; a limit needs both"));
            None
        }
        (rate, _) if rate < RATE_MIN => {
            let text = format!("is {rate}; {RATE_MIN} bits per second are the least, and 0 is no limit");
            node.refuse_member(rate_key, text);
            None
        }
        (rate, burst) => Some(Limit { rate, burst: Some(burst).filter(|burst| *burst < BURST_UNSAID) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::json::Document;
    use serde_json::{Value, json};

    fn read(bandwidth: Value) -> (Bandwidth, String) {
        let conf = json!({ "runtimeConfig": { "bandwidth": bandwidth } });
        let document = Document::new(&conf);
        let read = Bandwidth::read(&document.root());
        (read, document.into_problems().to_string())
    }

    #[test]
    fn both_directions_are_read_and_none_is_no_limit() {
        let (bandwidth, problems) = read(json!({
            "ingressRate": 1_000_000, "ingressBurst": 80_000, "egressRate": 1_000_000_000_000_000_u64, "egressBurst": 8
        }));
        assert_eq!(problems, "");
        assert_eq!(bandwidth.ingress, Some(Limit { rate: 1_000_000, burst: Some(80_000) }));
        assert_eq!(bandwidth.egress, Some(Limit { rate: 1_000_000_000_000_000, burst: Some(8) }));
        for none in [
            json!(null),
            json!({}),
            json!({ "ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": null }),
        ] {
            assert_eq!(read(none), (Bandwidth::default(), String::new()));
        }
    }

    /// go-cni, of containerd: Go's names of the fields, as its types say nothing of JSON.
    #[test]
    fn containerd_spells_the_keys_as_go_does() {
        let (bandwidth, problems) = read(json!({
            "IngressRate": 1_000_000, "IngressBurst": u32::MAX, "EgressRate": 2_000_000, "EgressBurst": u32::MAX
        }));
        let limit = |rate| Some(Limit { rate, burst: None });
        assert_eq!((bandwidth.ingress, bandwidth.egress), (limit(1_000_000), limit(2_000_000)));
        assert_eq!(problems, "");
    }

    #[test]
    fn the_largest_burst_of_a_runtime_is_none_asked_for() {
        for burst in [u64::from(u32::MAX), i32::MAX as u64] {
            let (bandwidth, problems) = read(json!({ "ingressRate": 1000, "ingressBurst": burst }));
            assert_eq!((bandwidth.ingress, problems.as_str()), (Some(Limit { rate: 1000, burst: None }), ""));
        }
    }

    #[test]
    fn one_without_the_other_and_what_is_no_number_are_problems() {
        let path = |key: &str| format!("runtimeConfig.bandwidth.{key}: ");
        for (bandwidth, key) in [
            (json!({ "ingressRate": 1000 }), "ingressBurst"),
            (json!({ "ingressBurst": 1000 }), "ingressRate"),
            (json!({ "egressRate": 1000, "egressBurst": 0 }), "egressBurst"),
            (json!({ "egressBurst": u32::MAX }), "egressRate"),
            (json!({ "egressRate": 7, "egressBurst": 1000 }), "egressRate"),
            (json!({ "egressRate": -1, "egressBurst": 1000 }), "egressRate"),
            (json!({ "egressRate": "1M", "egressBurst": 1000 }), "egressRate"),
        ] {
            let (read, problems) = read(bandwidth.clone());
            assert_eq!(read, Bandwidth::default());
            assert!(problems.starts_with(&path(key)) && !problems.contains(" | "), "{bandwidth}: {problems}");
        }
    }
}
