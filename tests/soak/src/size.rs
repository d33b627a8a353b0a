//! What the next call costs on a node that is full, in a network of thousands, or among thousands of routes: against the
//! same call on an empty node, in turns, so that whatever else the machine does hits all alike.

use crate::Failure;
use crate::call::{Call, Ended, Outcome, Plugin, Verb, attachment};
use crate::node::{NODE_IPS, prepare_underlay};
use crate::system::{End, Namespaces, ip_batch, remove_namespace};
use kit::at_once;
use kit::netns::inside;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// ADDs at once where a node is filled.
const WIDTH: usize = 8;

/// Rounds in which memory is measured.
const WEIGHED: usize = 3;

/// How much there is of everything, and how often it is looked at.
pub struct Size {
    /// Pods that the node holds.
    pub pods: usize,
    /// Routes that are none of ferrule's, half of them IPv6.
    pub routes: usize,
    /// Other nodes in the conf.
    pub peers: usize,
    /// Rounds.
    pub rounds: usize,
}

/// A node with one of the loads.
struct Site {
    name: String,
    namespace: PathBuf,
    conf: Value,
    /// The attachments that stand, for GC.
    valid: Vec<Value>,
    /// By row: how long, and how much memory in KiB.
    rows: Vec<(Vec<Duration>, Vec<u64>)>,
}

/// What is measured: a pod's life, and once more with limits of bandwidth and a hostPort.
const ROWS: [&str; 7] =
    ["ADD", "CHECK", "STATUS", "GC, nothing to do", "DEL", "ADD, limits, hostPort", "DEL of that"];

/// Measures, and says what came out.
///
/// # Errors
/// Where anything fails. Times are not judged.
pub fn measure(size: &Size, plugin: &Plugin, work: &Path, say: impl Fn(&str)) -> Result<(), Failure> {
    let crowd =
        Crowd { plugin, namespaces: Namespaces::default(), end: End::default(), next: AtomicUsize::new(0) };
    let site = |name: String, peers| crowd.site(name, work, peers);
    let mut sites = [
        site("an empty node".to_owned(), 0)?,
        site(format!("{} foreign routes", size.routes), 0)?,
        site(format!("{} peers", size.peers), size.peers)?,
        site(format!("{} pods", size.pods), 0)?,
    ];
    let [_, among_routes, _, full] = &mut sites;
    inside(&among_routes.namespace, || add_routes(size.routes))?;
    say(&format!("{}: making them", full.name));
    crowd.fill(full, size.pods)?;
    say(&crowd.compare(&mut sites, size.rounds)?);

    // All of it at once, on the node that is full already.
    let [empty, _, among_peers, full] = sites;
    let mut sites = [empty, full];
    let [_, full] = &mut sites;
    full.name = "all of it".to_owned();
    full.conf["peers"] = among_peers.conf["peers"].clone();
    inside(&full.namespace, || add_routes(size.routes))?;
    say(&crowd.compare(&mut sites, size.rounds)?);
    Ok(())
}

/// Who makes pods and calls.
struct Crowd<'a> {
    plugin: &'a Plugin,
    namespaces: Namespaces,
    end: End,
    next: AtomicUsize,
}

