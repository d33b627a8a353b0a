//! What is needed to try the ways to other nodes.

use crate::agent::apply::Datapath;
use crate::agent::cluster::desired_state::Desired;
use crate::cni::ids::NetworkName;
use crate::datapath::error::DatapathError;
use crate::linux::netlink::Netlink;

impl Datapath {
    /// The socket, the network, and the MTU of pods where `pod_mtu` (in bytes) does not say it.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub async fn ways_to_try(
        &self,
        desired: &Desired,
        pod_mtu: Option<u32>,
    ) -> Result<(Netlink, NetworkName, u32), DatapathError> {
        let mtu = match pod_mtu {
            Some(mtu) => mtu,
            None => self.uplink(desired).await?.mtu,
        };
        Ok((self.netlink.clone(), self.network.clone(), mtu))
    }
}
