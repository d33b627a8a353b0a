//! Keeps the routes to static peers, at a cost to each ADD that does not depend on how many peers there are.
//!
//! A stamp, `<dataDir>/<network>/peers`, tells which list of peers was last made true, in which boot and in which
//! namespace of the node. An ADD that finds its own list there looks up a few of the routes in the kernel instead of
//! reading them all:
//!
//! - with up to [`WITNESSES`] routes, each of them, every time;
//! - with more, that many, chosen by the attachment's key, so that every ADD looks at others.
//!
//! What takes routes away takes many at once (a link that goes down takes all through it, flannel#1070;
//! systemd-networkd takes all that it does not know, kube-router#1815), so the first ADD after it notices. A single
//! route deleted by hand among thousands is noticed by one of the next ADDs. What is noticed is mended by reading
//! and comparing all routes.
//!
//! A list that could not be made true as a whole is tried again by the first ADD after [`RETRY_AFTER`]. Until
//! then the stamp says which routes are not to be looked for, so that a dead rack costs a burst of pods one
//! attempt and one report.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ipnetwork::IpNetwork;

use crate::cni::error::CniError;
use crate::cni::ids::AttachmentKey;
use crate::config::Network;
use crate::datapath::peers;
use crate::desired::names::stable_hash;
use crate::desired::node::{NodeState, PeerRoute};
use crate::linux::netlink::Netlink;
use crate::linux::netns::NetnsIdentity;
use crate::log;
use crate::store::BootId;

/// How many routes an ADD looks up when nothing has changed.
pub const WITNESSES: usize = 8;

/// Begins each line of a stamp that names a route which could not be set.
const UNSETTLED: &str = "unsettled ";

/// How long peers that could not be routed to are left alone.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// A stamp is a line, and one for each route that could not be set. What is beyond this is not read.
const STAMP_MAX: u64 = 1 << 20;

/// How many failures are told one by one. Where more fail, it is for one reason, and the count says enough.
const TOLD: usize = 16;

/// Makes the routes to the peers what the conf says, if they are not.
///
/// Peers that cannot be routed to are told in the log, each with the reason; the others are not affected.
///
/// # Errors
/// Where the kernel's routes cannot be read at all.
pub async fn keep_routes(
    node: &Netlink,
    network: &Network,
    state: &NodeState,
    boot: &BootId,
    key: &AttachmentKey,
) -> Result<(), CniError> {
    let (count, digest) = state.fingerprint();
    let stamp = Stamp::new(network, count, digest, boot);
    if let Some(unsettled) = stamp.as_ref().and_then(Stamp::read)
        && peers::all_stand(node, &witnesses(state, count, &unsettled, key)).await?
    {
        return Ok(());
    }
    let done = peers::synchronise(node, state).await?;
    if let Some(stamp) = stamp {
        stamp.write(&done.unsettled);
    }
    for failure in done.failures.iter().take(TOLD) {
        log::warn(&network.log, &failure.to_string());
    }
    if let Some(more) = done.failures.len().checked_sub(TOLD).filter(|more| *more > 0) {
        log::warn(&network.log, &format!("and {more} more routes to peers could not be set"));
    }
    Ok(())
}

/// The same without a look at the stamp first, and what was done: for a person who asks for it.
///
/// # Errors
/// Where the kernel's routes cannot be read at all.
pub async fn make_routes(
    node: &Netlink,
    network: &Network,
    state: &NodeState,
    boot: &BootId,
) -> Result<peers::Synchronised, CniError> {
    let (count, digest) = state.fingerprint();
    let done = peers::synchronise(node, state).await?;
    if let Some(stamp) = Stamp::new(network, count, digest, boot) {
        stamp.write(&done.unsettled);
    }
    Ok(done)
}

/// A few of the routes, others for each attachment; none that is known not to stand.
fn witnesses(
    state: &NodeState,
    routes: usize,
    unsettled: &[IpNetwork],
    key: &AttachmentKey,
) -> Vec<PeerRoute> {
    // An odd one: the families alternate in most lists, and what takes the routes of one leaves the other's.
    let stride = (routes / WITNESSES).saturating_sub(1) | 1;
    let offset = usize::try_from(stable_hash([key.container.as_str()]) >> 1).unwrap_or(0);
    let places: Vec<usize> =
        (0..routes.min(WITNESSES)).map(|n| offset.wrapping_add(n * stride) % routes).collect();
    let mut picked = state.peer_routes_at(&places);
    picked.retain(|wanted| !unsettled.contains(&wanted.route.destination));
    picked
}

/// What was made true, and where it is remembered.
struct Stamp {
    path: PathBuf,
    /// Tells one list of routes in one life of the node from another.
    line: String,
}

impl Stamp {
    /// `None` where the life of the node cannot be told: then all is done as if there were no stamp.
    fn new(network: &Network, routes: usize, digest: u64, boot: &BootId) -> Option<Self> {
        let node = NetnsIdentity::current().ok()?;
        let line = format!("{digest:016x} routes {routes} boot {boot} netns {}:{}\n", node.dev, node.ino);
        let path = network.data_dir.join(network.name.as_str()).join("peers");
        Some(Self { path, line })
    }

    /// What could not be settled, if the stamp on disk is this one and needs no second attempt now. `None` for one
    /// that is missing or cannot be read.
    fn read(&self) -> Option<Vec<IpNetwork>> {
        let file = OpenOptions::new().read(true).custom_flags(no_surprises()).open(&self.path).ok()?;
        if !is_our_own(&file) {
            return None;
        }
        let modified = file.metadata().and_then(|metadata| metadata.modified());
        let mut text = String::new();
        file.take(STAMP_MAX).read_to_string(&mut text).ok()?;
        let rest = text.strip_prefix(&self.line)?;
        let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        let is_fresh = || age.is_some_and(|age| age < RETRY_AFTER);
        let unsettled = rest.lines().filter_map(|line| line.strip_prefix(UNSETTLED)?.parse().ok());
        (rest.is_empty() || is_fresh()).then(|| unsettled.collect())
    }

    /// What stands in its place and is no file of our own is replaced.
    fn open_to_write(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(no_surprises());
        match options.open(&self.path) {
            Ok(file) if is_our_own(&file) => Ok(file),
            _ => {
                fs::remove_file(&self.path)?;
                options.create_new(true).open(&self.path)
            }
        }
    }

    /// Remembers. A stamp that cannot be written, or is torn, costs the next ADD a full comparison, nothing else.
    ///
    /// Not emptied before it is written: of a burst of ADDs each would find it empty, do everything again, and empty
    /// it for the others.
    fn write(&self, unsettled: &[IpNetwork]) {
        if let Ok(mut file) = self.open_to_write() {
            let lines = unsettled.iter().map(|destination| format!("{UNSETTLED}{destination}\n"));
            let text = format!("{}{}", self.line, lines.collect::<String>());
            let _ = file.write_all(text.as_bytes()).and_then(|()| file.set_len(text.len() as u64));
        }
    }
}

/// A file of our own: not a FIFO, and not one that is known elsewhere by another name.
fn is_our_own(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1)
}

/// Neither follows a symlink nor waits for the other end of a FIFO.
fn no_surprises() -> i32 {
    (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed()
}
