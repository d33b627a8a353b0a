//! The cluster's certificate authority, as the client read it when it was made. The token is read again each minute by the
//! client itself; this is not, so after a rotation the agent would believe no certificate any more.

use std::fs;

/// Where kubelet puts it, and replaces it when it is rotated.
const CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// What was read.
#[derive(Debug)]
pub struct CertificateAuthority(Option<Vec<u8>>);

impl CertificateAuthority {
    /// The one that a client has which is made now; none outside of a cluster.
    pub fn read() -> Self {
        Self(fs::read(CA).ok())
    }

    /// Whether the file has another one by now.
    pub fn is_replaced(&self) -> bool {
        self.0.as_ref().is_some_and(|known| fs::read(CA).is_ok_and(|found| found != *known))
    }
}
