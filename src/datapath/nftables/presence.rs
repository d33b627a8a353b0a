//! Whether the table is there and as it should be.
//!
//! Its rules, chains and sets are the same for each pod, so an ADD does not read them. The table object has a comment
//! with a hash of them all ([`COMMENT`]); reading that one object tells that the table is of this version. Rules that go
//! leave the object as it is, so the number of references to one chain is read beside it, in the same datagram.
//!
//! | what others do                                    | an ADD makes it again | doctor, sync, CHECK and the agent find it |
//! |---------------------------------------------------|-----------------------|-------------------------------------------|
//! | `flush ruleset`, `delete table inet ferrule`      | yes                   | yes                                       |
//! | a ferrule of another version made the table       | yes                   | yes                                       |
//! | makes the table dormant                           | yes                   | yes                                       |
//! | `flush table inet ferrule`                        | yes                   | yes                                       |
//! | adds or removes a rule of `antispoof`             | yes                   | yes                                       |
//! | `flush set inet ferrule no_masquerade4`, or 6     | yes                   | yes                                       |
//! | adds, removes or replaces a rule somewhere else   | no                    | yes                                       |
//! | removes an element of a pod                       | no                    | yes                                       |
//!
//! Where there is no comment (a kernel before Linux 5.10 does not keep it, an old `nft` does not print it) the chains and
//! rules are compared instead.

use crate::cni::ids::NetworkName;
use crate::datapath::nftables::NftError;
use crate::desired::nftables::element::{Element, NoMasquerade};
use crate::desired::nftables::rules::rules;
use crate::desired::nftables::table::{ANTISPOOF_USE, COMMENT, chain, chains, table};
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::rule::Rule;

/// Whether the table is there and has all `networks`. Their elements are not looked at.
///
/// # Errors
/// What the kernel refused.
pub async fn has_network(nft: &Nfnetlink, networks: &[NetworkName]) -> Result<bool, NftError> {
    let places: Vec<Element> = networks.iter().flat_map(NoMasquerade::places_of_marks).collect();
    Ok(look_up(nft, &places).await?.is_some_and(|found| found.iter().all(Option::is_some)))
}

/// Whether the table is there, and the exemptions from masquerade of the network are these, by their marks.
///
/// # Errors
/// What the kernel refused.
pub async fn has_network_as(nft: &Nfnetlink, wanted: &NoMasquerade) -> Result<bool, NftError> {
    let marks = wanted.marks();
    let found = look_up(nft, &marks).await?;
    Ok(found.is_some_and(|found| found.iter().map(Option::as_ref).eq(marks.iter().map(Some))))
}

/// Whether the table is there.
pub(super) async fn exists(nft: &Nfnetlink) -> Result<bool, KernelError> {
    Ok(look_up(nft, &[]).await?.is_some())
}

/// What there is under the keys of `wanted`; `None` if the table is not there, or not as it should be.
pub(super) async fn look_up(
    nft: &Nfnetlink,
    wanted: &[Element],
) -> Result<Option<Vec<Option<Element>>>, KernelError> {
    let Some(found) = nft.look_up(&table(), chain::ANTISPOOF, wanted).await? else { return Ok(None) };
    let is_as_it_should_be = match found.comment {
        _ if found.is_dormant => false,
        Some(comment) => comment == COMMENT && found.chain_use == Some(ANTISPOOF_USE),
        None => table_differences(nft).await?.is_empty(),
    };
    Ok(is_as_it_should_be.then_some(found.elements))
}

/// What is missing or wrong in the table, its elements aside. Reads all chains and rules.
pub(super) async fn table_differences(nft: &Nfnetlink) -> Result<Vec<String>, KernelError> {
    let mut differences = Vec::new();
    if let Some(found) = nft.look_up(&table(), chain::ANTISPOOF, &[]).await? {
        if let Some(comment) = found.comment.filter(|comment| comment != COMMENT) {
            differences.push(format!("nft: table {} is of another version ({comment})", table()));
        }
        if found.is_dormant {
            differences.push(format!("nft: table {} is dormant: no packet comes to its rules", table()));
        }
    }
    let chains = chains();
    let names: Vec<&str> = chains.iter().map(|chain| chain.name.as_str()).collect();
    let actual = nft.chains(&table(), &names).await?;
    for (chain, actual) in chains.iter().zip(actual) {
        if actual.as_ref() != Some(chain) {
            let state = if actual.is_some() { "differs" } else { "is missing" };
            differences.push(format!("nft: chain {} {} {state}", table(), chain.name));
        }
    }
    let (rules, actual) = (rules(), nft.rules(&table()).await?);
    for name in names {
        let of_chain = |rules: &[Rule]| -> Vec<Rule> {
            rules.iter().filter(|rule| rule.chain == name).cloned().collect()
        };
        if of_chain(&rules) != of_chain(&actual) {
            differences.push(format!("nft: rules of chain {} {name} differ", table()));
        }
    }
    Ok(differences)
}
