//! The plugin `loopback`: a runtime executes one of that name for every pod (containerd up to 2.2), and where a
//! distribution brings none, ferrule is it.
//!
//! | command    | does                                                                                      |
//! |------------|-------------------------------------------------------------------------------------------|
//! | ADD        | `lo` up; answers what the kernel gave it, or passes on the result of the plugins before it  |
//! | DEL        | `lo` down, if its namespace is there                                                       |
//! | CHECK      | is it up, with the addresses that ADD answered?                                            |
//! | STATUS, GC | nothing: there is nothing to run out of, and nothing that outlives its namespace           |
//!
//! No store, no record, and no look at the node: everything is in the pod's namespace, and goes with it. The interface is
//! `lo`, whatever CNI_IFNAME says.

use std::io::Write;

use ipnetwork::IpNetwork;

use crate::attachments::set_up::open_sandbox;
use crate::cni::env::Command;
use crate::cni::error::{CniError, Code};
use crate::cni::request::{Request, version_answer};
use crate::cni::result::{AddResult, Interface, IpConfig};
use crate::config::loopback::LoopbackConf;
use crate::linux::change::Change;
use crate::linux::link::{LinkRef, LinkSettings};
use crate::linux::netlink::Netlink;
use crate::linux::netns::{Netns, NetnsError, NetnsIdentity};
use crate::plugin::result;

/// Its name, which the kernel has given in every namespace.
const LO: &str = "lo";

/// Its index in every namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
const INDEX: u32 = 1;

/// Runs the command of a conf of type `loopback`.
///
/// # Errors
/// The answer to give instead.
pub async fn run(request: &Request, stdout: &mut dyn Write) -> Result<(), CniError> {
    match request.environment.command {
        Command::Version => result::write(stdout, &version_answer(request.conf.version)),
        Command::Add => add(request, stdout).await,
        Command::Del => del(request).await,
        Command::Check => check(request).await,
        Command::Status | Command::Gc => LoopbackConf::read(&request.conf).map(drop),
    }
}

/// With the link up, the kernel gives it 127.0.0.1/8, and ::1/128 where it has IPv6, before it acknowledges that.
async fn add(request: &Request, stdout: &mut dyn Write) -> Result<(), CniError> {
    let conf = LoopbackConf::read(&request.conf)?;
    let path = request.environment.required_netns()?;
    let netlink = Netlink::open_in(&open_sandbox(path)?)?;
    set(&netlink, true).await?;
    let answer = match conf.prev_result {
        Some(previous) => previous,
        None => AddResult {
            interfaces: vec![Interface {
                name: LO.to_owned(),
                mac: Some("00:00:00:00:00:00".to_owned()),
                sandbox: Some(path.to_string()),
                ..Interface::default()
            }],
            // What somebody else gave it is not ours to report.
            ips: addresses(&netlink)
                .await?
                .into_iter()
                .filter(|address| address.ip().is_loopback())
                .map(|address| IpConfig { address, gateway: None, interface: Some(0) })
                .collect(),
            ..AddResult::default()
        },
    };
    result::write(stdout, &answer.to_json(request.conf.version))
}

/// The path may lead elsewhere by now: to nothing, to a file, or (`/proc/PID/ns/net` of a process that ended) to the
/// node's own namespace.
async fn del(request: &Request) -> Result<(), CniError> {
    let Some(path) = &request.environment.netns else { return Ok(()) };
    let opened = Netns::open(path.as_path()).and_then(|netns| {
        let is_node = netns.identity() == NetnsIdentity::current()?;
        if is_node { Ok(None) } else { Netlink::open_in(&netns).map(Some) }
    });
    match opened {
        Ok(Some(netlink)) => set(&netlink, false).await,
        Ok(None) | Err(NetnsError::NotFound { .. } | NetnsError::NotNetns { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn check(request: &Request) -> Result<(), CniError> {
    let conf = LoopbackConf::read(&request.conf)?;
    let path = request.environment.required_netns()?;
    let netlink = Netlink::open_in(&open_sandbox(path)?)?;
    let mut differences = Vec::new();
    if !netlink.link(LinkRef::Index(INDEX)).await?.is_some_and(|link| link.up) {
        differences.push(format!("{LO} is down"));
    }
    let found = addresses(&netlink).await?;
    for ip in conf.prev_result.iter().flat_map(of_lo).filter(|ip| !found.contains(&ip.address)) {
        differences.push(format!("{LO} has not {}", ip.address));
    }
    if differences.is_empty() {
        return Ok(());
    }
    let message = format!("{LO} of {path} is not as ADD left it: {} difference(s)", differences.len());
    Err(CniError::new(Code::DifferencesFound, message).with_details(differences.join("; ")))
}

/// Those addresses of a result that are of `lo`: behind other plugins it is theirs.
fn of_lo(result: &AddResult) -> impl Iterator<Item = &IpConfig> {
    result.ips.iter().filter(|ip| {
        let interface = ip.interface.and_then(|index| result.interfaces.get(index));
        interface.is_some_and(|interface| interface.name == LO && interface.sandbox.is_some())
    })
}

async fn set(netlink: &Netlink, up: bool) -> Result<(), CniError> {
    let settings = LinkSettings { up: Some(up), ..LinkSettings::default() };
    let verdicts = netlink.submit([Change::SetLink { link: LinkRef::Index(INDEX), settings }]).await;
    verdicts.into_iter().collect::<Result<(), _>>().map_err(CniError::from)
}

async fn addresses(netlink: &Netlink) -> Result<Vec<IpNetwork>, CniError> {
    let found = netlink.addresses(Some(INDEX)).await?;
    Ok(found.into_iter().map(|address| address.network).collect())
}
