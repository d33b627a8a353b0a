//! Which address an attachment gets, and remembering it for as long as the attachment lives.
//!
//! One directory per network, so that networks never wait for each other:
//!
//! ```text
//! <dataDir>/<network>/
//!   lock                             flock(2)ed by whoever changes anything here; in it the seal
//!   boot                             the boot in which it was last changed
//!   next                             the address last handed out, one line per range set
//!   changed                          settings of the node that the network needs, and what they were
//!   inside                           where the network's pods keep their source address, one CIDR a line
//!   tunnel                           where the node's tunnel ends and who is at its other ends
//!   peers                            the list of peers last made true; not the store's (`attachments::static_peers`)
//!   by-id/<container id>@<ifname>    the record: JSON, one file per attachment
//!   by-ip/<address>                  the same file again (hard link), once per address
//!   tmp/<container id>@<ifname>      a record on its way in or out
//!   resting/<bucket>/<address>       the last record of an address just freed (hard link)
//! ```
//!
//! A record is one inode with several names, and each change of the store is one link or rename, which
//! the file system does wholly or not at all:
//!
//! - Claim: write `tmp/X`, link it to each `by-ip/<address>` (the link fails if the name exists, so two
//!   records never share an address), rename it to `by-id/X`. That rename is the commit.
//! - Release: rename `by-id/X` to `tmp/X`, move each `by-ip/<address>` to `resting`, unlink `tmp/X`.
//!
//! All of it happens under the lock, so what a new holder of the lock finds in `tmp` was left by one that
//! died, on the way in or on the way out; the cure is the same: finish the release. After a reboot every
//! record is dead, and the first holder of the lock starts afresh. Nothing is synced to disk: what a
//! power loss tears belongs to an earlier boot. What rots within a boot is told by the record's checksum,
//! and a name that was taken away by hand by the seal (`seal`): each name of a file can bring back the others.
//!
//! No step looks at the other attachments' records, so cost does not grow with their number.

mod alloc;
mod audit;
mod boot;
mod cooldown;
mod cursor;
mod env;
mod error;
mod guard;
mod handle;
mod host_local;
mod layout;
mod lock;
mod no_masquerade;
mod probe;
mod record;
mod recovery;
mod sysctl_backup;
mod tamper;
mod vxlan_peers;

pub use audit::Survey;
pub use boot::{BootId, current_boot_id};
pub use error::{Damaged, StoreError};
pub use guard::{Released, StoreGuard};
pub use handle::{Entry, Store, Usage};
pub use host_local::{HostLocal, Oddity, Reservation};
pub use lock::AttachmentLock;
pub use probe::probe;
pub use record::{Claim, Record, RecordedNetns};
pub use recovery::Repairs;
pub use sysctl_backup::Changed;

#[cfg(test)]
mod tests;
