//! Which addresses are the node's.
//!
//! The networks of a node share the sets, and each has its own elements there. Two that want the same have one between
//! them: who comes second finds it there and leaves it alone.

use crate::cni::ids::NetworkName;
use crate::datapath::nftables::NftError;
use crate::datapath::nftables::replace::{is_of, read, replace};
use crate::desired::nftables::element::Element;
use crate::desired::nftables::node_addresses::NodeAddresses;
use crate::desired::nftables::table::{set, show};
use crate::linux::nfnetlink::Nfnetlink;

const SETS: [&str; 3] = [set::UPLINKS, set::NODE_ADDRESSES4, set::NODE_ADDRESSES6];

/// Makes the node's addresses in the table what `wanted` says; returns whether anything was to be done. Needs the table
/// to be there.
///
/// # Errors
/// What the kernel refused.
pub async fn ensure_node_addresses(
    nft: &Nfnetlink,
    network: &NetworkName,
    wanted: &NodeAddresses,
) -> Result<bool, NftError> {
    let others = read(nft, &SETS, |it| !is_of(network)(it)).await?;
    replace(nft, &SETS, is_of(network), &without(&others, wanted.elements(network))).await
}

/// Where the node's addresses in the table differ from what `wanted` says, in `nft`'s words; empty if nowhere.
///
/// # Errors
/// What the kernel refused.
pub async fn node_address_differences(
    nft: &Nfnetlink,
    network: &NetworkName,
    wanted: &NodeAddresses,
) -> Result<Vec<String>, NftError> {
    let all = read(nft, &SETS, |_| true).await?;
    let (own, others): (Vec<Element>, Vec<Element>) = all.into_iter().partition(is_of(network));
    let wanted = without(&others, wanted.elements(network));
    let missing = wanted.iter().filter(|it| !own.contains(it)).map(|it| format!("{} is missing", show(it)));
    let stale = own.iter().filter(|it| !wanted.contains(it)).map(|it| format!("{} is stale", show(it)));
    Ok(missing.chain(stale).map(|text| format!("nft: element {text}")).collect())
}

/// Those of `wanted` that no other network has.
fn without(others: &[Element], mut wanted: Vec<Element>) -> Vec<Element> {
    wanted.retain(|it| !others.iter().any(|other| (&other.set, &other.key) == (&it.set, &it.key)));
    wanted
}
