//! Who reaches whom: the questions asked, judged cell by cell, and the table that shows it.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lab::cri::Client;
use lab::{Lab, Node};

use crate::pods::{Answers, PORT, Pod, ask_from_node};
use crate::screen::{Mood, Screen};

type Shown<T> = Result<T, Box<dyn std::error::Error>>;

/// One row: somebody who asked every pod at each of its addresses.
struct Row {
    /// A pod's or a node's name.
    name: String,
    /// The addresses that the asked may see: a pod's own, or any of a node's.
    own: Vec<IpAddr>,
    /// What came back.
    answers: Answers,
}

impl Row {
    /// Why this pod, at this address, was not reached as it should be.
    fn fault(&self, pod: &Pod, address: IpAddr) -> Option<String> {
        let told = |what: String| Some(format!("{} to {} at {address}: {what}", self.name, pod.name));
        match self.answers.get(&SocketAddr::new(address, PORT)) {
            None => told("no answer".to_owned()),
            Some(answer) if answer.name != pod.name => told(format!("{} answered", answer.name)),
            Some(answer) if !self.own.contains(&answer.seen) => {
                told(format!("the sender was seen as {}, which is not its own", answer.seen))
            }
            Some(_) => None,
        }
    }
}

/// Every pod and every node asks every pod at each of its addresses. Says what did not go as promised.
pub async fn show_everybody(
    screen: &Screen,
    lab: &Lab,
    runtimes: &[Client],
    pods: &[Pod],
) -> Shown<Vec<String>> {
    screen.heading("Everybody asks every pod, over TCP and both IP families")?;
    let legend =
        "4, 6: answered over IPv4, IPv6, by the right pod, which saw an address of the asker; ✗: not so";
    screen.line(&format!("  {}\n", screen.paint(Mood::Faint, legend)))?;
    let addresses = pods.iter().flat_map(|pod| pod.addresses.clone());
    let targets: Vec<SocketAddr> = addresses.map(|address| SocketAddr::new(address, PORT)).collect();
    let mut rows = Vec::new();
    for pod in pods {
        let cri = runtimes.get(pod.node).ok_or("a pod on no node")?;
        let answers = pod.ask(cri, &targets).await?;
        rows.push(Row { name: pod.name.clone(), own: pod.addresses.clone(), answers });
    }
    for node in lab.nodes() {
        let answers = ask_from_node(node, &targets)?;
        rows.push(Row { name: node.plan().name.clone(), own: addresses_of(node)?, answers });
    }
    let faults = show_table(screen, pods, &rows)?;
    screen.line("")?;
    let cells = rows.len() * pods.len() * 2;
    let text = format!(
        "{} of {cells} questions answered by the pod that was asked, which saw the asker's own address",
        cells - faults.len()
    );
    screen.verdict(faults.is_empty(), &text)?;
    Ok(faults)
}

/// The two containers of a pod share its network: the second asks the first's server on localhost.
pub async fn show_localhost(screen: &Screen, runtimes: &[Client], pods: &[Pod]) -> Shown<Vec<String>> {
    let mut faults = Vec::new();
    for pod in pods {
        let (Some(sidecar), Some(cri)) = (&pod.sidecar, runtimes.get(pod.node)) else { continue };
        let sidecar = Pod { server: sidecar.clone(), ..pod.clone() };
        let localhost = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let answers = sidecar.ask(cri, &[localhost]).await?;
        let is_reached = answers.get(&localhost).is_some_and(|answer| answer.name == pod.name);
        screen.verdict(
            is_reached,
            &format!("the second container of {} asks the first at 127.0.0.1", pod.name),
        )?;
        if !is_reached {
            faults.push(format!("the containers of {} do not reach each other on localhost", pod.name));
        }
    }
    Ok(faults)
}

fn addresses_of(node: &Node) -> Shown<Vec<IpAddr>> {
    let links: serde_json::Value = serde_json::from_str(&node.run("ip", &["-json", "address"])?)?;
    let lists = links.as_array().into_iter().flatten().filter_map(|link| link.get("addr_info")?.as_array());
    let addresses = lists.flatten().filter_map(|address| address.get("local")?.as_str()?.parse().ok());
    Ok(addresses.collect())
}

/// Prints the table and says what is wrong in it: one sentence for each cell and family, none if all is well.
fn show_table(screen: &Screen, pods: &[Pod], rows: &[Row]) -> io::Result<Vec<String>> {
    let mut faults = Vec::new();
    let names: String = pods.iter().map(|pod| format!("{:<6}", pod.name)).collect();
    let head = format!("  {:<10}{names}seen by them as", "from \\ to");
    screen.line(&screen.paint(Mood::Faint, &head))?;
    for row in rows {
        let mut cells = String::new();
        for pod in pods {
            for family in [4, 6] {
                let address = pod.addresses.iter().find(|address| address.is_ipv4() == (family == 4));
                let fault = match address {
                    Some(address) => row.fault(pod, *address),
                    None => Some(format!("{} has no IPv{family} address", pod.name)),
                };
                let cell = match &fault {
                    None => screen.paint(Mood::Good, &family.to_string()),
                    Some(_) => screen.paint(Mood::Bad, "✗"),
                };
                cells.push_str(&cell);
                cells.push(' ');
                faults.extend(fault);
            }
            cells.push_str("  ");
        }
        let seen: BTreeSet<IpAddr> = row.answers.values().map(|answer| answer.seen).collect();
        let seen: Vec<String> = seen.iter().map(IpAddr::to_string).collect();
        screen.line(&format!("  {:<10}{cells}{}", row.name, seen.join("  ")))?;
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::Answer;

    const POD: [u8; 4] = [10, 244, 1, 2];

    fn pod() -> Pod {
        let name = "a1".to_owned();
        let addresses = vec![POD.into()];
        Pod { name, node: 0, id: String::new(), server: String::new(), sidecar: None, addresses, pid: 1 }
    }

    fn row(answer: Option<(&str, [u8; 4])>) -> Row {
        let answer = answer
            .map(|(name, seen)| ((POD, PORT).into(), Answer { name: name.to_owned(), seen: seen.into() }));
        Row {
            name: "b1".to_owned(),
            own: vec![[10, 244, 2, 2].into()],
            answers: answer.into_iter().collect(),
        }
    }

    #[test]
    fn silence_another_pod_and_a_rewritten_source_are_faults() {
        let fault = |answer| row(answer).fault(&pod(), POD.into());
        assert_eq!(fault(Some(("a1", [10, 244, 2, 2]))), None);
        assert_eq!(fault(None).as_deref(), Some("b1 to a1 at 10.244.1.2: no answer"));
        assert_eq!(
            fault(Some(("a2", [10, 244, 2, 2]))).as_deref(),
            Some("b1 to a1 at 10.244.1.2: a2 answered")
        );
        let rewritten = fault(Some(("a1", [192, 168, 77, 12])));
        assert!(rewritten.is_some_and(|text| text.contains("seen as 192.168.77.12")));
    }
}
