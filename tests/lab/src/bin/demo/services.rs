//! What a pod needs of its node: a port of the node, and the node's address towards a world that knows no pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lab::cri::Client;
use lab::{Error, Lab};

use crate::pods::{Answers, HOST_PORT, PORT, Pod, ask_from_node, ask_from_outside};
use crate::screen::Screen;

type Shown<T> = Result<T, Box<dyn std::error::Error>>;

/// Of the outside host: on the nodes' subnet,
const NEAR: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 168, 77, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1))];
/// and beyond it, by the nodes' default route.
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)),
];

/// Gives the outside host its far addresses, and a server that says whom it sees. It has no route to any pod.
const SERVE: &str = r#"
ip address add "$1/32" dev lo
ip address add "$2/128" dev lo nodad
mkdir -p /run/outside/cgi-bin
printf '%s\n' '#!/bin/sh' 'printf "Content-Type: text/plain\r\n\r\noutside %s\n" "$REMOTE_ADDR"' \
    >/run/outside/cgi-bin/who
chmod 755 /run/outside/cgi-bin/who
exec busybox httpd -p 80 -h /run/outside"#;

/// Somebody who asked, and which addresses of theirs the asked may see.
struct Asker {
    title: String,
    may_be_seen_as: Vec<IpAddr>,
    answers: Answers,
}

impl Asker {
    /// Says and shows whether `name` answered at `target` and saw what it may.
    fn judge(&self, screen: &Screen, target: SocketAddr, name: &str) -> Shown<Option<String>> {
        let answer = self.answers.get(&target);
        let is_right =
            answer.is_some_and(|answer| answer.name == name && self.may_be_seen_as.contains(&answer.seen));
        let heard = match answer {
            Some(answer) => format!("{} answers, and sees {}", answer.name, answer.seen),
            None => "no answer".to_owned(),
        };
        let text = format!("{:<24} to {:<22} {heard}", self.title, target.to_string());
        screen.verdict(is_right, &text)?;
        Ok((!is_right).then(|| format!("{} to {target}: {heard}", self.title)))
    }
}

/// Everybody reaches the first pod by the port of its node that it asked for.
pub async fn show_host_port(
    screen: &Screen,
    lab: &Lab,
    runtimes: &[Client],
    pods: &[Pod],
) -> Shown<Vec<String>> {
    let ([node, other, ..], [cri, ..], [pod, ..]) = (lab.nodes(), runtimes, pods) else {
        return Err("too small a lab for hostPorts".into());
    };
    let name = &node.plan().name;
    screen.heading(&format!(
        "{} has hostPort {HOST_PORT}: a port of {name} that leads to its port {PORT}",
        pod.name
    ))?;
    let addresses = [IpAddr::from(node.plan().ipv4), node.plan().ipv6.into()];
    let targets = addresses.map(|address| SocketAddr::new(address, HOST_PORT));
    let localhost = SocketAddr::from((Ipv4Addr::LOCALHOST, HOST_PORT));
    let others = [IpAddr::from(other.plan().ipv4), other.plan().ipv6.into()];
    let mut askers = vec![
        asker("the outside host", &NEAR, ask_from_outside(lab, &targets)?),
        asker(&other.plan().name, &others, ask_from_node(other, &targets)?),
        asker(&format!("{name} itself"), &addresses, ask_from_node(node, &targets)?),
    ];
    for far in pods.iter().filter(|far| far.node == 1).take(1) {
        let cri = runtimes.get(far.node).ok_or("a pod on no node")?;
        askers.push(asker(&format!("pod {}", far.name), &far.addresses, far.ask(cri, &targets).await?));
    }
    askers.push(asker(&format!("{} itself", pod.name), &addresses, pod.ask(cri, &targets).await?));

    let mut faults = Vec::new();
    for asker in &askers {
        for target in targets {
            faults.extend(asker.judge(screen, target, &pod.name)?);
        }
    }
    let loopback = asker(&format!("{name} itself"), &addresses, ask_from_node(node, &[localhost])?);
    faults.extend(loopback.judge(screen, localhost, &pod.name)?);
    Ok(faults)
}

/// Every pod reaches a host that knows no pods, under its node's address.
pub async fn show_masquerade(
    screen: &Screen,
    lab: &Lab,
    runtimes: &[Client],
    pods: &[Pod],
) -> Shown<Vec<String>> {
    screen.heading("The world beyond the nodes knows no pods: it sees nodes (pods see pods, as above)")?;
    let serve = lab.outside("sh").args(["-c", SERVE, "serve"]).args(FAR.map(|it| it.to_string())).output()?;
    if !serve.status.success() {
        let reason = String::from_utf8_lossy(&serve.stderr).into_owned();
        return Err(Error::Command { command: "the outside server".to_owned(), reason }.into());
    }
    let targets = FAR.map(|address| SocketAddr::new(address, PORT));
    let mut faults = Vec::new();
    for pod in pods {
        let (Some(node), Some(cri)) = (lab.nodes().get(pod.node), runtimes.get(pod.node)) else {
            return Err("a pod on no node".into());
        };
        let addresses = [IpAddr::from(node.plan().ipv4), node.plan().ipv6.into()];
        let asker = asker(
            &format!("pod {} on {}", pod.name, node.plan().name),
            &addresses,
            pod.ask(cri, &targets).await?,
        );
        for target in targets {
            faults.extend(asker.judge(screen, target, "outside")?);
        }
    }
    Ok(faults)
}

fn asker(title: &str, may_be_seen_as: &[IpAddr], answers: Answers) -> Asker {
    Asker { title: title.to_owned(), may_be_seen_as: may_be_seen_as.to_owned(), answers }
}
