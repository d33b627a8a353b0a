//! What holds a pod to its bandwidth.
//!
//! ```text
//!   towards the pod   node --> [tbf on the host link] --> pod
//!   from the pod      pod --> host link --redirect--> [tbf on the ifb] --> node, as if from the host link
//! ```
//!
//! A token bucket holds back what leaves by a link. What a pod sends enters by its host link, so it is led through a
//! link of its own first (`ifb`, drivers/net/ifb.c). All of it is on the node: a pod that may change its own end of
//! the pair cannot take its limit away. Why no policer: docs/design/decisions.md.

use crate::config::bandwidth::{Bandwidth, Limit};
use crate::desired::object::{Object, Redirect, Shaper};
use crate::linux::link::Ifb;

/// Ethernet's header, which counts against the bucket (`ETH_HLEN`, include/uapi/linux/if_ether.h).
const HEADER: u64 = 14;

/// The bucket where nobody says how large: what the rate lets through in a twentieth of a second, and two of the
/// largest packets at least, so that they need not be cut up.
const OWN_BURST_MIN: u64 = 128 * 1024;

/// Least room for what waits: one of the largest packets, cut up or whole.
const QUEUE_MIN: u64 = 64 * 1024;

/// The links between which the limits stand.
pub(super) struct Links {
    /// The node's end of the pair.
    pub(super) host: String,
    /// Name of the link for what the pod sends.
    pub(super) ifb: String,
    /// MTU of all of them, in bytes.
    pub(super) mtu: u32,
    /// Their group.
    pub(super) group: u32,
}

/// The link that what the pod sends goes through, if that is limited.
pub(super) fn ifb(bandwidth: &Bandwidth, links: &Links) -> Option<Ifb> {
    bandwidth.egress.map(|_| Ifb { name: links.ifb.clone(), mtu: links.mtu, group: links.group })
}

/// What is on the links, to be made when they are up.
pub(super) fn push_limits(bandwidth: &Bandwidth, links: &Links, objects: &mut Vec<Object>) {
    if let Some(limit) = bandwidth.ingress {
        objects.push(Object::Shaper(shaper(&links.host, limit, links.mtu)));
    }
    if let Some(limit) = bandwidth.egress {
        objects.push(Object::Shaper(shaper(&links.ifb, limit, links.mtu)));
        objects.push(Object::Redirect(Redirect { from: links.host.clone(), to: links.ifb.clone() }));
    }
}

fn shaper(link: &str, limit: Limit, mtu: u32) -> Shaper {
    let rate = limit.rate / 8;
    let burst = limit.burst.map_or((rate / 20).max(OWN_BURST_MIN), |bits| bits / 8);
    // A packet that the bucket cannot hold is never sent.
    let burst = burst.max(u64::from(mtu) + HEADER);
    // As the reference plugin has it: what waits longer than 25 ms is lost.
    let queue = burst.saturating_add((rate / 40).max(QUEUE_MIN));
    let bytes = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Shaper { link: link.to_owned(), rate, burst: bytes(burst), queue: bytes(queue) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(rate: u64, burst: Option<u64>) -> (u64, u32, u32) {
        let shaper = shaper("x", Limit { rate, burst }, 1500);
        (shaper.rate, shaper.burst, shaper.queue)
    }

    #[test]
    fn bits_become_bytes_and_no_number_overflows() {
        assert_eq!(bytes_of(80_000_000, Some(8_000_000)), (10_000_000, 1_000_000, 1_250_000));
        assert_eq!(bytes_of(u64::MAX, Some(u64::MAX)), (u64::MAX / 8, u32::MAX, u32::MAX));
    }

    #[test]
    fn a_bucket_holds_a_whole_packet_at_least() {
        assert_eq!(bytes_of(8, Some(8)), (1, 1514, 1514 + 65_536));
    }

    #[test]
    fn a_burst_that_nobody_chose_is_a_twentieth_of_a_second() {
        assert_eq!(bytes_of(800_000_000, None), (100_000_000, 5_000_000, 7_500_000));
        assert_eq!(bytes_of(800_000, None), (100_000, 131_072, 131_072 + 65_536));
    }
}
