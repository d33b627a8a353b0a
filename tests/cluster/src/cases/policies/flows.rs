//! Connections that stand when a policy changes.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::STARTS;
use super::manifest::{Policy, pods};
use super::stream::{self, Lane};
use crate::ensure;
use crate::fetch::url;
use crate::pod::{HTTP, Pod};
use crate::process::{Result, eventually, pause};
use crate::space::Space;

/// A client on each of two nodes, and a server.
fn clients_and_server(space: &Space<'_>) -> Result<[&'static str; 2]> {
    let client = |name: &str| Pod::running(name, &space.agnhost, &["pause"]).labelled("role", "client");
    space.create([
        Pod::server("server", &space.agnhost).on(space.worker(0)?).manifest(),
        Pod::server("secret", &space.agnhost).on(space.worker(0)?).manifest(),
        client("near").on(space.worker(0)?).manifest(),
        client("far").on(space.worker(1)?).manifest(),
    ])?;
    space.all_ready(STARTS)?;
    Ok(["near", "far"])
}

/// Ten times a second over one connection, as long as it is answered; a line for each answer, with how many connections
/// it took.
fn keep_asking(space: &Space<'_>, client: &str, addresses: &[IpAddr]) -> Result {
    let ask = |address: &IpAddr| {
        format!(
            "setsid curl --silent --output /dev/null --fail-early --rate 10/s --max-time 3 \
             --write-out '%{{stderr}}%{{http_code}} %{{num_connects}}\\n' '{}?[1-1000000]' </dev/null >/dev/null \
             2>/tmp/kept-{address} &",
            url(*address, HTTP, "hostname")
        )
    };
    let script: Vec<String> = addresses.iter().map(ask).collect();
    space.exec(client, &["sh", "-c", &script.join("\n")]).map(|_| ())
}

/// Of each address: how many answers there were, and how many connections they took.
fn answers(space: &Space<'_>, client: &str, addresses: &[IpAddr]) -> Result<Vec<(usize, usize)>> {
    let count = |address: &IpAddr| {
        let said = space.exec(client, &["cat", &format!("/tmp/kept-{address}")])?;
        let ok = said.lines().filter_map(|line| line.strip_prefix("200 ")?.parse::<usize>().ok());
        let counts: Vec<usize> = ok.collect();
        Ok((counts.len(), counts.iter().sum()))
    };
    addresses.iter().map(count).collect()
}

/// By a policy that comes after it. Those of the other client, which stays allowed, go on.
pub fn a_flow_that_is_forbidden_is_cut(space: &Space<'_>) -> Result {
    let clients = clients_and_server(space)?;
    let addresses = space.addresses("server")?;
    for client in clients {
        keep_asking(space, client, &addresses)?;
    }
    for client in clients {
        eventually(&format!("{client} is answered"), Duration::from_secs(10), || {
            let all = answers(space, client, &addresses)?;
            ensure!(all.iter().all(|(count, connections)| *count > 5 && *connections == 1), "{all:?}");
            Ok(())
        })?;
    }
    let from = json!([pods(&json!({ "app": "far" }))]);
    space.create([Policy::of("far", json!({ "app": "server" }))
        .ingress(json!({ "from": from }))
        .manifest()])?;
    eventually("the one that is forbidden is cut", Duration::from_secs(20), || {
        let before = answers(space, "near", &addresses)?;
        pause(Duration::from_secs(1));
        let after = answers(space, "near", &addresses)?;
        ensure!(before == after, "it is answered: {after:?}");
        Ok(())
    })?;
    let before = answers(space, "far", &addresses)?;
    eventually("the other goes on", Duration::from_secs(10), || {
        let after = answers(space, "far", &addresses)?;
        let grows = before.iter().zip(&after).all(|((before, _), (after, _))| after > &(before + 5));
        ensure!(
            grows && after.iter().all(|(_, connections)| *connections == 1),
            "{before:?}, then {after:?}"
        );
        Ok(())
    })
}

