//! The next hop: whether its hardware address is known, or can be had.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::sleep;

use crate::cli::why::look::Look;
use crate::cni::error::CniError;
use crate::connectivity::half::{Kind, Step};
use crate::linux::change::Change;
use crate::linux::link::Link;
use crate::linux::neigh::{Neighbour, Reachability};

/// How often the kernel's answer is looked for, and how many times. It asks three times, a second apart
/// (net.ipv4.neigh.default.mcast_solicit, retrans_time_ms).
const PAUSE: Duration = Duration::from_millis(100);
const LOOKS: usize = 50;

/// `NOARP` links have no hardware addresses: tunnels of others, and links to one peer.
fn needs_no_address(link: Option<&Link>) -> bool {
    link.is_some_and(|link| link.mac.is_none())
}

/// Looks for the neighbour, and has the kernel ask for it where it is not known.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn examine(look: &Look<'_>, device: u32, next_hop: IpAddr) -> Result<Step, CniError> {
    let name = look.link_name(device);
    if needs_no_address(look.link(device)) {
        return Ok(Step::ok(Kind::Neighbour, format!("{name} needs no hardware addresses")));
    }
    let mut known = find(look, device, next_hop).await?;
    let is_settled = |it: &Option<Neighbour>| {
        it.as_ref().is_some_and(|it| matches!(it.reachability, Reachability::Permanent | Reachability::Other))
    };
    if !is_settled(&known) {
        let change = Change::AskNeighbour { index: device, address: next_hop };
        if let Some(Err(error)) = look.node.netlink.submit([change]).await.pop() {
            let sentence = format!("whether {next_hop} answers on {name}: {error}");
            return Ok(Step::unknown(Kind::Neighbour, sentence));
        }
        for _ in 0..LOOKS {
            known = find(look, device, next_hop).await?;
            if known.as_ref().is_some_and(|it| it.reachability != Reachability::Incomplete) {
                break;
            }
            sleep(PAUSE).await;
        }
    }
    let mac = known.as_ref().and_then(|it| it.mac).map(|mac| mac.to_string()).unwrap_or_default();
    Ok(match known.map(|it| it.reachability) {
        Some(Reachability::Other) => {
            Step::ok(Kind::Neighbour, format!("next hop {next_hop} is {mac} on {name}")).fact("mac", mac)
        }
        Some(Reachability::Permanent) => {
            let sentence = format!("next hop {next_hop} is {mac} on {name}, which somebody has set by hand");
            Step::ok(Kind::Neighbour, sentence).fact("mac", mac)
        }
        _ => {
            let sentence = format!(
                "next hop {next_hop} does not answer on {name}: nobody there has that address, or it is off"
            );
            let remedy = "see whether that node is up and has the address, and what is between the two: a switch, a VLAN, a \
                          firewall that drops ARP or neighbour discovery";
            Step::broken(Kind::Neighbour, sentence, remedy).fact("nextHop", next_hop)
        }
    })
}

async fn find(look: &Look<'_>, device: u32, address: IpAddr) -> Result<Option<Neighbour>, CniError> {
    Ok(look.node.netlink.neighbours(device).await?.into_iter().find(|it| it.address == address))
}
