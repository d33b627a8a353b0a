//! `ferrulectl`, for the people who run a node.

use std::process::Output;

use lab::cri::Client;
use lab::{Lab, Node};

use crate::pods::Pod;
use crate::screen::Screen;

type Shown<T> = Result<T, Box<dyn std::error::Error>>;

const PROGRAM: &str = "/opt/cni/bin/ferrulectl";

/// `inspect`; then `doctor` before, during and after a trouble that the next pod puts right.
pub async fn show(screen: &Screen, lab: &Lab, runtimes: &[Client], pods: &[Pod]) -> Shown<Vec<String>> {
    let ([node, other, ..], [cri, ..]) = (lab.nodes(), runtimes) else {
        return Err("too small a lab to look at".into());
    };
    let name = &node.plan().name;
    let mut faults = Vec::new();
    let mut expect = |holds: bool, text: &str| -> Shown<()> {
        screen.verdict(holds, text)?;
        faults.extend((!holds).then(|| format!("not so: {text}")));
        Ok(())
    };

    screen.heading(&format!("What ferrulectl says on {name}"))?;
    let inspected = say(screen, node, "inspect")?;
    let said = String::from_utf8_lossy(&inspected.stdout).into_owned();
    let is_listed = |pod: &Pod| {
        let line = said.lines().find(|line| line.starts_with(&format!("demo/{} ", pod.name)));
        line.is_some_and(|line| {
            line.ends_with("alive") && pod.addresses.iter().all(|it| line.contains(&it.to_string()))
        })
    };
    let own: Vec<&Pod> = pods.iter().filter(|pod| pod.node == 0).collect();
    expect(
        inspected.status.success() && own.iter().all(|pod| is_listed(pod)),
        &format!("its {} pods are listed, alive, with their addresses", own.len()),
    )?;

    let well = say(screen, node, "doctor")?;
    expect(well.status.success(), "doctor finds nothing, exit status 0")?;

    let lost = &other.plan().pod_cidr_v4;
    screen
        .heading(&format!("Somebody deletes {name}'s route to {lost}, the pods of {}", other.plan().name))?;
    node.run("ip", &["route", "delete", lost])?;
    let ill = say(screen, node, "doctor")?;
    let names_it = String::from_utf8_lossy(&ill.stdout).contains(lost.as_str());
    expect(ill.status.code() == Some(1) && names_it, "doctor names the route, exit status 1")?;

    let pod = Pod::run(cri, node, 0, "a3", false).await?;
    let cured = say(screen, node, "doctor")?;
    expect(cured.status.success(), "after the next pod, a3, doctor finds nothing")?;
    cri.stop_pod(&pod.id).await?;
    cri.remove_pod(&pod.id).await?;
    Ok(faults)
}

/// Runs a verb on the node and shows all that it says.
fn say(screen: &Screen, node: &Node, verb: &str) -> Shown<Output> {
    let output = node.command(PROGRAM).arg(verb).output()?;
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    screen.quote(&format!("ferrulectl {verb}"), &said.concat())?;
    Ok(output)
}
