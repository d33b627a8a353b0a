//! Why the table could not be made what it should be.

use std::fmt;
use std::net::IpAddr;

use crate::desired::nftables::element::HostPort;
use crate::linux::error::KernelError;
use crate::linux::nft::change::Rejection;

/// A failure with the table. Each says what was attempted, on what, and the kernel's reason.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The kernel refused to answer.
    #[error("the kernel refused: {0}")]
    Refused(#[from] KernelError),
    /// The kernel refused a transaction; nothing of it was done.
    #[error("the kernel refused: {0}")]
    Rejected(#[from] Rejection),
    /// hostPorts that lead to another pod.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    HostPortTaken(Vec<Clash>),
    /// Others changed tables of the node each time before a decision could be committed.
    #[error("other programs changed the nftables ruleset during every attempt: {0}")]
    Outrun(Rejection),
}

impl NftError {
    /// Whether the kernel does not know what was asked of it, as one that runs without a module. That of an expression
    /// in a rule is "not found".
    pub fn lacks_nf_tables(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_unsupported(),
            Self::Rejected(rejection) => {
                rejection.is_because(|refusal| refusal.is_unsupported() || refusal.is_not_found())
            }
            Self::HostPortTaken(_) | Self::Outrun(_) => false,
        }
    }
}

/// A hostPort that another pod has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// The hostPort that was to be added.
    pub host_port: HostPort,
    /// Address of the pod that has it.
    pub holder: IpAddr,
    /// The port of that pod.
    pub holder_port: u16,
    /// The network's name, and of which pod it was said to be when it was added.
    pub comment: Option<String>,
}

/// Reads as "hostPort 10.0.0.5 tcp 8080 leads to 10.244.1.7 port 80 already (podnet default/web)".
impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPort { host_ip, host_port, protocol, .. } = &self.host_port;
        f.write_str("hostPort")?;
        host_ip.iter().try_for_each(|host_ip| write!(f, " {host_ip}"))?;
        write!(f, " {protocol} {host_port}")?;
        write!(f, " leads to {} port {} already", self.holder, self.holder_port)?;
        self.comment.iter().try_for_each(|comment| write!(f, " ({comment})"))
    }
}
