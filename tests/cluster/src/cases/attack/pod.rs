//! A pod with every right in its own network namespace, which sends under other people's addresses, and to a pod that no
//! policy lets it reach. While pods come and go around it, the kernels of its targets count what gets through.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;

use super::super::policies::manifest::Policy;
use crate::cluster::Family;
use crate::ensure;
use crate::pod::Pod;
use crate::process::{Result, eventually, pause};
use crate::space::Space;

/// Who must get nothing: of another's address; and of the attacker's own, since a policy says so.
const SHUT: [&str; 4] = ["deceived-near", "deceived-far", "sealed-near", "sealed-far"];

/// Who gets what the attacker sends under its own address: what is sent to the others would arrive as well.
const OPEN: &str = "open";

/// From one packet of a ping to its next.
const INTERVAL: &str = "0.1";

const STARTS: Duration = Duration::from_secs(180);

/// How long it goes on at least, where no other case runs.
const LEAST: Duration = Duration::from_secs(15);

/// What a pod's kernel has counted of echo requests that came in, of both families.
const COUNTERS: &str = "cat /proc/net/snmp /proc/net/snmp6 2>/dev/null; true";

pub fn a_pod_that_attacks_all_the_while_gets_nothing_through(space: &Space<'_>) -> Result {
    let (near, far) = (space.worker(0)?, space.worker(1)?);
    let waiting = |name: &str| Pod::running(name, &space.agnhost, &["pause"]);
    let rights = json!({ "capabilities": { "add": ["NET_ADMIN", "NET_RAW"] } });
    let attacker = waiting("attacker").on(near).with("/spec/containers/0/securityContext", rights);
    let sealed = json!({ "sealed": "yes" });
    space.create([
        Policy::of("sealed", sealed).isolating("Ingress").manifest(),
        attacker.manifest(),
        waiting("victim").on(far).manifest(),
        waiting(OPEN).on(far).manifest(),
        waiting("deceived-near").on(near).manifest(),
        waiting("deceived-far").on(far).manifest(),
        waiting("sealed-near").on(near).labelled("sealed", "yes").manifest(),
        waiting("sealed-far").on(far).labelled("sealed", "yes").manifest(),
    ])?;
    space.all_ready(STARTS)?;
    for name in ["sealed-near", "sealed-far"] {
        for address in space.addresses(name)? {
            eventually(&format!("{name} is sealed"), STARTS, || {
                let word = ["ping", "-c", "1", "-W", "1", &address.to_string()];
                ensure!(space.exec("attacker", &word).is_err(), "it answers the attacker at {address}");
                Ok(())
            })?;
        }
    }
    let before = received_by_all(space)?;
    attack(space)?;
    pause(LEAST);
    space.outlast_the_others();
    let after = received_by_all(space)?;
    let sent = Counted::read(&space.exec("attacker", &["sh", "-c", COUNTERS])?)?.sent;
    let more = |place: usize| after[place].received - before[place].received;
    let through: Vec<(&str, u64)> =
        SHUT.iter().enumerate().map(|(place, name)| (*name, more(place))).collect();
    let open = more(SHUT.len());
    space.note(format!(
        "{sent} packets sent, of which {open} were for one that may have them; through: {through:?}"
    ));
    // A packet a second at least, to each of the targets.
    let targets = u64::try_from(space.families.len() * (2 * SHUT.len() + 1)).unwrap_or(u64::MAX);
    ensure!(open > 0 && sent > targets * LEAST.as_secs(), "the attacker was not at work");
    ensure!(through.iter().all(|(_, count)| *count == 0), "{through:?} got through");
    Ok(())
}

/// Begins all of it; it goes on by itself.
fn attack(space: &Space<'_>) -> Result {
    let far = space.worker(1)?;
    let mut lines = Vec::new();
    let mut ping = |words: String| {
        lines.push(format!("setsid ping -i {INTERVAL} {words} </dev/null >/dev/null 2>&1 &"));
    };
    let mut forged: Vec<IpAddr> = space.addresses("victim")?;
    forged.extend(far.addresses.iter().copied().filter(|it| space.families.contains(&Family::of(it))));
    for target in ["deceived-near", "deceived-far"] {
        for to in space.addresses(target)? {
            for source in forged.iter().filter(|it| it.is_ipv4() == to.is_ipv4()) {
                ping(format!("-I {source} {to}"));
            }
        }
    }
    for target in ["sealed-near", "sealed-far", OPEN] {
        for to in space.addresses(target)? {
            ping(to.to_string());
        }
    }
    let take = |source: &IpAddr| {
        let (prefix, more) = if source.is_ipv4() { (32, "") } else { (128, " nodad") };
        format!("ip address add {source}/{prefix} dev eth0{more}")
    };
    let script = forged.iter().map(take).chain(lines).collect::<Vec<_>>().join("\n");
    space.exec("attacker", &["sh", "-c", &format!("set -e\n{script}")]).map(|_| ())
}

/// What came in at each of [`SHUT`], and at [`OPEN`].
fn received_by_all(space: &Space<'_>) -> Result<Vec<Counted>> {
    let of = |name: &&str| Counted::read(&space.exec(name, &["sh", "-c", COUNTERS])?);
    SHUT.iter().chain([&OPEN]).map(of).collect()
}

/// Echo requests of both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counted {
    received: u64,
    sent: u64,
}

impl Counted {
    /// Reads /proc/net/snmp and /proc/net/snmp6; a node may be without IPv6.
    fn read(text: &str) -> Result<Self> {
        let lines = || text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut icmp = lines().filter(|words| words.first() == Some(&"Icmp:"));
        let (names, values) = icmp.next().zip(icmp.next()).ok_or_else(|| format!("no ICMP in {text:?}"))?;
        let number = |words: &[&str], place: usize| words.get(place)?.parse::<u64>().ok();
        let of_v4 = |name: &str| {
            let place = names.iter().position(|it| *it == name)?;
            number(&values, place)
        };
        let of_v6 = |name: &str| {
            let line = lines().find(|words| words.first() == Some(&name));
            line.and_then(|words| number(&words, 1)).unwrap_or(0)
        };
        let (received, sent) =
            of_v4("InEchos").zip(of_v4("OutEchos")).ok_or("the kernel counts no echoes")?;
        Ok(Self { received: received + of_v6("Icmp6InEchos"), sent: sent + of_v6("Icmp6OutEchos") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_both_families_are_counted() {
        let text = "Ip: Forwarding DefaultTTL\nIp: 1 64\n\
                    Icmp: InMsgs InEchos InEchoReps OutMsgs OutEchos OutEchoReps\nIcmp: 9 1 2 9 3 4\n";
        assert_eq!(Counted::read(text).unwrap(), Counted { received: 1, sent: 3 });
        let v6 = "Icmp6InEchos                    \t7\nIcmp6OutEchos                   \t8\n";
        assert_eq!(Counted::read(&format!("{text}{v6}")).unwrap(), Counted { received: 8, sent: 11 });
        assert!(Counted::read(v6).is_err());
    }
}
