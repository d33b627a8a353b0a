//! Something else on the node takes away what is ferrule's: routes, the table, forwarding, the link to other nodes.

use std::fmt;
use std::time::Duration;

use super::super::pods::{all_reach_all, one_on_each_node};
use crate::agents;
use crate::cluster::{Family, Node};
use crate::ensure;
use crate::fetch::{Asker, In, Outsider};
use crate::pod::{HTTP, Pod};
use crate::probe;
use crate::process::Result;
use crate::space::Space;

/// What the agent says of each of these. Where it tried in vain at first, as while a link is down, it may be its next
/// try that repairs, and not the kernel's next word.
const REPAIRED: &[&str] = &["drift repaired", "peer reachable again"];

/// How long a repair may take that is no repair by chance: the agent looks at everything once a minute, and the kernel
/// tells it at once.
const HANGS: Duration = Duration::from_secs(15);

/// Shell: what the node's own routing tables have of ferrule's.
const ROUTES: &str = "
    ours() { ip -4 route show proto 102; ip -6 route show proto 102; }
    to_nodes() { ours | grep ' via ' | sort; }
    remove() { while read -r route; do ip $1 route del $route || exit 1; done; }";

/// Shell: what ferrule's table has, one thing a line. Counters and handles differ when it was made again, and so may the
/// order in which elements are shown.
const TABLE: &str =
    "nft -s list table inet ferrule | sed 's/elements = //; s/[{},]//g; s/^[ \t]*//; s/[ \t]*$//' | sort";

/// How long it took until something was repaired.
pub struct Repaired {
    /// Milliseconds from the end of the breaking, as the node saw it. Looking takes its time.
    seen: u64,
    /// What the agent says of it: its own time begins with the word of the kernel.
    said: String,
}

impl fmt::Display for Repaired {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.said.split_once("took=").map_or(self.said.as_str(), |(_, own)| own);
        write!(formatter, "{} ms (agent: {own})", self.seen)
    }
}

