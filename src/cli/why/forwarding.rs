//! Sysctls on the way: forwarding, where packets may come from, and the table of tracked flows.

use std::net::IpAddr;

use crate::cli::doctor::tracked_flows;
use crate::cli::why::look::Look;
use crate::cni::error::CniError;
use crate::connectivity::half::{Kind, Step};
use crate::linux::route::PacketRoute;
use crate::linux::sysctl;

/// Whether the node forwards what comes in by a link.
pub fn examine(ipv4: bool, input: &str) -> Step {
    let keys: Vec<Vec<&str>> = if ipv4 {
        // Of IPv4 the link's own setting counts (ip_route_input_slow, net/ipv4/route.c), of IPv6 that of all.
        vec![vec!["net", "ipv4", "ip_forward"], vec!["net", "ipv4", "conf", input, "forwarding"]]
    } else {
        vec![vec!["net", "ipv6", "conf", "all", "forwarding"]]
    };
    for key in &keys {
        match sysctl::read(key) {
            Ok(value) if value == "0" => {
                let name = key.join("/");
                let sentence = format!("{name} is 0, so the node forwards nothing that comes in by {input}");
                let remedy =
                    format!("sysctl -w {name}=1, and see what in /etc/sysctl.d sets it; or ferrulectl sync");
                return Step::broken(Kind::Forwarding, sentence, remedy);
            }
            Ok(_) => {}
            Err(error) => return Step::unknown(Kind::Forwarding, error.to_string()),
        }
    }
    Step::ok(Kind::Forwarding, format!("the node forwards what comes in by {input}"))
}

/// Whether the kernel takes packets from `source` that come in by a link: rp_filter, which IPv6 has not. It is asked
/// itself; only why it refuses is worked out here.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn examine_origin(
    look: &Look<'_>,
    (source, destination): (IpAddr, IpAddr),
    input: Option<u32>,
    name: &str,
) -> Result<Option<Step>, CniError> {
    let Some(input) = input.filter(|_| source.is_ipv4()) else { return Ok(None) };
    let packet = PacketRoute { source: Some(source), destination, input: Some(input) };
    let is_taken = look.node.netlink.route_of(packet).await.is_ok();
    let read = |link: &str| -> u8 {
        sysctl::read(&["net", "ipv4", "conf", link, "rp_filter"])
            .ok()
            .and_then(|it| it.parse().ok())
            .unwrap_or(0)
    };
    // The greater value counts.
    let mode = read("all").max(read(name));
    let back = look.node.netlink.route_to(source).await?;
    let leads_to = back.as_ref().map(|way| look.link_name(way.device));
    let is_refused = match (mode, &back) {
        _ if is_taken => false,
        (0, _) => false,
        (1, Some(way)) => way.local || way.device != input,
        (_, Some(way)) => way.local,
        (_, None) => true,
    };
    if !is_refused {
        return Ok(Some(Step::ok(
            Kind::RpFilter,
            format!("{name} takes packets from {source} (rp_filter {mode})"),
        )));
    }
    let whereto = match leads_to {
        Some(link) => format!("the node's way back to {source} is {link}"),
        None => format!("the node has no way back to {source}"),
    };
    let sentence = format!("{name} refuses packets from {source} (rp_filter {mode}): {whereto}");
    let remedy = format!(
        "lead the way back by {name} (ip route get {source}); or, if packets may come so: sysctl -w \
         net/ipv4/conf/{name}/rp_filter=2, which counts only if net/ipv4/conf/all/rp_filter is not greater"
    );
    Ok(Some(Step::broken(Kind::RpFilter, sentence, remedy).fact("mode", mode)))
}

/// Whether the node has room for one flow more.
pub fn examine_flows() -> Option<Step> {
    tracked_flows().map(|(count, room)| judge_flows(count, room))
}

fn judge_flows(count: u64, room: u64) -> Step {
    if room > 0 && count >= room {
        let sentence =
            format!("the table of tracked flows is full ({count} of {room}): new connections are dropped");
        let remedy =
            "sysctl -w net.netfilter.nf_conntrack_max=..., and conntrack -L shows whose flows they are";
        return Step::broken(Kind::Conntrack, sentence, remedy);
    }
    Step::ok(Kind::Conntrack, format!("{count} of {room} flows are tracked"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectivity::half::State;

    #[test]
    fn a_full_table_of_flows_is_broken() {
        assert_eq!(judge_flows(99, 100).state, State::Ok);
        let full = judge_flows(100, 100);
        assert_eq!((full.kind, full.state), (Kind::Conntrack, State::Broken));
        // Without a limit there is none.
        assert_eq!(judge_flows(100, 0).state, State::Ok);
    }
}
