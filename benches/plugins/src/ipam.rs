//! The address management call alone, as another main plugin makes it, while many addresses are held.

use crate::burst::run_all;
use crate::contender::FERRULE;
use crate::invocation::Invocation;
use crate::lab::{Lab, Pod};
use crate::report::{Report, Samples, Table};
use crate::{Effort, Failure};
use serde_json::json;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

const HOST_LOCAL: &str = "host-local";
const NETWORK: &str = "benchipam";
/// What the promise is about; a quick run does not get there.
const FULLEST: usize = 60_000;
const SUBNET: Ipv4Addr = Ipv4Addr::new(10, 207, 0, 0);

/// One address manager with so many addresses held.
struct Store {
    plugin: &'static str,
    program: PathBuf,
    held: usize,
    data_dir: PathBuf,
    conf: String,
    adds: Samples,
    dels: Samples,
}

/// Fills "IPAM" of the report.
pub fn measure(lab: &Lab, effort: &Effort, report: &mut Report) -> Result<(), Failure> {
    let pod = lab.make_pod()?;
    let mut stores = Vec::new();
    for (plugin, program) in [(FERRULE, lab.ferrule()), (HOST_LOCAL, lab.plugin(HOST_LOCAL))] {
        let empty = Store::new(lab, plugin, program.clone(), 0);
        // As soon as one call works, a failing one is a failure of the run.
        if let Err(reason) = empty.works(lab, &pod) {
            report.left_out(&format!("{plugin} as IPAM plugin"), &reason.to_string());
            continue;
        }
        for &held in effort.held {
            let store = Store::new(lab, plugin, program.clone(), held);
            eprintln!("{plugin}: {held} addresses held");
            store.fill(lab, &pod)?;
            stores.push(store);
        }
    }

    eprintln!("address management: {} rounds", effort.calls);
    for round in 0..effort.calls {
        let container = format!("{round:064x}");
        for store in &mut stores {
            store.adds.push(store.call(lab, "ADD", &container, &pod).run()?.elapsed);
            store.dels.push(store.call(lab, "DEL", &container, &pod).run()?.elapsed);
        }
    }

    let empty = [name(FERRULE, 0), name(HOST_LOCAL, 0)];
    let references = empty.each_ref().map(String::as_str);
    let mut adds = Table::new("IPAM alone, ADD, by addresses held", &references);
    let mut dels = Table::new("IPAM alone, DEL, by addresses held", &references);
    for store in &stores {
        adds.row(&name(store.plugin, store.held), &store.adds);
        dels.row(&name(store.plugin, store.held), &store.dels);
    }
    let fullest = name(FERRULE, FULLEST);
    report.measured("IPAM ADD at 60,000 to empty", adds.ratio(&fullest, &empty[0]));
    report.measured("IPAM DEL at 60,000 to empty", dels.ratio(&fullest, &empty[0]));
    report.show(adds);
    report.show(dels);
    Ok(())
}

fn name(plugin: &str, held: usize) -> String {
    format!("{plugin} {held}")
}

impl Store {
    fn new(lab: &Lab, plugin: &'static str, program: PathBuf, held: usize) -> Store {
        let data_dir = lab.data_dir(&format!("{plugin}-{held}"));
        let conf = json!({
            "cniVersion": "1.0.0",
            "name": NETWORK,
            "type": "bridge",
            "ipam": {
                "type": plugin,
                "ranges": [[{ "subnet": format!("{SUBNET}/16") }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
                "dataDir": data_dir,
            },
        });
        let (adds, dels) = (Samples::default(), Samples::default());
        Store { plugin, program, held, data_dir, conf: conf.to_string(), adds, dels }
    }

    fn call(&self, lab: &Lab, command: &str, container: &str, pod: &Pod) -> Invocation {
        Invocation::of_plugin(
            &self.program,
            command,
            Some((container, &pod.netns)),
            lab.plugins(),
            &self.conf,
        )
    }

    fn works(&self, lab: &Lab, pod: &Pod) -> Result<(), Failure> {
        let answer = self.call(lab, "ADD", "probe", pod).run()?.answer;
        if !answer.contains("/16") {
            return Err(format!("ADD succeeds without an address: {answer:?}").into());
        }
        self.call(lab, "DEL", "probe", pod).run()?;
        Ok(())
    }

    /// ferrule is filled by asking it, as only that makes a store that it would have made. host-local takes hours
    /// for that, and its store is simple: a file for each address, with the holder in it.
    fn fill(&self, lab: &Lab, pod: &Pod) -> Result<(), Failure> {
        let holders = (0..self.held).map(|i| format!("{:064x}", i + 1_000_000));
        if self.plugin == FERRULE {
            let adds: Vec<_> = holders.map(|container| self.call(lab, "ADD", &container, pod)).collect();
            run_all(&adds, 2)?;
            return Ok(());
        }
        let directory = self.data_dir.join(NETWORK);
        fs::create_dir_all(&directory)?;
        let mut address = u32::from(SUBNET) + 1;
        for container in holders {
            address += 1;
            fs::write(directory.join(Ipv4Addr::from(address).to_string()), format!("{container}\r\neth0"))?;
        }
        if self.held > 0 {
            fs::write(directory.join("last_reserved_ip.0"), Ipv4Addr::from(address).to_string())?;
        }
        Ok(())
    }
}
