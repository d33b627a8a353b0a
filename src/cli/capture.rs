//! `ferrulectl capture`: what a pod sends and receives, as a pcap on stdout. Nothing is installed in the pod, and no
//! packet socket is needed, so it works with CAP_NET_ADMIN alone, as in the agent's container.
//!
//! A table of its own ([`tap`]) copies the packets that come in by the pod's link and leave by it. The kernel removes it
//! with the socket that made it, however this process ends.

mod headers;
mod pcap;
mod tap;

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write};
use std::thread;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::attachments::judged::judge_network;
use crate::attachments::node;
use crate::attachments::node_view::NodeView;
use crate::cli::arguments::Common;
use crate::cni::error::{CniError, Code};
use crate::cni::ids::IfName;
use crate::desired::names;
use crate::linux::link::LinkRef;
use crate::linux::nflog::LoggedPacket;
use crate::policy::object::ObjectName;
use tap::Tap;

/// Whoever holds the leash says something more often than that.
const LEASH: Duration = Duration::from_secs(30);

/// How often it is looked whether the pod's link is still there.
const LOOK: Duration = Duration::from_secs(1);

/// What is to be captured, and until when.
pub struct CaptureRequest<'a> {
    /// Whose packets.
    pub pod: &'a ObjectName,
    /// Only those of this interface of the pod.
    pub interface: Option<&'a IfName>,
    /// What applications say as well, not only the headers.
    pub full: bool,
    /// Ends after so many packets.
    pub count: Option<u64>,
    /// Ends after that time.
    pub duration: Option<Duration>,
    /// Ends with stdin, or when nothing has come from there for [`LEASH`]: a process in a container outlives the
    /// connection of whoever started it there.
    pub leash: bool,
}

/// Writes packets to stdout until it ends; what was captured, in words.
///
/// # Errors
/// Where stdout is a terminal, the pod is not on this node, or the kernel refuses.
pub async fn capture(common: &Common, request: &CaptureRequest<'_>) -> Result<String, CniError> {
    if io::stdout().is_terminal() {
        let message = "stdout is a terminal, and packets are no text";
        let remedy = "hand them on: `| tcpdump -n -r -`, `| wireshark -k -i -`, or `>file.pcap`";
        return Err(CniError::new(Code::Io, message).with_details(remedy));
    }
    let links = links_of(common, request.pod, request.interface).await?;
    let mut tap = Tap::open(&links, request.full).await?;
    let what = if request.full { "whole packets" } else { "headers only (--full for all)" };
    say(&format!("capturing {} on {}: {what}", show(request.pod), links.join(", ")));
    let mut out = io::stdout();
    let mut captured = 0_u64;
    let mut readers_left = out.write_all(&pcap::file_header()).and_then(|()| out.flush()).is_err();
    let (end, gone, mut is_gone) = (end(request), gone(&links), false);
    tokio::pin!(end, gone);
    while !readers_left && request.count.is_none_or(|count| captured < count) {
        let packet = tokio::select! {
            packet = tap.next() => packet?,
            () = &mut end => break,
            () = &mut gone => {
                is_gone = true;
                break;
            }
        };
        let bytes = pcap::packet(&packet.bytes, kept(&packet, request.full), SystemTime::now());
        readers_left = out.write_all(&bytes).and_then(|()| out.flush()).is_err();
        captured += u64::from(!readers_left);
    }
    let mut summary = format!("{captured} packets captured");
    if tap.lost() > 0 {
        let _ = write!(summary, ", {} lost: they came faster than they were read", tap.lost());
    }
    if is_gone {
        summary.push_str("; the pod's link is gone");
    }
    Ok(summary + "\n")
}

/// Ends when none of the links is there any more: nothing will come then.
async fn gone(links: &[String]) {
    let Ok(netlink) = node::open() else { return std::future::pending().await };
    loop {
        sleep(LOOK).await;
        let mut is_there = false;
        for name in links {
            // Whoever cannot be asked has not said that it is gone.
            is_there |= !matches!(netlink.link(LinkRef::Name(name.clone())).await, Ok(None));
        }
        if !is_there {
            return;
        }
    }
}

/// How many bytes of a packet are written.
fn kept(packet: &LoggedPacket, full: bool) -> usize {
    if full { packet.bytes.len() } else { headers::length(packet) }
}

/// The node's ends of the pod's links.
async fn links_of(
    common: &Common,
    pod: &ObjectName,
    interface: Option<&IfName>,
) -> Result<Vec<String>, CniError> {
    let networks = common.find_networks(None)?;
    let node = NodeView::read().await?;
    let (mut links, mut interfaces) = (Vec::new(), Vec::new());
    for network in &networks.known {
        for it in judge_network(network, &node).await?.1 {
            let is_meant = it.pod().as_deref() == Some(&show(pod)) && !it.is_dead() && it.has_link;
            let Some((record, _)) = it.state.as_ref().ok().filter(|_| is_meant) else { continue };
            interfaces.push(it.key.ifname.to_string());
            if interface.is_none_or(|wanted| *wanted == it.key.ifname) {
                let link = record.host_link.as_ref().map(ToString::to_string);
                links.push(link.unwrap_or_else(|| names::host_link(&it.key)));
            }
        }
    }
    if !links.is_empty() {
        return Ok(links);
    }
    let details = match interface.filter(|_| !interfaces.is_empty()) {
        Some(wanted) => format!("it has no interface {wanted} by ferrule, but {}", interfaces.join(", ")),
        None => {
            "no running pod of that name has a link of ferrule's on this node; `ferrulectl inspect` lists those \
             that have"
                .to_owned()
        }
    };
    Err(CniError::new(Code::InvalidConf, format!("cannot capture {}", show(pod))).with_details(details))
}

/// Ends when nothing more is wanted.
async fn end(request: &CaptureRequest<'_>) {
    let at = request.duration.map(|duration| Instant::now() + duration);
    let over = async {
        match at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    let let_go = async {
        match request.leash {
            true => let_go().await,
            false => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => {}
        () = let_go => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Ends with stdin, or when it has been silent for too long.
async fn let_go() {
    let (heard, mut said) = mpsc::channel(1);
    // Reading cannot be given up, so it has a thread that ends with the process.
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while io::stdin().read(&mut bytes).is_ok_and(|length| length > 0) {
            if heard.blocking_send(()).is_err() {
                break;
            }
        }
    });
    while let Ok(Some(())) = timeout(LEASH, said.recv()).await {}
}

fn show(pod: &ObjectName) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

/// To whoever waits for packets: stdout is theirs.
fn say(words: &str) {
    let _ = io::stderr().write_all(format!("{words}\n").as_bytes());
}
