//! Every command line of README.md and docs/ is executed: on a node ([`node`]), by a script that CI runs ([`repository`]),
//! or in a cluster (tests/cluster, `documents`). The information behind a fence's first "```" says where.

mod links;
mod node;
mod pages;
mod pictures;
mod repository;

use kit::documents::{fences, only_reads, repository as top};

/// What a fence may be. `text` is what a program prints, or a layout; of `sh` there is one, in docs/migration.md, which
/// tests/cli/import/moving.rs executes.
const KNOWN: &[&str] = &[
    "console node",
    "json",
    "mermaid",
    "rust",
    "sh",
    "sh cluster",
    "sh node",
    "sh repo",
    "text",
    "toml",
    "yaml",
];

#[test]
fn every_fence_says_what_it_is() {
    let fences = fences();
    assert!(fences.len() > 60, "{} fences", fences.len());
    for fence in fences {
        let place = format!("{}:{}", fence.document, fence.line);
        assert!(KNOWN.contains(&fence.info.as_str()), "{place}: nobody knows what {:?} is", fence.info);
        assert!(fence.info != "sh" || fence.document == "docs/migration.md", "{place}: say where it runs");
        // A command would hide there.
        let is_command =
            |line: &str| ["# ", "$ ", "kubectl ", "ferrulectl "].iter().any(|it| line.starts_with(it));
        assert!(fence.info != "text" || !fence.lines().any(is_command), "{place}: a command in a text");
    }
}

/// The cluster tests execute those that only read. Of the others it is known what does.
#[test]
fn every_command_line_for_a_cluster_is_executed_somewhere() {
    let uninstall = "kubectl delete --filename deploy/uninstall.yaml --filename deploy/ferrule.yaml";
    for fence in fences().iter().filter(|fence| fence.info == "sh cluster") {
        // tests/cluster/src/cases/leaving.rs reads that fence.
        let is_leaving = fence.document == "docs/install.md" && fence.text.contains(uninstall);
        for line in fence.lines().filter(|line| !only_reads(line) && !is_leaving) {
            repository::expect_executor(fence, line);
        }
    }
}

#[test]
fn the_manifest_gets_the_image_that_the_documents_say() {
    let mut count = 0;
    for fence in fences() {
        for line in fence.lines().filter(|line| line.starts_with("sed ")) {
            let (edit, _) = line.split_once(" | kubectl apply").expect("an edit of the manifest");
            let edit = format!("cd {} && REGISTRY=registry.example && {edit}", top().display());
            let manifest = kit::process::expect("sh", &["-c", &edit]);
            let image = concat!("image: registry.example/ferrule:", env!("CARGO_PKG_VERSION"), "\n");
            assert!(manifest.contains(image) && !manifest.contains("image: ferrule:"), "{line}");
            count += 1;
        }
    }
    assert!(count > 1, "{count}");
}
