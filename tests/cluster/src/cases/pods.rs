//! Every pod reaches every pod, on every node, and both see each other as they are.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::cluster::{Family, Node, parse};
use crate::ensure;
use crate::fetch::{Asker, In, parse_seen, url};
use crate::pod::{HTTP, Pod, UDP};
use crate::process::Result;
use crate::space::Space;

/// A server on each node; their names, in the order of the nodes.
pub fn one_on_each_node(space: &Space<'_>) -> Result<Vec<String>> {
    one_on_each(space, &space.nodes.iter().collect::<Vec<_>>())
}

/// A server on each of these nodes; their names, in the same order.
pub fn one_on_each(space: &Space<'_>, nodes: &[&Node]) -> Result<Vec<String>> {
    let names: Vec<String> = nodes.iter().map(|node| format!("on-{}", node.name)).collect();
    let pods = names.iter().zip(nodes);
    space.create(pods.map(|(name, node)| Pod::server(name, &space.agnhost).on(node).manifest()))?;
    space.all_ready(Duration::from_secs(120))?;
    Ok(names)
}

/// Two servers on each node; their names.
pub fn two_on_each_node(space: &Space<'_>) -> Result<Vec<String>> {
    let placed =
        space.nodes.iter().flat_map(|node| [0, 1].map(|number| (format!("{}-{number}", node.name), node)));
    let placed: Vec<_> = placed.collect();
    space.create(placed.iter().map(|(name, node)| Pod::server(name, &space.agnhost).on(node).manifest()))?;
    space.all_ready(Duration::from_secs(180))?;
    Ok(placed.into_iter().map(|(name, _)| name).collect())
}

/// Over HTTP, each asked once by each: the server must see the asker's own address.
pub fn all_reach_all(space: &Space<'_>, pods: &[String]) -> Result<usize> {
    let mut asked = 0;
    for asker in pods {
        let own = space.addresses(asker)?;
        let mut words =
            vec!["curl", "--silent", "--show-error", "--fail", "--max-time", "5", "--write-out", "\\n"];
        let mut urls = Vec::new();
        for pod in pods {
            urls.extend(space.addresses(pod)?.into_iter().map(|address| url(address, HTTP, "clientip")));
        }
        words.extend(urls.iter().map(String::as_str));
        let output = space.exec(asker, &words).map_err(|failure| format!("{asker}: {failure}"))?;
        let seen = output.lines().map(parse_seen).collect::<Result<Vec<_>>>()?;
        ensure!(seen.len() == urls.len(), "{asker} has {} of {} answers", seen.len(), urls.len());
        for (seen, url) in seen.iter().zip(&urls) {
            ensure!(own.contains(seen), "{asker} is {own:?}, and {url} has seen {seen}");
        }
        asked += urls.len();
    }
    Ok(asked)
}

/// Also two pods of one node, and a pod itself; over HTTP and UDP.
pub fn every_pod_reaches_every_pod_with_its_own_address(space: &Space<'_>) -> Result {
    let pods = two_on_each_node(space)?;
    let asked = all_reach_all(space, &pods)?;
    space.note(format!("{asked} of {asked} answered, the first try of each"));

    let asker = pods.first().ok_or("no pod")?;
    let own = space.addresses(asker)?;
    for address in pods.iter().map(|pod| space.addresses(pod)).collect::<Result<Vec<_>>>()?.concat() {
        let question = format!(
            "http://localhost:{HTTP}/dial?protocol=udp&host={address}&port={UDP}&request=clientip&tries=1"
        );
        let answer = parse(&space.exec(asker, &["curl", "--silent", &question])?)?;
        let seen = answer["responses"][0].as_str().ok_or_else(|| format!("UDP to {address}: {answer}"))?;
        let seen = parse_seen(seen)?;
        ensure!(own.contains(&seen), "over UDP {asker} is {own:?}, and {address} has seen {seen}");
    }
    Ok(())
}

/// A node's own processes reach every pod, and its pods' own addresses are what a node sees.
pub fn pods_and_nodes_reach_each_other(space: &Space<'_>) -> Result {
    let port = 18080;
    let name = |prefix: &str, node: &Node| format!("{prefix}-{}", node.name);
    let agnhost = &space.agnhost;
    space.create(space.nodes.iter().flat_map(|node| {
        let serve = format!("--http-port={port}");
        let host = Pod::running(&name("host", node), agnhost, &["netexec", &serve, "--udp-port=-1"]);
        [Pod::server(&name("pod", node), agnhost).on(node), host.on(node).on_the_hosts_network()]
            .map(Pod::manifest)
    }))?;
    space.all_ready(Duration::from_secs(180))?;
    for node in &space.nodes {
        for other in &space.nodes {
            let pod = name("pod", other);
            for address in space.addresses(&pod)? {
                node.ask(address, HTTP, "hostname").map_err(|failure| format!("{}: {failure}", node.name))?;
                let own = node.address(Family::of(&address))?;
                let seen =
                    In(space, &pod).seen_as(own, port).map_err(|failure| format!("{pod}: {failure}"))?;
                ensure!(seen == address, "{} has seen {pod} as {seen}, not {address}", node.name);
            }
        }
    }
    Ok(())
}

