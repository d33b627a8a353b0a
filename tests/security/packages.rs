//! What comes into the binaries from others: from where, under which licence, and told to whoever runs them.
//!
//! The same rules as `cargo deny check licenses bans sources`, read from the same deny.toml, for machines without it.
//! Needs no network, so it knows nothing of advisories, nor of versions that were yanked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::files::Scratch;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn text_of(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// A package of Cargo.lock.
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

fn locked() -> Vec<Locked> {
    let text = text_of("Cargo.lock");
    let field = |of: &str, name: &str| {
        let line = of.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
        line.and_then(|value| value.strip_suffix('"')).map(str::to_owned)
    };
    let read = |of: &str| Locked {
        name: field(of, "name").unwrap(),
        version: field(of, "version").unwrap(),
        source: field(of, "source"),
        checksum: field(of, "checksum"),
    };
    text.split("[[package]]").skip(1).map(read).collect()
}

/// Executes cargo without a network; what it printed.
fn cargo(words: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(words).args(["--locked", "--offline"]);
    let run = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// The triple of this machine: what it needs was fetched to build the tests.
fn host() -> String {
    let run = Command::new("rustc").arg("-vV").output().unwrap();
    let text = String::from_utf8(run.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

/// The lines of a table or list of deny.toml, from `begin` to `end`.
fn of_deny<'t>(text: &'t str, begin: &str, end: &str) -> &'t str {
    let rest = text.split_once(begin).unwrap_or_else(|| panic!("deny.toml has no {begin}")).1;
    rest.split_once(end).unwrap().0
}

/// Whether an SPDX expression can be met with licences of which `is_allowed` holds. Before there were such expressions,
/// a slash was an "or".
fn is_met(expression: &str, is_allowed: &dyn Fn(&str) -> bool) -> bool {
    let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let (met, rest) = any(&words, is_allowed);
    assert!(rest.is_empty(), "{expression}");
    met
}

fn any<'w>(words: &'w [&'w str], is_allowed: &dyn Fn(&str) -> bool) -> (bool, &'w [&'w str]) {
    let (mut met, mut rest) = all(words, is_allowed);
    while let ["OR", more @ ..] = rest {
        let (other, after) = all(more, is_allowed);
        (met, rest) = (met || other, after);
    }
    (met, rest)
}

fn all<'w>(words: &'w [&'w str], is_allowed: &dyn Fn(&str) -> bool) -> (bool, &'w [&'w str]) {
    let (mut met, mut rest) = one(words, is_allowed);
    while let ["AND", more @ ..] = rest {
        let (other, after) = one(more, is_allowed);
        (met, rest) = (met && other, after);
    }
    (met, rest)
}

fn one<'w>(words: &'w [&'w str], is_allowed: &dyn Fn(&str) -> bool) -> (bool, &'w [&'w str]) {
    match words {
        ["(", inner @ ..] => {
            let (met, rest) = any(inner, is_allowed);
            assert_eq!(rest.first(), Some(&")"));
            (met, &rest[1..])
        }
        [licence, "WITH", exception, rest @ ..] => (is_allowed(&format!("{licence} WITH {exception}")), rest),
        [licence, rest @ ..] => (is_allowed(licence), rest),
        [] => panic!("an expression that ends too early"),
    }
}

#[test]
fn an_expression_is_met_as_spdx_means_it() {
    let allowed = |licence: &str| ["MIT", "ISC", "A WITH x"].contains(&licence);
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("MIT AND ISC", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("(GPL-3.0 OR MIT) AND BSL", false),
        ("MIT AND ISC OR GPL-3.0", true),
        ("A WITH x", true),
        ("A WITH y", false),
        ("MIT WITH y OR GPL-3.0", false),
    ] {
        assert_eq!(is_met(expression, &allowed), met, "{expression}");
    }
}

#[test]
fn every_crate_comes_from_the_registry_with_its_checksum_and_none_is_banned() {
    let packages = locked();
    assert!(packages.len() > 150, "the test no longer reads Cargo.lock");
    let text = text_of("deny.toml");
    let banned: Vec<&str> = of_deny(&text, "\ndeny = [\n", "\n]")
        .lines()
        .map(|line| line.split_once("crate = \"").unwrap().1.split_once('"').unwrap().0)
        .collect();
    assert!(banned.contains(&"openssl-sys"));
    let own = ["ferrule", "bench", "cluster", "lab", "soak"];
    for package in packages {
        let Locked { name, version, source, checksum } = package;
        assert!(!banned.contains(&name.as_str()), "{name} is banned (deny.toml)");
        match source {
            None => assert!(own.contains(&name.as_str()), "{name} {version} is nobody's"),
            Some(source) => {
                assert_eq!(source, REGISTRY, "{name} {version}");
                assert!(checksum.is_some_and(|sum| sum.len() == 64), "{name} {version}");
            }
        }
    }
}

#[test]
fn every_crate_has_a_licence_that_is_allowed_and_each_that_is_allowed_is_needed() {
    let text = text_of("deny.toml");
    let allowed: Vec<&str> =
        of_deny(&text, "\nallow = [", "]").split(',').map(|it| it.trim().trim_matches('"')).collect();
    let is_allowed = |licence: &str| allowed.contains(&licence);
    let metadata =
        cargo(&["metadata", "--format-version", "1", "--all-features", "--filter-platform", &host()]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let licences: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| !package["source"].is_null())
        .map(|package| (package["name"].as_str().unwrap(), package["license"].as_str().unwrap_or("none")))
        .collect();
    assert!(licences.len() > 150, "the test no longer sees the crates");
    for (name, licence) in &licences {
        assert!(is_met(licence, &is_allowed), "{name} has {licence} (deny.toml)");
    }
    for licence in &allowed {
        let without = |it: &str| it != *licence && is_allowed(it);
        assert!(
            licences.values().any(|it| !is_met(it, &without)),
            "{licence} is allowed for nobody (deny.toml)"
        );
    }
}

#[test]
fn the_bill_of_materials_has_every_crate_of_a_binary_once_with_licence_and_checksum() {
    let scratch = Scratch::new("sbom");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/sbom.sh");
    let made = Command::new(script).arg(scratch.path()).env("CARGO_NET_OFFLINE", "true").output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let sums: BTreeMap<(String, String), Option<String>> =
        locked().into_iter().map(|it| ((it.name, it.version), it.checksum)).collect();
    for (binary, features) in [("ferrule", ""), ("ferruled", "agent")] {
        let path = scratch.path().join(format!("{binary}.cdx.json"));
        let sbom: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!((&sbom["bomFormat"], &sbom["specVersion"]), (&"CycloneDX".into(), &"1.6".into()));
        let root = &sbom["metadata"]["component"];
        assert_eq!((&root["name"], &root["version"]), (&binary.into(), &env!("CARGO_PKG_VERSION").into()));
        let mut told = BTreeSet::new();
        let mut refs = BTreeSet::from([root["bom-ref"].as_str().unwrap()]);
        for crate_ in sbom["components"].as_array().unwrap() {
            let (name, version) = (crate_["name"].as_str().unwrap(), crate_["version"].as_str().unwrap());
            assert_eq!(crate_["purl"], format!("pkg:cargo/{name}@{version}"));
            assert!(refs.insert(crate_["bom-ref"].as_str().unwrap()), "{name} {version} twice");
            told.insert(format!("{name} v{version}"));
            let licence = crate_["licenses"][0]["expression"].as_str().unwrap();
            assert!(!licence.contains('/') && licence != "NOASSERTION", "{name}: {licence}");
            let sum = &crate_["hashes"][0];
            let known = sums[&(name.to_owned(), version.to_owned())].as_deref();
            assert_eq!((sum["alg"].as_str(), sum["content"].as_str()), (Some("SHA-256"), known), "{name}");
        }
        let tree = cargo(&[
            "tree",
            "--package",
            "ferrule",
            "--features",
            features,
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ]);
        let of_line = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let mut wanted: BTreeSet<String> = tree.lines().map(of_line).filter(|it| !it.is_empty()).collect();
        assert!(wanted.remove(&format!("ferrule v{}", env!("CARGO_PKG_VERSION"))));
        assert_eq!(told, wanted, "{binary}");
        for dependency in sbom["dependencies"].as_array().unwrap() {
            let on = dependency["dependsOn"].as_array().unwrap().iter();
            for known in on.chain([&dependency["ref"]]) {
                assert!(refs.contains(known.as_str().unwrap()), "{known}");
            }
        }
    }
}