impl Crowd<'_> {
    fn site(&self, name: String, work: &Path, peers: usize) -> Result<Site, Failure> {
        let namespace = self.namespaces.take()?;
        inside(&namespace, prepare_underlay)?;
        let data_dir = work.join(format!("size-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let conf = json!({
            "cniVersion": "1.1.0",
            "name": "size",
            "type": "ferrule",
            "ipMasq": true,
            "nodeIPs": NODE_IPS,
            "peers": (0..peers).map(peer).collect::<Vec<_>>(),
            "ipam": {
                "type": "ferrule",
                "ranges": [[{ "subnet": "10.240.0.0/19" }], [{ "subnet": "fd00:240::/64" }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                "dataDir": data_dir,
            },
        });
        Ok(Site { name, namespace, conf, valid: Vec::new(), rows: Vec::new() })
    }

    /// Attaches so many pods, which stay.
    fn fill(&self, site: &mut Site, pods: usize) -> Result<(), Failure> {
        let (namespace, conf) = (&site.namespace, &site.conf);
        let added = at_once(pods, WIDTH, |_| {
            inside(namespace, || {
                let (id, netns) = self.sandbox()?;
                self.run(Verb::Add, conf.clone(), Some((&id, &netns)), false)?;
                Ok(json!({ "containerID": id, "ifname": "eth0" }))
            })
        });
        site.valid = added.into_iter().collect::<Result<_, Failure>>()?;
        Ok(())
    }

    /// Rounds of everything at each of the sites, the first of which the others are held against.
    fn compare(&self, sites: &mut [Site], rounds: usize) -> Result<String, Failure> {
        for site in &mut *sites {
            // The first call makes what the node needs.
            self.live(site, false)?;
            site.rows = vec![(Vec::new(), Vec::new()); ROWS.len()];
        }
        for round in 0..rounds + WEIGHED {
            for site in &mut *sites {
                let ended = self.live(site, round >= rounds)?;
                for ((times, peaks), ended) in site.rows.iter_mut().zip(ended) {
                    match ended.peak {
                        Some(peak) => peaks.push(peak),
                        None => times.push(ended.elapsed),
                    }
                }
            }
        }
        Ok(report(sites))
    }

    /// A pod's life and another's, as [`ROWS`] has them.
    fn live(&self, site: &Site, is_weighed: bool) -> Result<Vec<Ended>, Failure> {
        let (id, netns) = self.sandbox()?;
        let pod = Some((id.as_str(), netns.as_path()));
        let lives = inside(&site.namespace, || {
            let mut all = Vec::new();
            let mut conf = site.conf.clone();
            let added = self.run(Verb::Add, conf.clone(), pod, is_weighed)?;
            if let Outcome::Success(result) = &added.outcome {
                conf["prevResult"] = result.clone();
            }
            all.push(added);
            all.push(self.run(Verb::Check, conf, pod, is_weighed)?);
            all.push(self.run(Verb::Status, site.conf.clone(), None, is_weighed)?);
            let mut conf = site.conf.clone();
            let own = json!({ "containerID": id, "ifname": "eth0" });
            conf["cni.dev/valid-attachments"] = site.valid.iter().cloned().chain([own]).collect();
            all.push(self.run(Verb::Gc, conf, None, is_weighed)?);
            all.push(self.run(Verb::Del, site.conf.clone(), pod, is_weighed)?);
            let mut conf = site.conf.clone();
            conf["runtimeConfig"] = json!({
                "portMappings": [{ "hostPort": 8_080, "containerPort": 80, "protocol": "tcp" }],
                "bandwidth": {
                    "ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 8_000_000, "egressBurst": 80_000
                },
            });
            for verb in [Verb::Add, Verb::Del] {
                all.push(self.run(verb, conf.clone(), pod, is_weighed)?);
            }
            Ok::<_, Failure>(all)
        })?;
        remove_namespace(&netns)?;
        Ok(lives)
    }

    fn sandbox(&self) -> Result<(String, PathBuf), Failure> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok((format!("{number:064x}"), self.namespaces.take()?))
    }

    /// Must succeed.
    fn run(
        &self,
        verb: Verb,
        conf: Value,
        pod: Option<(&str, &Path)>,
        is_weighed: bool,
    ) -> Result<Ended, Failure> {
        let attachment = pod.and_then(|(id, netns)| attachment(id, netns));
        let ended = self.plugin.run(&Call { verb, attachment, conf, blow: None, is_weighed }, &self.end)?;
        match &ended.outcome {
            Outcome::Success(_) => Ok(ended),
            other => Err(format!("{}: {other}", verb.name()).into()),
        }
    }
}

/// A peer of both families, its next hops on the underlay.
fn peer(number: usize) -> Value {
    let (high, low) = (number / 250, number % 250);
    json!({
        "node": format!("node-{number}"),
        "podCIDRs": [format!("11.{high}.{low}.0/24"), format!("fd00:11:{high:x}:{low:x}::/64")],
        "nodeIPs": [format!("192.168.{}.{}", high + 1, low + 1), format!("fd00:1::{:x}:{:x}", high + 1, low + 1)],
    })
}

/// Routes of a routing daemon, half of them IPv6.
fn add_routes(count: usize) -> Result<(), Failure> {
    let mut batch = String::new();
    for number in 0..count / 2 {
        let (high, low) = (number / 250, number % 250);
        let _ = writeln!(batch, "route add 12.{high}.{low}.0/24 via 192.168.0.2 proto bird");
        let _ = writeln!(batch, "route add fd00:12:{high:x}:{low:x}::/64 via fd00:1::2 proto bird");
    }
    ip_batch(&batch)
}

/// Median time and most memory at the first site, and how many times as much the others take.
fn report(sites: &[Site]) -> String {
    let mut text = format!("\n{:<24}", "");
    for site in sites {
        let _ = write!(text, "{:>24}", site.name);
    }
    for (place, row) in ROWS.iter().enumerate() {
        let _ = write!(text, "\n{row:<24}");
        let mut first = None;
        for (times, peaks) in sites.iter().filter_map(|site| site.rows.get(place)) {
            let mut sorted = times.clone();
            sorted.sort_unstable();
            let time = sorted.get(sorted.len() / 2).map(Duration::as_secs_f64).unwrap_or_default();
            let peak = peaks.iter().max().map(|&peak| peak as f64).unwrap_or_default();
            let cell = match first {
                None => format!("{:.1} ms, {:.1} MiB", time * 1e3, peak / 1024.0),
                Some((first_time, first_peak)) => {
                    format!("x{:.2}, x{:.2}", time / first_time, peak / first_peak)
                }
            };
            first = first.or(Some((time, peak)));
            let _ = write!(text, "{cell:>24}");
        }
    }
    text
}
