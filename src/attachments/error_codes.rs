//! The one place where errors of the layers become answers of the protocol.
//!
//! A code is chosen here and nowhere else; the sentence stays the error's own. Details carry the remedy
//! where it is known.

use std::io;

use rustix::io::Errno;

use crate::cni::error::{CniError, Code};
use crate::datapath::error::DatapathError;
use crate::datapath::nftables::NftError;
use crate::desired::object::Place;
use crate::linux::error::KernelError;
use crate::linux::netns::NetnsError;
use crate::store::StoreError;

/// What to do where the kernel says that the process may not.
const NEEDS_NET_ADMIN: &str = "ferrule needs CAP_NET_ADMIN in the node's and in the pod's network namespace";

/// Whether the kernel says that the process may not.
fn lacks_capability(refusal: &KernelError) -> bool {
    refusal.errno == Errno::PERM.raw_os_error()
}

impl From<StoreError> for CniError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Exhausted { .. } => Code::RangeExhausted,
            StoreError::Taken { .. } | StoreError::AlreadyAttached { .. } => Code::AlreadyTaken,
            StoreError::LockTimeout { .. } => Code::TryAgain,
            StoreError::Damaged { .. } | StoreError::NewerFormat { .. } => Code::StoreDamaged,
            StoreError::Outside { .. }
            | StoreError::Reserved { .. }
            | StoreError::Surplus { .. }
            | StoreError::TooLarge { .. } => Code::InvalidConf,
            StoreError::Io { .. } => Code::Io,
        };
        CniError::new(code, error.to_string())
    }
}

impl From<DatapathError> for CniError {
    fn from(error: DatapathError) -> Self {
        let code = match &error {
            DatapathError::Netns(_) => Code::NetnsUnusable,
            DatapathError::InterfaceTaken { .. }
            | DatapathError::HostLinkTaken { .. }
            | DatapathError::OverlayTaken { .. } => Code::AlreadyTaken,
            DatapathError::Refused { .. }
            | DatapathError::Sysctl(_)
            | DatapathError::PodSysctl(_)
            | DatapathError::Socket { .. }
            | DatapathError::Index { .. }
            | DatapathError::Overlay { .. }
            | DatapathError::LinkVanished(_) => Code::KernelRefused,
        };
        CniError::new(code, error.to_string()).with_details(remedy(&error))
    }
}

impl From<NftError> for CniError {
    fn from(error: NftError) -> Self {
        let (code, remedy) = match &error {
            NftError::HostPortTaken(_) => (
                Code::AlreadyTaken,
                "a port of a node leads to one pod at a time; use another hostPort or hostIP, or another node",
            ),
            NftError::Outrun(_) => (Code::TryAgain, "try again"),
            NftError::Refused(_) | NftError::Rejected(_) if error.lacks_nf_tables() => (
                Code::KernelRefused,
                "the kernel lacks a part of nf_tables that ferrule needs: are the modules nf_tables, nft_chain_nat, \
                 nft_ct, nft_fib_inet, nft_masq and nft_nat there (modprobe)?",
            ),
            NftError::Refused(refusal) if lacks_capability(refusal) => (Code::KernelRefused, NEEDS_NET_ADMIN),
            NftError::Rejected(rejection) if rejection.is_because(lacks_capability) => {
                (Code::KernelRefused, NEEDS_NET_ADMIN)
            }
            NftError::Refused(_) | NftError::Rejected(_) => (Code::KernelRefused, ""),
        };
        CniError::new(code, error.to_string()).with_details(remedy)
    }
}

impl From<NetnsError> for CniError {
    fn from(error: NetnsError) -> Self {
        DatapathError::from(error).into()
    }
}

impl From<KernelError> for CniError {
    fn from(error: KernelError) -> Self {
        DatapathError::from(error).into()
    }
}

/// What to do, where the errno tells.
fn remedy(error: &DatapathError) -> &'static str {
    let (place, refusals) = match error {
        DatapathError::Refused { place, refusals } => (place, refusals),
        DatapathError::PodSysctl(refused) => return sysctl_remedy(refused.source.kind()),
        _ => return "",
    };
    let has = |errno: Errno| refusals.iter().any(|refusal| refusal.errno == errno.raw_os_error());
    if has(Errno::PERM) || has(Errno::ACCESS) {
        NEEDS_NET_ADMIN
    } else if has(Errno::OPNOTSUPP) {
        "the kernel lacks a part that ferrule needs: is the veth module there (modprobe veth)?"
    } else if has(Errno::EXIST) {
        match place {
            Place::Node => {
                "it exists on the node already and is not this pod's: `ip route` and `ip link` on the node show whose it is"
            }
            Place::Sandbox => "the pod has it already: `nsenter --net=<CNI_NETNS> ip addr` shows it",
        }
    } else {
        ""
    }
}

/// What to do about a setting of the pod's that cannot be written. One that counts for the whole node is not there in
/// any other namespace than the node's, or cannot be written there (net/core/sysctl_net_core.c).
fn sysctl_remedy(refused: io::ErrorKind) -> &'static str {
    match refused {
        io::ErrorKind::NotFound => {
            "the kernel has no such setting per namespace, or does not know what the value names: it is misspelled, names an interface that the pod has not, \
             its module is not loaded, or it counts for the whole node and is set there (sysctl -w)"
        }
        io::ErrorKind::PermissionDenied => {
            "a pod cannot have a value of its own: the setting counts for the whole node and is set there (sysctl -w)"
        }
        io::ErrorKind::InvalidInput => "the kernel does not take that value for this setting",
        io::ErrorKind::ReadOnlyFilesystem => {
            "ferrule needs a writable /proc/sys; the runtime that executes it has none"
        }
        _ => "",
    }
}
