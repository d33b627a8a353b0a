//! Without the API server: nobody learns of a new pod, and kubelet starts some all the same.

use serde_json::json;

use super::manifest::{Policy, pods};
use super::scene;
use super::stream;
use super::ways::Ways;
use crate::agents::KILL;
use crate::cases::attack::api_server::{Away, STARTS, addresses_of, is_back, put, remove_manifests};
use crate::cases::workloads::sandbox_of;
use crate::cluster::Node;
use crate::ensure;
use crate::fetch::Asker;
use crate::pod::HTTP;
use crate::process::{Result, eventually};
use crate::space::Space;

/// A pod's network, entered on its node: no API server is needed for it.
struct Inside<'n> {
    node: &'n Node,
    process: String,
}

impl Asker for Inside<'_> {
    fn run(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["nsenter", "--target", &self.process, "--net", "--"];
        all.extend(words);
        self.node.run(&all)
    }
}

/// Pods of before are as isolated as before. A new one in a namespace with policies is not open, and as its policies say once
/// the API server is back; one in a namespace without policies starts as ever. The agent of its node dies meanwhile.
pub fn an_api_server_that_is_away_opens_and_shuts_nothing(space: &Space<'_>) -> Result {
    scene::make(space, &[])?;
    let far = json!([pods(&json!({ "app": "far" }))]);
    let of_static = Policy::of("static", json!({ "app": "static-held" })).ingress(json!({ "from": far }));
    space.create([of_static.manifest()])?;
    let outcome = stream::during(space, &scene::lanes(space)?, || {
        let outcome = without(space);
        eventually("the API server is back", STARTS, || space.kubectl(&["get", "--raw", "/readyz"]))?;
        is_back(space)?;
        outcome
    });
    let removed = remove_manifests(space);
    let (_, wrongs) = outcome?;
    removed?;
    wrongs.none()?;
    scene::is_as_made(space)
}

fn without(space: &Space<'_>) -> Result {
    let (node, other) = (space.worker(0)?, space.worker(1)?);
    let near = Inside { node, process: sandbox_of(space, node, "near")? };
    let far = Inside { node: other, process: sandbox_of(space, other, "far")? };
    let ways = Ways::among(&[space])?;
    let away = Away::take(space.control_plane()?)?;
    let killed = node.shell(&format!("{KILL}\nkill_agent; echo $killed"))?;
    ensure!(killed.trim() == "1", "{killed} agents were killed");
    put(space, node, "static-held", space.name())?;
    put(space, node, "static-free", "default")?;
    let held = addresses_of(space, node, "static-held")?;
    let free = addresses_of(space, node, "static-free")?;
    ways.from(node, "its node", "static-held", &held, HTTP, true)
        .from(&near, "near", "static-held", &held, HTTP, false)
        .from(&far, "far", "static-held", &held, HTTP, false)
        .from(&far, "far", "static-free", &free, HTTP, true)
        .hold()?;
    drop(away);
    eventually("the API server is back", STARTS, || space.kubectl(&["get", "--raw", "/readyz"]))?;
    is_back(space)?;
    let name = format!("pod/static-held-{}", node.name);
    space.kubectl(&["wait", "--for=create", &name, "--timeout=60s"])?;
    Ways::among(&[space])?
        .from(&near, "near", "static-held", &held, HTTP, false)
        .from(&far, "far", "static-held", &held, HTTP, true)
        .hold()
}
