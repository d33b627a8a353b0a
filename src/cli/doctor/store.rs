//! What may be wrong with a store: damaged records, addresses that no pod or two pods have, ranges that are full.

use crate::attachments::judged::JudgedAttachment;
use crate::attachments::liveness::Life;
use crate::attachments::networks::KnownNetwork;
use crate::attachments::node_view::NodeView;
use crate::cli::doctor::{Finding, name_some};
use crate::cni::error::CniError;
use crate::store;
use crate::store::Store;

/// The finding that the store cannot be read at all.
pub fn unusable(network: &KnownNetwork, error: &CniError) -> Finding {
    Finding::new("store-unusable", format!("its store cannot be used: {error}"))
        .of(&network.name)
        .because("no pod can be added, and it is not known who has which address")
        .remedy("see what is at that path, and whether its file system is mounted and writable")
}

/// Looks at one store and its attachments.
pub fn examine(
    network: &KnownNetwork,
    node: &NodeView,
    store: Option<&Store>,
    judged: &[JudgedAttachment],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |finding: Finding| findings.push(finding.of(&network.name));
    if network.conf.is_some()
        && let Err(error) = store::probe(&network.data_dir, &network.name)
    {
        find(unusable(network, &error.into()));
    }
    for it in judged {
        if let Err(error) = &it.state {
            find(
                Finding::new("record-damaged", format!("the record of {} cannot be read: {error}", it.key))
                    .because("another program wrote to it, or the disk was full or lost power")
                    .remedy(
                        "delete its pod: the DEL removes the record; until then its addresses stay reserved",
                    ),
            );
        }
    }
    let dead: Vec<&JudgedAttachment> =
        judged.iter().filter(|it| matches!(it.state, Ok((_, Life::NamespaceGone)))).collect();
    if !dead.is_empty() {
        let name = |it: &&JudgedAttachment| it.pod().unwrap_or_else(|| it.key.to_string());
        let names: Vec<String> = dead.iter().map(name).collect();
        find(
            Finding::new("dead-attachments", format!("dead attachments: {}", name_some(&names)))
                .because("their sandboxes ended and the runtime did not send DEL, for example after a crash")
                .remedy("none needed: an ADD takes their addresses when the range is full; to release them now: ferrulectl reclaim"),
        );
    }
    let Some(store) = store else { return findings };
    match store.audit() {
        Ok(audit) => {
            for (address, key) in &audit.contested {
                find(
                    Finding::new(
                        "address-contested",
                        format!("{address} belongs to {key} and to another attachment"),
                    )
                    .because(
                        "files of the store were changed by hand; two pods may be using the same address",
                    )
                    .remedy("delete one of the two pods: it gets another address when it is created again"),
                );
            }
            if !audit.unheld.is_empty() {
                let found: Vec<String> =
                    audit.unheld.iter().map(|(address, key)| format!("{address} of {key}")).collect();
                find(
                    Finding::new("address-unheld", format!("not reserved: {}", name_some(&found)))
                        .because("files in by-ip were removed by hand")
                        .remedy("ferrulectl reclaim reserves them again"),
                );
            }
            if !audit.unlisted.is_empty() {
                let found: Vec<String> =
                    audit.unlisted.iter().map(|(address, key)| format!("{address} of {key}")).collect();
                find(
                    Finding::new("record-unlisted", format!("listed by address only: {}", name_some(&found)))
                        .because("files in by-id were removed by hand")
                        .remedy("ferrulectl reclaim lists the record again"),
                );
            }
            if !audit.orphans.is_empty() {
                find(
                    Finding::new(
                        "address-orphaned",
                        format!("reserved for no pod: {}", name_some(&audit.orphans)),
                    )
                    .because("their files cannot be read, and no file in by-id tells whose they are")
                    .remedy("if no pod uses them: ferrulectl reclaim releases them"),
                );
            }
            if !audit.strangers.is_empty() {
                let paths: Vec<String> =
                    audit.strangers.iter().map(|path| path.display().to_string()).collect();
                find(
                    Finding::new("store-stranger", format!("not a file of the store: {}", name_some(&paths)))
                        .because("another program or a person made it")
                        .remedy("move it elsewhere"),
                );
            }
        }
        Err(error) => find(unusable(network, &error.into())),
    }
    let sets = network.meaning.as_ref().map(|meaning| meaning.range_sets()).unwrap_or_default();
    if let Ok(usage) = store.usage(&node.boot, sets) {
        for (set, usage) in sets.iter().zip(usage).filter(|(_, usage)| usage.free == 0) {
            find(
                Finding::new("range-full", format!("no address of {set} is free, {} are in use", usage.held))
                    .because("there are as many pods as addresses, or pods that were never deleted")
                    .remedy(
                        "add to ipam.ranges, or run fewer pods here; ferrulectl inspect lists who has them",
                    ),
            );
        }
    }
    findings
}
