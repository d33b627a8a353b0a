//! What a pod asks for by its annotations.

use std::time::Duration;

use serde_json::Value;

use super::pods::near_the_end_of;
use crate::cluster::{Family, parse};
use crate::ensure;
use crate::fetch::url;
use crate::pod::{HTTP, Pod};
use crate::process::Result;
use crate::space::Space;

/// Addresses, hardware address, MTU and a route.
pub fn a_pod_gets_what_its_annotations_ask_for(space: &Space<'_>) -> Result {
    let node = space.worker(0)?;
    let wanted = node.pod_ranges.iter().map(|range| near_the_end_of(range, 7)).collect::<Result<Vec<_>>>()?;
    let list = wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (mac, mtu) = ("0a:58:0a:f4:01:05", 1400);
    let (family, destination) = match space.families.first() {
        Some(Family::V4) => ("-4", "203.0.113.0/24"),
        _ => ("-6", "2001:db8:1::/48"),
    };
    let pod = Pod::server("pod", &space.agnhost)
        .on(node)
        .annotated("ferrule.dev/ips", &list)
        .annotated("ferrule.dev/mac", mac)
        .annotated("ferrule.dev/mtu", &mtu.to_string())
        .annotated("ferrule.dev/routes", &format!(r#"[{{"dst": "{destination}", "mtu": 1300}}]"#));
    space.create([pod.manifest()])?;
    space.all_ready(Duration::from_secs(120))?;

    let given = space.addresses("pod")?;
    ensure!(given == wanted, "asked for {wanted:?}, given {given:?}");
    let link = parse(&space.exec("pod", &["ip", "-j", "link", "show", "eth0"])?)?;
    ensure!(link[0]["address"] == mac, "{link}");
    ensure!(link[0]["mtu"] == mtu, "{link}");
    let routes = space.exec("pod", &["ip", family, "route", "show", destination])?;
    ensure!(routes.contains("mtu 1300"), "the route to {destination}: {routes:?}");
    for address in given {
        node.run(&["curl", "--silent", "--fail", "--max-time", "5", &url(address, HTTP, "hostname")])?;
    }
    Ok(())
}

/// `kubernetes.io/ingress-bandwidth` and `egress-bandwidth`: a limit that is kept, and not by far undershot.
pub fn bandwidth_is_held_in_both_directions(space: &Space<'_>) -> Result {
    let agnhost = &space.agnhost;
    // It listens by IPv4 unless told otherwise; by IPv6, for both families.
    let family = if space.families.contains(&Family::V6) { "--ipv6_domain" } else { "" };
    let server = format!("iperf -s {family} -D >/dev/null 2>&1; exec /agnhost pause");
    let server = ["-c", server.as_str()];
    let pod = |name: &str| {
        let mut manifest = Pod::running(name, agnhost, &server).manifest();
        manifest["spec"]["containers"][0]["command"] = Value::from(vec!["sh"]);
        manifest
    };
    let mut limited = pod("limited");
    limited["metadata"]["annotations"]["kubernetes.io/ingress-bandwidth"] = "20M".into();
    limited["metadata"]["annotations"]["kubernetes.io/egress-bandwidth"] = "40M".into();
    limited["spec"]["nodeName"] = space.worker(0)?.name.clone().into();
    let mut free = pod("free");
    free["spec"]["nodeName"] = space.worker(1)?.name.clone().into();
    space.create([limited, free])?;
    space.all_ready(Duration::from_secs(120))?;
    for (from, to, limit) in [("free", "limited", 20.0), ("limited", "free", 40.0)] {
        let target = space.addresses(to)?.into_iter().next().ok_or("no address")?;
        let version = if target.is_ipv6() { "--ipv6_domain" } else { "--print_mss" };
        let output =
            space.exec(from, &["iperf", "-c", &target.to_string(), version, "-t", "5", "-y", "C"])?;
        let bits = output.lines().rfind(|line| line.contains(','));
        let bits: f64 = bits
            .and_then(|line| line.rsplit(',').next()?.trim().parse().ok())
            .ok_or_else(|| format!("iperf says {output:?}"))?;
        let mbits = bits / 1e6;
        space.note(format!("{from} to {to}: {mbits:.1} of {limit} Mbit/s"));
        ensure!(mbits < limit * 1.2 && mbits > limit * 0.6, "{mbits:.1} Mbit/s, the limit is {limit}");
    }
    Ok(())
}
