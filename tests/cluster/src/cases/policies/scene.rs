//! What the cases of disturbance look at: clients, servers, and policies of both directions, on two nodes.

use std::net::IpAddr;

use serde_json::json;

use super::STARTS;
use super::manifest::{Policy, pods};
use super::stream::Lane;
use super::ways::Ways;
use crate::pod::{HTTP, Pod};
use crate::process::Result;
use crate::space::Space;

/// Makes it: `server` is for clients, `secret` for nobody, `other` for everybody but `near`, which may send to `server`
/// only. `addresses`: those that `secret` asks for, if any.
pub fn make(space: &Space<'_>, addresses: &[IpAddr]) -> Result {
    let (first, second) = (space.worker(0)?, space.worker(1)?);
    let client = |name: &str| Pod::running(name, &space.agnhost, &["pause"]).labelled("role", "client");
    let mut secret = Pod::server("secret", &space.agnhost).on(first);
    if !addresses.is_empty() {
        let list = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        secret = secret.annotated("ferrule.dev/ips", &list);
    }
    let of = |name: &str| Policy::of(name, json!({ "app": name }));
    space.create([
        of("server").ingress(json!({ "from": [pods(&json!({ "role": "client" }))] })).manifest(),
        of("secret").isolating("Ingress").manifest(),
        of("near").egress(json!({ "to": [pods(&json!({ "app": "server" }))] })).manifest(),
        Pod::server("server", &space.agnhost).on(first).manifest(),
        secret.manifest(),
        Pod::server("other", &space.agnhost).on(second).manifest(),
        client("near").on(first).manifest(),
        client("far").on(second).manifest(),
    ])?;
    space.all_ready(STARTS)?;
    is_as_made(space)
}

/// That all is as the policies say.
pub fn is_as_made(space: &Space<'_>) -> Result {
    Ways::among(&[space])?
        .open("near", "server", HTTP)
        .open("far", "server", HTTP)
        .open("far", "other", HTTP)
        .shut("near", "secret", HTTP)
        .shut("near", "other", HTTP)
        .shut("far", "secret", HTTP)
        .shut("other", "server", HTTP)
        .hold()
}

/// Connections from both clients.
pub fn lanes<'s>(space: &'s Space<'_>) -> Result<Vec<Lane<'s>>> {
    let of = |pod: &str| space.addresses(pod);
    let lane = |client: &str, open, shut| Lane { space, client: client.to_owned(), open, shut };
    Ok(vec![
        lane("near", of("server")?, [of("secret")?, of("other")?].concat()),
        lane("far", [of("server")?, of("other")?].concat(), of("secret")?),
    ])
}