/// By what Kubernetes shows as its InternalIP, by its own pods and by others: whoever lets nodes in by their address, and
/// the probes of a node with several, depend on it.
pub fn a_node_is_seen_by_its_internal_address(space: &Space<'_>) -> Result {
    let target = space.worker(0)?;
    space.create([Pod::server("pod", &space.agnhost).on(target).manifest()])?;
    space.all_ready(Duration::from_secs(120))?;
    for address in space.addresses("pod")? {
        for node in &space.nodes {
            let seen = node.seen_as(address, HTTP)?;
            let own = node.address(Family::of(&address))?;
            ensure!(seen == own, "{} is seen as {seen}, not {own}", node.name);
        }
    }
    Ok(())
}

/// What does not fit into one packet, and what takes many: a wrong MTU lets small pings pass and nothing else.
pub fn large_packets_and_much_data_arrive(space: &Space<'_>) -> Result {
    let (near, far) = (space.worker(0)?, space.worker(1)?);
    let agnhost = &space.agnhost;
    space.create([
        Pod::server("asker", agnhost).on(near).manifest(),
        Pod::server("server", agnhost).on(far).manifest(),
    ])?;
    space.all_ready(Duration::from_secs(120))?;
    much_arrives(space, "asker", "server")
}

/// Two thousand bytes each way over HTTP and UDP, and a megabyte over TCP.
pub fn much_arrives(space: &Space<'_>, asker: &str, server: &str) -> Result {
    let words = "x".repeat(2000);
    let megabyte = "head -c 1000000 /dev/zero >/tmp/megabyte";
    space.exec(asker, &["sh", "-c", megabyte])?;
    for address in space.addresses(server)? {
        let path = format!("echo?msg={words}");
        ensure!(In(space, asker).ask(address, HTTP, &path)?.trim() == words, "HTTP to {address}");
        let question = format!(
            "http://localhost:{HTTP}/dial?protocol=udp&host={address}&port={UDP}&request=echo%20{words}&tries=1"
        );
        let answer = space.exec(asker, &["curl", "--silent", &question])?;
        ensure!(answer.contains(&words), "2000 bytes over UDP to {address}: {answer}");
        let target = url(address, HTTP, "upload");
        let upload = ["curl", "--silent", "--show-error", "--fail", "--max-time", "20", "--form"];
        space.exec(asker, &[&upload[..], &["file=@/tmp/megabyte", &target]].concat())?;
    }
    Ok(())
}

/// The node says so itself; nothing goes out by the default route to come back or to be lost.
pub fn an_address_that_no_pod_has_is_unreachable_at_once(space: &Space<'_>) -> Result {
    let asker = space.worker(0)?;
    space.create([Pod::server("asker", &space.agnhost).on(asker).manifest()])?;
    space.all_ready(Duration::from_secs(120))?;
    for node in &space.nodes {
        for range in &node.pod_ranges {
            let free = last_of(range)?;
            let start = Instant::now();
            In(space, "asker").is_refused(free, 80)?;
            let took = start.elapsed();
            ensure!(took < Duration::from_secs(3), "{free}, which is of {}: after {took:?}", node.name);
        }
    }
    Ok(())
}

/// The last address but one of a range, which an allocator that goes round reaches last.
pub fn last_of(range: &str) -> Result<IpAddr> {
    near_the_end_of(range, 1)
}

/// The address that is this far from the end of a range.
pub fn near_the_end_of(range: &str, distance: u8) -> Result<IpAddr> {
    let parsed = range.split_once('/').and_then(|(start, length)| {
        let start: IpAddr = start.parse().ok()?;
        let length: u32 = length.parse().ok()?;
        Some(match start {
            IpAddr::V4(start) => {
                let end = u32::from(start) | u32::MAX.checked_shr(length).unwrap_or(0);
                IpAddr::V4((end - u32::from(distance)).into())
            }
            IpAddr::V6(start) => {
                let end = u128::from(start) | u128::MAX.checked_shr(length).unwrap_or(0);
                IpAddr::V6((end - u128::from(distance)).into())
            }
        })
    });
    parsed.ok_or_else(|| format!("not a range: {range}").into())
}
