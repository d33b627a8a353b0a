//! Why the kernel could not be made what it should be.

use crate::desired::object::Place;
use crate::linux::error::KernelError;
use crate::linux::netns::NetnsError;
use crate::linux::sysctl::SysctlError;

/// A failure of the datapath. Each says what was attempted, on what, and the kernel's reason.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The kernel refused one or several changes; all of them are listed.
    #[error("the kernel refused, in the {place}'s namespace: {}", join(.refusals))]
    Refused {
        /// Whose namespace.
        place: Place,
        /// Each with what was attempted and the kernel's words.
        refusals: Vec<KernelError>,
    },
    /// A namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A setting could not be written.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// A setting of the pod's namespace could not be written.
    #[error("the kernel refused, in the pod's namespace: {0}")]
    PodSysctl(SysctlError),
    /// No netlink socket could be had.
    #[error("cannot open a netlink socket in the {place}'s namespace: {source}")]
    Socket {
        /// `node` or `pod`.
        place: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The pod has a link of that name that is not ours.
    #[error("the pod has an interface {name:?} already ({found}), which ferrule did not make")]
    InterfaceTaken {
        /// `CNI_IFNAME`.
        name: String,
        /// Its kind and address, as far as known.
        found: String,
    },
    /// The node has a link of that name that is not ours.
    #[error("the node has a link {name:?} already ({found}), which is not this attachment's")]
    HostLinkTaken {
        /// The name that a link of the attachment must have.
        name: String,
        /// Its alias, as far as known.
        found: String,
    },
    /// The node has a link of the overlay's name that is not ours.
    #[error(
        "the node has a link {name:?} already ({found}), which ferrule did not make; rename or remove it"
    )]
    OverlayTaken {
        /// The overlay's name.
        name: &'static str,
        /// Its kind and group.
        found: String,
    },
    /// The overlay's device cannot be made.
    #[error("the overlay's device cannot be made: {refusal}{remedy}")]
    Overlay {
        /// What the kernel said.
        refusal: KernelError,
        /// What to do, where that is known; begins with its own separator.
        remedy: &'static str,
    },
    /// A link that was just made cannot be looked up.
    #[error("cannot look up link {name:?}: {source}")]
    Index {
        /// Its name.
        name: String,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// A link that was just made is not there: somebody else removes links on this node.
    #[error("link {0:?} vanished while it was being set up")]
    LinkVanished(String),
}

impl From<KernelError> for DatapathError {
    /// For what is asked of the node; the pod is only ever asked in batches.
    fn from(refusal: KernelError) -> Self {
        Self::Refused { place: Place::Node, refusals: vec![refusal] }
    }
}

impl DatapathError {
    /// All refusals of a batch as one error.
    ///
    /// # Errors
    /// Where there is at least one.
    pub fn check(
        place: Place,
        outcomes: impl IntoIterator<Item = Result<(), KernelError>>,
    ) -> Result<(), Self> {
        let refusals: Vec<KernelError> = outcomes.into_iter().filter_map(Result::err).collect();
        if refusals.is_empty() { Ok(()) } else { Err(Self::Refused { place, refusals }) }
    }
}

fn join(refusals: &[KernelError]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
