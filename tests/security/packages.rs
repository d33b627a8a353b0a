//! What comes into the binaries from others: from the registry, with its checksum, and nothing that deny.toml bans.
//!
//! The release workflow runs `cargo deny`, which also knows licences and advisories. This test reads the same deny.toml
//! and needs neither the program nor a network.

use std::fs;
use std::path::Path;

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

/// The lines of a table or list of deny.toml, from `begin` to `end`.
fn of_deny<'t>(text: &'t str, begin: &str, end: &str) -> &'t str {
    let rest = text.split_once(begin).unwrap_or_else(|| panic!("deny.toml has no {begin}")).1;
    rest.split_once(end).unwrap().0
}

#[test]
fn every_crate_has_its_checksum_and_none_is_banned() {
    let packages = locked();
    assert!(packages.len() > 150, "the test no longer reads Cargo.lock");
    let text = text_of("deny.toml");
    let banned: Vec<&str> = of_deny(&text, "\ndeny = [\n", "\n]")
        .lines()
        .map(|line| line.split_once("crate = \"").unwrap().1.split_once('"').unwrap().0)
        .collect();
    assert!(banned.contains(&"openssl-sys"));
    let own = ["ferrule", "bench", "bench-api", "bench-policies", "cluster", "kit", "lab", "soak"];
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
