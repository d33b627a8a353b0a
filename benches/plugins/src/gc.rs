//! Garbage collection: what a runtime that lost its pods asks for.

use crate::burst::run_all;
use crate::contender::{Contender, FERRULE, ferrule_conf};
use crate::invocation::Invocation;
use crate::lab::{Lab, Pod};
use crate::report::{Report, Samples, Table};
use crate::{Effort, Failure};
use serde_json::json;
use std::fs;
use std::time::{Duration, Instant};

const ATTACHMENTS: usize = 200;
const NETWORK: &str = "benchgc";

/// Fills "GC" of the report.
pub fn measure(lab: &Lab, effort: &Effort, report: &mut Report) -> Result<(), Failure> {
    eprintln!("garbage collection: {} rounds", effort.collections);
    let mut dead = Samples::default();
    let mut alive = Samples::default();
    for _ in 0..effort.collections {
        dead.push(collect(lab, |pods| {
            lab.end_pods(pods)?;
            wait_for_links_to_go(lab)
        })?);
        alive.push(collect(lab, |_| Ok(()))?);
    }
    report.measured("GC in ms", Some(dead.median().as_secs_f64() * 1e3));
    let mut table = Table::new(&format!("one GC of {ATTACHMENTS} attachments, none of them valid"), &[]);
    table.row(&format!("{FERRULE}, namespaces gone"), &dead);
    table.row(&format!("{FERRULE}, namespaces and links still there"), &alive);
    report.show(table);
    Ok(())
}

/// Attaches pods, lets something happen to them, and times one GC that is told that none of them is valid.
fn collect(lab: &Lab, happen: impl Fn(&[Pod]) -> Result<(), Failure>) -> Result<Duration, Failure> {
    let mut conf = ferrule_conf(lab, NETWORK, "10.206.0.0/16", "fd00:10:206::/64");
    conf["cniVersion"] = json!("1.1.0");
    let ferrule = Contender::ferrule(lab, &conf);
    let mut pods = lab.make_pods(ATTACHMENTS)?;
    run_all(&pods.iter().map(|pod| ferrule.add(pod)).collect::<Vec<_>>(), 2)?;
    happen(&pods)?;

    conf["cni.dev/valid-attachments"] = json!([]);
    let gc = Invocation::of_plugin(&lab.ferrule(), "GC", None, lab.plugins(), &conf.to_string());
    let elapsed = gc.run()?.elapsed;

    let records = fs::read_dir(lab.data_dir(FERRULE).join(NETWORK).join("by-id"))?.count();
    let links = lab.count_pod_links()?;
    if records + links > 0 {
        return Err(format!("after GC, {records} records and {links} links are left").into());
    }
    pods.retain(|pod| pod.netns.exists());
    lab.end_pods(&pods)?;
    Ok(elapsed)
}

/// The kernel takes a namespace apart after its last user is gone, in its own time.
fn wait_for_links_to_go(lab: &Lab) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while lab.count_pod_links()? > 0 {
        if Instant::now() > deadline {
            return Err("the links of killed pods do not go".into());
        }
    }
    Ok(())
}
