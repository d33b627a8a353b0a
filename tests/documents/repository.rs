//! What the documents tell people to type in the repository: CI executes it, and these are the lines that do.

use std::fs;
use std::process::Command;

use kit::documents::{Fence, fences, repository};
use kit::files::Scratch;
use kit::process::{expect, output, run};

/// How a line begins, the file that executes it, and words of that file.
const EXECUTED: &[(&str, &str, &str)] = &[
    ("scripts/kind.sh up --family dual --proxy nftables --workers 2", ".ci/run", "cluster dual nftables\n"),
    ("scripts/kind.sh up", ".ci/run", "scripts/kind.sh up --family \"$1\" --proxy \"$2\" --workers 2"),
    // With all cases; what names a few is in `expect_words_of_cases`. Minutes of attacks are for people.
    ("scripts/kind.sh test", ".ci/run", "scripts/kind.sh test"),
    ("scripts/kind.sh down", ".ci/run", "scripts/kind.sh down"),
    ("scripts/demo.sh", ".ci/run", "scripts/bare-root.sh scripts/demo.sh"),
    ("scripts/test.sh", ".ci/run", "scripts/test.sh --all --again"),
    ("scripts/check.sh", "scripts/test.sh", "scripts/check.sh --without-tests"),
    ("scripts/build.sh --target aarch64-", "scripts/arm64.sh", "scripts/build.sh --target \"$target\""),
    ("scripts/build.sh --target x86_64-", "scripts/build.sh", "need_target \"$target\""),
    // Into the directory of users' programs.
    ("scripts/build.sh dist kubectl-ferrule", ".github/workflows/release.yaml", " kubectl-ferrule\n"),
    ("scripts/build.sh", "scripts/test.sh", "scripts/build.sh \"$scratch/root\""),
    ("dist/ferrulectl --version", "scripts/test.sh", "\"/$binary\" --version"),
    ("scripts/fuzz.sh", "scripts/test.sh", "scripts/fuzz.sh 20000"),
    (
        "cargo test --manifest-path fuzz/Cargo.toml --no-default-features",
        "scripts/fuzz.sh",
        "cargo test --manifest-path fuzz/Cargo.toml --no-default-features",
    ),
    (
        "scripts/soak.sh --callers 8 0.5",
        "scripts/test.sh",
        "scripts/soak.sh --plugin \"$scratch/root/ferrule\" --callers 8 0.5",
    ),
    (
        "scripts/soak.sh --size --quick",
        "scripts/test.sh",
        "scripts/soak.sh --plugin \"$scratch/root/ferrule\" --size --quick",
    ),
    (
        "scripts/bench.sh --quick --tsv ",
        "scripts/test.sh",
        "scripts/bench.sh --quick --tsv \"$scratch/bench.tsv\"",
    ),
    ("scripts/bench.sh --api --quick", "scripts/test.sh", "scripts/bench.sh --api --quick"),
    ("scripts/plot.sh ", "tests/documents/pictures.rs", "fn the_plots_are_those_of_the_figures"),
    ("cargo test --features agent,cli ", "scripts/test.sh", "cargo test --workspace"),
    (
        "docker build --tag $REGISTRY/ferrule:",
        "scripts/kind.sh",
        "docker build --tag \"$image\" --file deploy/Containerfile",
    ),
    (
        "kubectl --namespace kube-system create configmap ferrule --from-literal=",
        "tests/cluster/src/cases/agent.rs",
        "create configmap ferrule --from-literal=",
    ),
    (
        "kubectl --namespace kube-system rollout restart daemonset/ferrule",
        "tests/cluster/src/cases/agent.rs",
        "\"rollout\", \"restart\", AGENT",
    ),
    // scripts/chart.sh compares what it has written.
    ("scripts/chart.sh --write", "scripts/chart.sh", "lay \"$scratch/files\""),
    ("helm install ferrule deploy/chart/ferrule ", "tests/cluster/src/cases/helm.rs", "&[\"install\"]"),
    ("helm upgrade ferrule deploy/chart/ferrule ", "tests/cluster/src/cases/helm.rs", "&[\"upgrade\"]"),
    ("helm rollback ferrule 1 ", "tests/cluster/src/cases/helm.rs", "\"rollback\", \"ferrule\", \"1\""),
    ("helm uninstall ferrule ", "tests/cluster/src/cases/helm.rs", "\"uninstall\", \"ferrule\", \"--wait\""),
    (
        "kubectl apply --filename deploy/kubectl/rbac.yaml",
        "tests/cluster/src/cases/kubectl.rs",
        "deploy(\"kubectl/rbac.yaml\")",
    ),
    (
        "kubectl create clusterrolebinding ferrule-kubectl --clusterrole=ferrule-kubectl --group=$group",
        "tests/cluster/src/cases/kubectl.rs",
        "\"clusterrolebinding\", \"--clusterrole=ferrule-kubectl\"",
    ),
    (
        "kubectl --namespace kube-system create rolebinding ferrule-kubectl --role=ferrule-kubectl --group=$group",
        "tests/cluster/src/cases/kubectl.rs",
        "\"rolebinding\", \"--role=ferrule-kubectl\"",
    ),
    ("kubectl ferrule why ", "tests/cluster/src/cases/kubectl.rs", "\"why {}/{client} {to}"),
    ("kubectl ferrule capture ", "tests/cluster/src/cases/kubectl.rs", "\"capture {}/{server} --count 8\""),
    ("kubectl ferrule bundle", "tests/cluster/src/cases/kubectl.rs", "as_account(\"bundle\")"),
    ("kubectl ferrule uninstall", "tests/cluster/src/cases/kubectl.rs", "call(space, \"uninstall\")"),
    (
        "kubectl ferrule migrate --replaces kube-system/kindnet",
        "scripts/migrate.sh",
        "\"$program\" migrate --replaces \"$replaced\"",
    ),
    // Into a registry that only its user has.
    ("docker push $REGISTRY/ferrule:", "scripts/kind.sh", "kind load docker-image \"$image\""),
    (
        "kubectl apply --filename deploy/ferrule.yaml",
        "scripts/kind.sh",
        "k apply --filename deploy/ferrule.yaml",
    ),
    (
        "sed \"s|image: ferrule:|image: $REGISTRY/ferrule:|\" deploy/ferrule.yaml | kubectl apply --filename -",
        "tests/documents.rs",
        "fn the_manifest_gets_the_image",
    ),
];