/// Breaks something on a node and waits, there, until `look` says the same as before; then for the agent's word of it.
pub fn broken_and_repaired(node: &Node, prelude: &str, look: &str, breaking: &str) -> Result<Repaired> {
    let since = agents::time_on(node)?;
    let script = format!(
        "{prelude}
         look() {{ {look}; }}
         before=$(look 2>/dev/null); [ -n \"$before\" ] || {{ echo nothing to break; exit 1; }}
         {{ {breaking}; }} || exit 1
         start=$(date +%s%N); end=$((start + {}))
         until [ \"$(look 2>/dev/null)\" = \"$before\" ]; do
             [ $(date +%s%N) -lt $end ] || {{ echo \"was: $before\"; echo \"is: $(look)\"; exit 1; }}
         done
         echo $((($(date +%s%N) - start) / 1000000))",
        HANGS.as_nanos()
    );
    let said = node.shell(&script).map_err(|failure| format!("{breaking}: not repaired: {failure}"))?;
    let seen = said.trim().parse().map_err(|_| format!("not a time: {said:?}"))?;
    Ok(Repaired { seen, said: agents::said_one_of(node, &since, REPAIRED)? })
}

/// Those to other nodes first, then all that are marked as ferrule's, which takes its own pods from a node as well.
pub fn routes_that_were_flushed_are_back(space: &Space<'_>) -> Result {
    let names = one_on_each_node(space)?;
    let to_nodes = "
        { ip -4 route show proto 102 | grep ' via ' | remove -4; } &&
        { ip -6 route show proto 102 | grep ' via ' | remove -6; }";
    let all = "ip -4 route flush proto 102 && ip -6 route flush proto 102";
    probe::during(space, &names, || {
        for node in &space.nodes {
            let some = broken_and_repaired(node, ROUTES, "to_nodes", to_nodes)?;
            let all = broken_and_repaired(node, ROUTES, "ours | sort", all)?;
            space.note(format!("{}: to other nodes {some}, all {all}", node.name));
        }
        Ok(())
    })?;
    all_reach_all(space, &names).map(|_| ())
}

/// With masquerade and hostPorts in it. What pods send each other does not depend on it.
pub fn a_table_that_was_flushed_is_back(space: &Space<'_>) -> Result {
    let names = one_on_each_node(space)?;
    let node = space.worker(0)?;
    let port = 18480;
    let ports = serde_json::json!([{ "containerPort": HTTP, "hostPort": port }]);
    space.create([Pod::server("pod", &space.agnhost).on(node).with_ports(ports).manifest()])?;
    space.all_ready(Duration::from_secs(120))?;
    let outsider = Outsider::start(space)?;
    let family = *space.families.first().ok_or("no family")?;
    let works = || {
        let seen = In(space, "pod").seen_as(outsider.address(family)?, HTTP)?;
        ensure!(seen == node.address(family)?, "the pod is seen as {seen}");
        outsider.ask(node.address(family)?, port, "hostname")
    };
    works()?;
    let (_, losses) = probe::during(space, &names, || {
        for what in ["nft flush table inet ferrule", "nft delete table inet ferrule"] {
            let repaired = broken_and_repaired(node, "", TABLE, what)?;
            works().map_err(|failure| format!("after {what}: {failure}"))?;
            space.note(format!("{what}: back in {repaired}"));
        }
        Ok(())
    })?;
    losses.none()
}

/// Some other tool writes 0.
pub fn forwarding_that_was_switched_off_is_on_again(space: &Space<'_>) -> Result {
    let names = one_on_each_node(space)?;
    probe::during(space, &names, || {
        for family in &space.families {
            let key = match family {
                Family::V4 => "/proc/sys/net/ipv4/ip_forward",
                Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
            };
            for node in &space.nodes {
                let repaired =
                    broken_and_repaired(node, "", &format!("cat {key}"), &format!("echo 0 >{key}"))?;
                space.note(format!("{}, {family:?}: on again in {repaired}", node.name));
            }
        }
        Ok(())
    })?;
    all_reach_all(space, &names).map(|_| ())
}

/// The link to the other nodes, for a second. With it go the routes over it and its IPv6 addresses, without a word of
/// the kernel for each. Whoever gave the node its addresses and its default routes gives them again.
///
/// The link is spared duplicate address detection. With it, IPv6 waits for seconds longer than for routes, and no network
/// plugin can help it: for what it forwards, a node asks for no neighbour until its link-local address has passed
/// (`ndisc_solicit`, net/ipv6/ndisc.c).
pub fn a_link_that_went_down_and_up_has_its_routes_back(space: &Space<'_>) -> Result {
    let names = one_on_each_node(space)?;
    let node = space.worker(0)?;
    let family = *space.families.first().ok_or("no family")?;
    let to = space.control_plane()?.address(family)?;
    let prelude = format!(
        "{ROUTES}
         link=$(ip -o route get {to} | sed 's/.* dev \\([^ ]*\\).*/\\1/')
         detection=/proc/sys/net/ipv6/conf/$link/accept_dad
         [ ! -e $detection ] || {{ trap \"echo $(cat $detection) >$detection\" EXIT && echo 0 >$detection; }}
         addresses=$(ip -o -6 address show dev $link scope global | awk '{{ print $4 }}')
         default4=$(ip -4 route show default); default6=$(ip -6 route show default)
         down_and_up() {{
             ip link set $link down && sleep 1 && ip link set $link up || return 1
             for address in $addresses; do ip address replace $address dev $link nodad || return 1; done
             [ -z \"$default4\" ] || ip -4 route replace $default4 || return 1
             [ -z \"$default6\" ] || ip -6 route replace $default6 || return 1
         }}"
    );
    let (repaired, losses) =
        probe::during(space, &names, || broken_and_repaired(node, &prelude, "ours | sort", "down_and_up"))?;
    space.note(format!("down for 1 s; routes back in {repaired}"));
    ensure!(losses.count > 0, "no packet was lost: nothing was tested");
    all_reach_all(space, &names).map(|_| ())
}