/// The server sends all the time, so that the first packet after the change is mostly one of its own. It is not isolated in
/// that direction, and its packets must not begin the flow anew.
pub fn a_download_that_is_forbidden_is_cut(space: &Space<'_>) -> Result {
    // A server of files, of which the test image's own program is the largest.
    let server = Pod::running("server", &space.agnhost, &["test-webserver", "--port=8080"]);
    space.create([
        server.on(space.worker(0)?).manifest(),
        Pod::running("near", &space.agnhost, &["pause"]).on(space.worker(0)?).manifest(),
        Pod::running("far", &space.agnhost, &["pause"]).on(space.worker(1)?).manifest(),
    ])?;
    space.all_ready(STARTS)?;
    let addresses = space.addresses("server")?;
    for client in ["near", "far"] {
        let fetch = addresses.iter().map(|address| {
            let url = url(*address, HTTP, "agnhost");
            format!("setsid curl --silent --limit-rate 1M --output /tmp/load-{address} {url} </dev/null >/dev/null 2>&1 &")
        });
        space.exec(client, &["sh", "-c", &fetch.collect::<Vec<_>>().join("\n")])?;
    }
    // With how many go on: one that has all grows no more either.
    const SIZES: &str = "stat -c '%n %s' /tmp/load-*; cat /proc/[0-9]*/comm | grep -c '^curl$'";
    let sizes = |client: &str| space.exec(client, &["sh", "-c", SIZES]);
    pause(Duration::from_secs(2));
    space.create([Policy::of("nobody", json!({ "app": "server" })).isolating("Ingress").manifest()])?;
    // What the client's kernel has received already still comes for some seconds.
    for client in ["near", "far"] {
        eventually(&format!("{client} gets no more"), Duration::from_secs(20), || {
            let before = sizes(client)?;
            // The server tries again, later and later.
            pause(Duration::from_secs(5));
            let after = sizes(client)?;
            ensure!(before == after, "before {before}, five seconds later {after}");
            ensure!(after.trim_end().ends_with(&addresses.len().to_string()), "it has got all: {after}");
            Ok(())
        })?;
    }
    Ok(())
}

/// A hundred changes of policies, each of which goes on allowing it; and what they go on forbidding stays forbidden.
pub fn a_flow_that_stays_allowed_lives_through_changes(space: &Space<'_>) -> Result {
    let clients = clients_and_server(space)?;
    let addresses = space.addresses("server")?;
    let always = |name: &str, app: &str, role: &str| {
        let rule = json!({ "from": [pods(&json!({ "role": role }))] });
        Policy::of(name, json!({ "app": app })).ingress(rule).manifest()
    };
    space.create([always("always", "server", "client"), always("never", "secret", "nobody")])?;
    let lane = |client: &str| -> Result<Lane<'_>> {
        let (open, shut) = (addresses.clone(), space.addresses("secret")?);
        Ok(Lane { space, client: client.to_owned(), open, shut })
    };
    let lanes = clients.iter().map(|client| lane(client)).collect::<Result<Vec<_>>>()?;
    super::ways::Ways::among(&[space])?.shut("near", "secret", HTTP).shut("far", "secret", HTTP).hold()?;
    for client in clients {
        keep_asking(space, client, &addresses)?;
    }
    let (changes, wrongs) = stream::during(space, &lanes, || change(space))?;
    space.note(format!("{changes} changes"));
    wrongs.none()?;
    for client in clients {
        let all = answers(space, client, &addresses)?;
        ensure!(all.iter().all(|(count, connections)| *count > 10 && *connections == 1), "{client}: {all:?}");
    }
    Ok(())
}

/// Ten policies for both servers that come, are changed eight times, and go; how many changes that were.
fn change(space: &Space<'_>) -> Result<usize> {
    let policies = |round: usize| {
        (0..10).map(move |number| -> Value {
            let app = if number % 2 == 0 { "server" } else { "secret" };
            let peer = pods(&json!({ "app": format!("client-{}", round * 10 + number) }));
            // With and without ports, of one direction and of both.
            let ports = if round.is_multiple_of(2) { json!([{ "port": 1000 + round }]) } else { json!([]) };
            let policy = Policy::of(&format!("change-{number}"), json!({ "app": app }))
                .ingress(json!({ "from": [peer], "ports": ports }));
            match round % 3 {
                0 => policy.egress(json!({})).manifest(),
                _ => policy.manifest(),
            }
        })
    };
    for round in 0..9 {
        space.apply(policies(round))?;
    }
    let names: Vec<String> = (0..10).map(|number| format!("change-{number}")).collect();
    let words: Vec<&str> =
        ["delete", "networkpolicy"].into_iter().chain(names.iter().map(String::as_str)).collect();
    space.kubectl(&words)?;
    Ok(100)
}
