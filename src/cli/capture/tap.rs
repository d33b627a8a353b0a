//! The table that copies a pod's packets, and who reads the copies.
//!
//! ```text
//! table inet ferrule_capture_N { flags owner
//!     chain from_pod { type filter hook prerouting  priority -500;  iifname LINK log group N snaplen LENGTH }
//!     chain to_pod   { type filter hook postrouting priority 10000; oifname LINK log group N snaplen LENGTH }
//! }
//! ```
//!
//! What the pod sends is seen before anybody has looked at it, dropped or not; what it receives after everybody has, with
//! the addresses that it sees.

use std::io;

use rustix::io::Errno;

use crate::cni::error::{CniError, Code};
use crate::linux::error::KernelError;
use crate::linux::nflog::{LoggedPacket, PacketLog, WHOLE};
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::change::Change;
use crate::linux::nft::expr::{Comparison, Expr, Log, MetaField, Reg};
use crate::linux::nft::rule::Rule;
use crate::linux::nft::table::{Base, Chain, ChainKind, Family, Hook, Table};

/// Before fragments are put together (-400) and sources are compared (-450); after whatever rewrites addresses (100).
const FIRST: i32 = -500;
const LAST: i32 = 10_000;

/// The first group that is tried. A group has one listener, and captures may run beside each other.
const GROUPS: u16 = 0xf700;
const ATTEMPTS: u16 = 32;

/// Bytes of a packet that are copied where headers are enough: of IPv6 with extensions, of TCP with options, of a message
/// of ICMP with what it quotes.
const ENOUGH: u32 = 256;

/// `IFNAMSIZ`
const NAME: usize = 16;

/// Copies packets while it lives.
pub(super) struct Tap {
    log: PacketLog,
    /// The table is this socket's.
    _owner: Nfnetlink,
}

impl Tap {
    /// Copies what comes in by these links and leaves by them.
    pub(super) async fn open(links: &[String], full: bool) -> Result<Self, CniError> {
        let copied = if full { WHOLE } else { ENOUGH };
        let (log, group) = listen(copied)?;
        let nft = Nfnetlink::open_here().map_err(|error| refused(&error.to_string()))?;
        nft.commit(None, &changes(links, group, copied)).await.map_err(|rejection| {
            let is_old = rejection.is_because(KernelError::is_unsupported);
            let hint = if is_old { "; tables that go with their owner need Linux 5.12" } else { "" };
            refused(&format!("{rejection}{hint}"))
        })?;
        Ok(Self { log, _owner: nft })
    }

    /// The next packet. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<LoggedPacket, CniError> {
        self.log.next().await.map_err(|error| refused(&error.to_string()))
    }

    /// How many packets were not read in time.
    pub(super) fn lost(&self) -> u64 {
        self.log.lost()
    }
}

/// A group that nobody else listens to.
fn listen(copied: u32) -> Result<(PacketLog, u16), CniError> {
    let start = u16::try_from(std::process::id() % u32::from(ATTEMPTS)).unwrap_or_default();
    let mut last = io::Error::from_raw_os_error(Errno::PERM.raw_os_error());
    for attempt in 0..ATTEMPTS {
        let group = GROUPS + (start + attempt) % ATTEMPTS;
        match PacketLog::open_copying_here(group, copied) {
            Ok(log) => return Ok((log, group)),
            Err(error) => last = error,
        }
    }
    let hint = match last.raw_os_error() == Some(Errno::PERM.raw_os_error()) {
        true => "; that needs CAP_NET_ADMIN, and no more than 32 captures on a node",
        false => "; the kernel needs nfnetlink_log",
    };
    Err(refused(&format!("{last}{hint}")))
}

fn refused(why: &str) -> CniError {
    CniError::new(Code::KernelRefused, "cannot have packets copied").with_details(why.to_owned())
}

fn changes(links: &[String], group: u16, length: u32) -> Vec<Change> {
    let table = Table { family: Family::Inet, name: format!("ferrule_capture_{group}") };
    let mut changes = vec![Change::AddOwnedTable(table.clone())];
    for (name, hook, priority, field) in [
        ("from_pod", Hook::Prerouting, FIRST, MetaField::InputName),
        ("to_pod", Hook::Postrouting, LAST, MetaField::OutputName),
    ] {
        let base = Base { kind: ChainKind::Filter, hook, priority, accept: true };
        let chain = Chain { name: name.to_owned(), base: Some(base), comment: None };
        changes.push(Change::AddChain(table.clone(), chain));
        for link in links {
            let mut value = link.clone().into_bytes();
            value.resize(NAME, 0);
            let exprs = vec![
                Expr::Meta { field, to: Reg(0) },
                Expr::Compare { from: Reg(0), comparison: Comparison::Equal, value },
                Expr::Log(Log { group, prefix: name.to_owned(), length }),
            ];
            changes
                .push(Change::AddRule(table.clone(), Rule { chain: name.to_owned(), exprs, comment: None }));
        }
    }
    changes
}
