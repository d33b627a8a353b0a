//! The store: which address belongs to which attachment, remembered for as long as the attachment lives.
//!
//! One directory per network, so that networks never wait for each other:
//!
//! ```text
//! <dataDir>/<network>/
//!   lock                             flock(2)ed by whoever changes anything here
//!   boot                             id of the boot in which it was last changed
//!   next                             the address last handed out, one line per range set
//!   no_masquerade                    prefixes towards which the network's pods keep their source address
//!   node_addresses                   links by which the node is reached, and its addresses
//!   vxlan_peers                      UDP port of the overlay, and the nodes at its other ends
//!   policy                           what the agent last made of the table of NetworkPolicies
//!   policy-objects                   what policies, namespaces and pods it knew then, for people who ask why
//!   sysctl_backup                    the node's sysctls that the network needs, and what they were before
//!   by-id/<container id>@<ifname>    the record: JSON, one file per attachment
//!   by-ip/<address>                  the same file again (hard link), once per address
//!   tmp/<container id>@<ifname>      a record on its way in or out
//!   cooldown/<bucket>/<address>      the last record of an address just freed (hard link)
//! ```
//!
//! A record is one inode with several names, and each change of the store is one link or rename, which
//! the file system does wholly or not at all:
//!
//! - Claim: write `tmp/X`, link it to each `by-ip/<address>` (the link fails if the name exists, so two
//!   records never share an address), rename it to `by-id/X`. That rename is the commit.
//! - Release: rename `by-id/X` to `tmp/X`, move each `by-ip/<address>` to `cooldown`, unlink `tmp/X`.
//!
//! All of it happens under the lock, so what a new holder of the lock finds in `tmp` was left by one that
//! died, on the way in or on the way out; the cure is the same: finish the release. After a reboot every
//! record is dead, and the first holder of the lock removes them all. Nothing is synced to disk: what a
//! power loss tears belongs to an earlier boot. What rots within a boot is found by the record's checksum.
//!
//! No ADD or DEL looks at the other attachments' records, so its cost does not grow with their number. Hence it does not
//! notice a name that a person removed with `rm`: the record's other names bring it back when the first holder of the
//! lock in a boot, GC or `reclaim` repairs the store ([`StoreGuard::repair`]). Until then
//!
//! - without its name in `by-id` an attachment is unknown to CHECK and DEL, and its addresses stay held;
//! - without its name in `by-ip` an address may be allocated a second time. In the main role that ADD fails, since the
//!   route to the first pod exists; another main plugin that uses this IPAM is not protected.

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
mod policy_file;
mod policy_objects;
mod probe;
mod record;
mod recovery;
mod side_files;

pub use audit::Audit;
pub use boot::{BootId, current_boot_id};
pub use error::{Damaged, StoreError};
pub use guard::{Released, StoreGuard};
pub use handle::{Entry, Store, Usage};
pub use host_local::{HostLocal, Reservation, Skipped};
pub use lock::AttachmentLock;
pub use policy_file::PolicyFile;
pub use policy_objects::PolicyObjects;
pub use probe::probe;
pub use record::{Claim, Record, RecordedNetns};
pub use recovery::Repairs;
pub use side_files::SysctlBackup;

#[cfg(test)]
mod tests;