/// Panics unless something executes the line, and is there.
pub(super) fn expect_executor(fence: &Fence, line: &str) {
    let place = format!("{}:{}: {line}", fence.document, fence.line);
    let (_, file, words) = EXECUTED
        .iter()
        .find(|(start, ..)| line.starts_with(start))
        .unwrap_or_else(|| panic!("{place}: nothing executes it"));
    let text = fs::read_to_string(repository().join(file)).unwrap();
    assert!(text.contains(words), "{place}: {file} has not {words:?}");
    let program = line.split(' ').next().unwrap();
    assert!(
        !program.starts_with("scripts/") || repository().join(program).is_file(),
        "{place}: no such file"
    );
    if let Some((_, version)) = line.split_once("$REGISTRY/ferrule:").filter(|_| line.starts_with("docker")) {
        assert_eq!(version.split(' ').next(), Some(env!("CARGO_PKG_VERSION")), "{place}");
    }
    if let Some(arguments) = line.strip_prefix("scripts/kind.sh test") {
        let cases = fs::read_to_string(repository().join("tests/cluster/src/cases/mod.rs")).unwrap();
        for word in arguments.split_whitespace().filter(|word| *word != "--long") {
            assert!(cases.contains(&format!(": {word}")), "{place}: no case is called {word}");
        }
    }
    if let Some(arguments) = line.strip_prefix("cargo test --features agent,cli ") {
        expect_to_run_tests(&place, arguments);
    }
}

/// A filter to which no test answers passes, and says nothing.
fn expect_to_run_tests(place: &str, arguments: &str) {
    let (target, filters) = arguments.split_once(" -- ").unwrap_or_else(|| panic!("{place}: no filter"));
    for filter in filters.split_whitespace().filter(|word| !word.starts_with("--")) {
        let found = if target.split(' ').any(|word| word == "--lib") {
            // Its tests are in another program. By the place of the module it can be told.
            let module = repository().join("src").join(filter.trim_end_matches("::").replace("::", "/"));
            module.is_dir() || module.with_extension("rs").is_file()
        } else {
            let this = std::env::current_exe().unwrap();
            output(this.to_str().unwrap(), &[filter, "--list"]).unwrap().contains(": test\n")
        };
        assert!(found, "{place}: no test is called {filter}");
    }
}

#[test]
fn every_command_line_for_the_repository_is_executed_somewhere() {
    let mut count = 0;
    for fence in fences().iter().filter(|fence| fence.info == "sh repo") {
        fence.lines().for_each(|line| expect_executor(fence, line));
        count += 1;
    }
    assert!(count > 8, "{count} fences");
}

/// Release and checksums stand in the manifest; nothing is left to fill in.
#[test]
fn the_manifest_for_krew_has_the_archives_checksums() {
    let scratch = Scratch::new("krew");
    let mut sums = Vec::new();
    for arch in ["amd64", "arm64"] {
        let archive = scratch.path().join(format!("kubectl-ferrule-v9.8.7-linux-{arch}.tar.gz"));
        fs::write(&archive, format!("of {arch}")).unwrap();
        let sum = expect("sha256sum", &[archive.to_str().unwrap()]);
        sums.push(sum.split(' ').next().unwrap().to_owned());
    }
    let mut krew = Command::new(repository().join("scripts/krew.sh"));
    let manifest = run(krew.args(["somebody/ferrule", "v9.8.7"]).arg(scratch.path()), "").unwrap();
    assert!(!manifest.contains('$'), "{manifest}");
    assert!(manifest.contains("  version: v9.8.7\n"), "{manifest}");
    for (arch, sum) in ["amd64", "arm64"].iter().zip(&sums) {
        let place =
            format!("somebody/ferrule/releases/download/v9.8.7/kubectl-ferrule-v9.8.7-linux-{arch}.tar.gz");
        assert!(manifest.contains(&format!("{place}\n    sha256: {sum}\n")), "{manifest}");
    }
}
