//! What may be wrong with a store: files that are no records, addresses that nobody or two have, ranges that are full.

use crate::attachments::liveness::Life;
use crate::cli::attachments::Judged;
use crate::cli::doctor::{Finding, name_some};
use crate::cli::networks::KnownNetwork;
use crate::cli::node::Node;
use crate::cni::error::CniError;
use crate::store;
use crate::store::Store;

/// The finding that nothing can be found.
pub fn unusable(network: &KnownNetwork, error: &CniError) -> Finding {
    Finding::new("store-unusable", format!("its store cannot be used: {error}"))
        .of(&network.name)
        .because("no pod can be added, and none of its addresses can be told")
        .remedy("see what stands at that path, and whether its file system is mounted and writable")
}

/// Looks at one store, and at what was judged of it.
pub fn examine(
    network: &KnownNetwork,
    node: &Node,
    store: Option<&Store>,
    judged: &[Judged],
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
                    .because("something else than ferrule wrote there, or the disk was full or lost power")
                    .remedy("delete its pod: the DEL clears the record; until then its addresses stay held"),
            );
        }
    }
    let dead: Vec<&Judged> =
        judged.iter().filter(|it| matches!(it.state, Ok((_, Life::NamespaceGone)))).collect();
    if !dead.is_empty() {
        let name = |it: &&Judged| it.tell().pod.unwrap_or_else(|| it.key.to_string());
        let names: Vec<String> = dead.iter().map(name).collect();
        find(
            Finding::new("dead-attachments", format!("dead attachments: {}", name_some(&names)))
                .because("their sandboxes ended and the runtime sent no DEL, after a crash for example")
                .remedy("nothing, the next ADD that needs an address takes theirs; at once: ferrule reclaim"),
        );
    }
    let Some(store) = store else { return findings };
    match store.audit() {
        Ok(audit) => {
            for (address, key) in &audit.contested {
                find(
                    Finding::new(
                        "address-contested",
                        format!("{address} is {key}'s, and another attachment's"),
                    )
                    .because("files of the store were changed by hand; two pods may be using the address")
                    .remedy("delete one of the two pods: it comes back with another address"),
                );
            }
            if !audit.unheld.is_empty() {
                let found: Vec<String> =
                    audit.unheld.iter().map(|(address, key)| format!("{address} of {key}")).collect();
                find(
                    Finding::new("address-unheld", format!("not held: {}", name_some(&found)))
                        .because("files in by-ip were removed by hand")
                        .remedy("ferrule reclaim holds them again, as GC by the runtime does; until then another pod may get them"),
                );
            }
            if !audit.unlisted.is_empty() {
                let found: Vec<String> =
                    audit.unlisted.iter().map(|(address, key)| format!("{address} of {key}")).collect();
                find(
                    Finding::new("record-unlisted", format!("known by address only: {}", name_some(&found)))
                        .because("files in by-id were removed by hand")
                        .remedy("ferrule reclaim gives the record its name again, as GC by the runtime does; until then no DEL finds it"),
                );
            }
            if !audit.orphans.is_empty() {
                find(
                    Finding::new(
                        "address-orphaned",
                        format!("held for nobody: {}", name_some(&audit.orphans)),
                    )
                    .because(
                        "their files cannot be read, and have no name in by-id that tells whose they are",
                    )
                    .remedy("ferrule reclaim frees them, if no pod uses them"),
                );
            }
            if !audit.strangers.is_empty() {
                let paths: Vec<String> =
                    audit.strangers.iter().map(|path| path.display().to_string()).collect();
                find(
                    Finding::new("store-stranger", format!("no file of the store: {}", name_some(&paths)))
                        .because("somebody put it there")
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
                Finding::new("range-full", format!("no address of {set} is free, {} are held", usage.held))
                    .because("there are as many pods as addresses, or attachments that nobody deleted")
                    .remedy(
                        "widen ipam.ranges, or run fewer pods here; ferrule inspect shows who holds them",
                    ),
            );
        }
    }
    findings
}
