//! The plugin `loopback`, which runtimes execute for every pod before its network: ferrule against the reference plugin.

use crate::contender::FERRULE;
use crate::invocation::Invocation;
use crate::lab::{Lab, Pod};
use crate::report::{Report, Samples, Table};
use crate::single::order;
use crate::{Effort, Failure};
use std::path::PathBuf;

const REFERENCE: &str = "loopback";
/// What containerd writes.
const CONF: &str = r#"{"cniVersion":"0.3.1","name":"cni-loopback","type":"loopback"}"#;

/// Fills "lo" of the report.
pub fn measure(lab: &Lab, effort: &Effort, report: &mut Report) -> Result<(), Failure> {
    let contenders: [(&str, PathBuf); 2] = [(FERRULE, lab.ferrule()), (REFERENCE, lab.plugin(REFERENCE))];
    let mut samples = [(); 2].map(|()| (Samples::default(), Samples::default()));
    let call = |program: &PathBuf, command: &str, pod: &Pod| {
        let attachment = Some((pod.container.as_str(), pod.netns.as_path()));
        Invocation::of_plugin(program, command, attachment, lab.plugins(), CONF).run()
    };
    for (name, program) in &contenders {
        let pod = lab.make_pod()?;
        let answer = call(program, "ADD", &pod)?.answer;
        if !answer.contains("::1/128") {
            return Err(format!("{name}: ADD succeeds without an address: {answer:?}").into());
        }
        lab.end_pods(&[pod])?;
    }

    eprintln!("lo: {} rounds", effort.single);
    for round in 0..effort.single {
        let pods = lab.make_pods(contenders.len())?;
        for i in order(contenders.len(), round) {
            samples[i].0.push(call(&contenders[i].1, "ADD", &pods[i])?.elapsed);
        }
        for i in order(contenders.len(), round) {
            samples[i].1.push(call(&contenders[i].1, "DEL", &pods[i])?.elapsed);
        }
        lab.end_pods(&pods)?;
    }

    let mut adds = Table::new("ADD of lo", &[REFERENCE]);
    let mut dels = Table::new("DEL of lo", &[REFERENCE]);
    for ((name, _), (add, del)) in contenders.iter().zip(&samples) {
        adds.row(name, add);
        dels.row(name, del);
    }
    report.measured("ADD of lo to loopback", adds.ratio(FERRULE, REFERENCE));
    report.show(adds);
    report.show(dels);
    Ok(())
}
