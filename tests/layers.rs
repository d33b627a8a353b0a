//! The layer table of `src/lib.rs`, held against the imports.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What lies below the engine.
const BELOW_ENGINE: &[&str] =
    &["cni", "config", "desired", "policy", "store", "linux", "datapath", "log", "foreign_firewall"];

/// The doors to the engine, and what each uses besides it and what lies below it. They never use each other.
const DOORS: &[(&str, &[&str])] = &[
    ("plugin", &["connectivity"]),
    ("cli", &["connectivity", "command_line"]),
    ("agent", &["connectivity"]),
];

/// Which layers each of the others may name. Whatever is neither here nor a door may not exist below `src`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("mac", &[]),
    ("text_table", &[]),
    ("cni", &[]),
    ("config", &["cni"]),
    ("linux", &[]),
    ("desired", &["cni", "config", "linux"]),
    ("policy", &["linux"]),
    ("connectivity", &["policy"]),
    ("store", &["cni", "config", "desired", "policy"]),
    ("datapath", &["cni", "config", "desired", "linux", "policy"]),
    ("log", &["config"]),
    ("foreign_firewall", &["cni", "config", "desired", "linux", "datapath"]),
    ("attachments", BELOW_ENGINE),
    ("command_line", &["cni", "policy"]),
    // Of the nodes it knows what their agents say.
    ("kubectl", &["cni", "connectivity", "command_line"]),
];

/// Values without any meaning of ours, which every layer may name.
const COMMON: &[&str] = &["mac", "text_table"];

/// Crates that must stay inside these layers, because their types change with each of their releases.
const CONFINED: &[(&str, &[&str])] = &[
    ("rtnetlink", &["linux"]),
    ("netlink_packet_route", &["linux"]),
    ("netlink_packet_core", &["linux"]),
    ("netlink_packet_netfilter", &["linux"]),
    ("netlink_proto", &["linux"]),
    ("netlink_sys", &["linux"]),
    ("kube", &["agent", "kubectl"]),
    ("k8s_openapi", &["agent", "kubectl"]),
    ("hyper", &["agent"]),
    ("prometheus_client", &["agent"]),
    ("tracing", &["agent"]),
    ("clap_complete", &["cli", "kubectl", "command_line"]),
    ("clap_mangen", &["command_line"]),
    ("tar", &["kubectl"]),
    ("flate2", &["kubectl"]),
];

/// Binaries: they name the library from outside.
const OUTSIDE: &[&str] = &["lib", "main", "bin"];

#[test]
fn each_layer_uses_only_those_above_it() {
    let of_doors = |own: &[&'static str]| [BELOW_ENGINE, &["attachments"], own].concat();
    let doors = DOORS.iter().map(|(door, own)| (*door, of_doors(own)));
    let others = MAY_USE.iter().map(|(layer, used)| (*layer, used.to_vec()));
    let allowed: BTreeMap<&str, Vec<&str>> = others.chain(doors).collect();
    let mut seen = 0;
    for (layer, file, text) in sources() {
        let Some(allowed) = allowed.get(layer.as_str()) else {
            assert!(OUTSIDE.contains(&layer.as_str()), "{} belongs to no layer", file.display());
            continue;
        };
        for used in layers_named(&text) {
            assert!(
                used == layer || COMMON.contains(&used.as_str()) || allowed.contains(&used.as_str()),
                "{}: the layer {layer} must not use {used} (table in src/lib.rs)",
                file.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 50, "the test no longer sees the imports: {seen} found");
}

/// docs/house.svg has a box for each layer, above all that the layer uses.
#[test]
fn the_picture_shows_each_layer_above_what_it_uses() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let picture = fs::read_to_string(root.join("docs/house.svg")).unwrap();
    let attribute = |text: &str, start: &str, end: char| -> Option<String> {
        text.split_once(start).and_then(|(_, rest)| Some(rest.split_once(end)?.0.to_owned()))
    };
    // A box, and on the next line its name.
    let mut height = BTreeMap::<String, u32>::new();
    for part in picture.split("\n<rect class=\"").skip(1).filter(|it| !it.starts_with("paper")) {
        let name = part.lines().nth(1).and_then(|line| attribute(line, "<text class=\"name", '<'));
        let name = name.and_then(|it| Some(it.split_once('>')?.1.to_owned())).expect("a name");
        height.insert(name, attribute(part, " y=\"", '"').unwrap().parse().unwrap());
    }
    let doors = DOORS.iter().map(|(door, own)| (*door, [&["attachments"], *own].concat()));
    let mut named = Vec::new();
    for (layer, used) in MAY_USE.iter().map(|(layer, used)| (*layer, used.to_vec())).chain(doors) {
        for lower in used {
            assert!(height[layer] < height[lower], "{layer} is not above {lower}");
        }
        named.push(layer.to_owned());
    }
    named.sort_unstable();
    assert_eq!(height.into_keys().collect::<Vec<_>>(), named);
}

/// Whoever reads one of them can go on reading downwards.
#[test]
fn files_of_the_engine_import_no_one_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/attachments");
    let texts: BTreeMap<String, String> = sources()
        .into_iter()
        .filter(|(_, file, _)| file.parent() == Some(&*root) && file.file_stem().unwrap() != "mod")
        .map(|(_, file, text)| (file.file_stem().unwrap().to_str().unwrap().to_owned(), text))
        .collect();
    let imports = |text: &str| -> Vec<String> {
        let statements = text.split("use crate::attachments::").skip(1);
        let named = statements.flat_map(|rest| {
            let statement = rest.split(';').next().unwrap();
            statement.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned).collect::<Vec<_>>()
        });
        named.filter(|word| texts.contains_key(word)).collect()
    };
    let mut graph: BTreeMap<&str, Vec<String>> =
        texts.iter().map(|(file, text)| (file.as_str(), imports(text))).collect();
    assert!(graph.values().map(Vec::len).sum::<usize>() > 10, "the test no longer sees the imports");
    // Who imports none of those that are left goes; what cannot go is a circle.
    while !graph.is_empty() {
        let left: Vec<&str> = graph.keys().copied().collect();
        graph.retain(|file, used| used.iter().any(|it| it != file && left.contains(&it.as_str())));
        assert!(graph.len() < left.len(), "in a circle, or above one: {graph:?}");
    }
}

#[test]
fn no_type_of_a_confined_crate_leaves_its_layer() {
    for (layer, file, text) in sources() {
        for (name, homes) in CONFINED {
            let path = format!("{name}::");
            let names_it = |line: &str| {
                // A crate's name may be the end of another word.
                line.match_indices(&path).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || "_:".contains(c))
                })
            };
            let named = text.lines().any(|line| !line.trim_start().starts_with("//") && names_it(line));
            let is_home = homes.contains(&layer.as_str()) || (homes.contains(&"agent") && layer == "bin");
            assert!(is_home || !named, "{} names {name}, which belongs in src/{homes:?}", file.display());
        }
    }
}

/// The plugin starts anew for each pod: what only agent and command line need must not be in it.
#[test]
fn the_plugin_has_no_dependency_of_agent_or_command_line() {
    let tree = |features: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none"]);
        cargo.args(["--package", "ferrule", "--format", "{p}"]).args(features);
        let run = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let names = String::from_utf8(run.stdout).unwrap();
        names.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect::<Vec<_>>()
    };
    let plugin = tree(&[]);
    for (feature, dependencies) in [
        (
            "agent",
            &["kube", "k8s-openapi", "hyper", "rustls", "clap", "tracing-subscriber", "prometheus-client"][..],
        ),
        ("cli", &["clap", "clap_derive", "clap_complete", "clap_mangen"]),
        ("kubectl", &["kube", "tokio-tungstenite", "clap", "flate2", "tar"]),
    ] {
        let door = tree(&["--features", feature]);
        for name in dependencies {
            assert!(door.iter().any(|it| it == name), "the test no longer sees {name}");
            assert!(!plugin.iter().any(|it| it == name), "the plugin depends on {name}");
        }
    }
    let cli = tree(&["--features", "cli"]);
    assert!(!cli.iter().any(|it| it == "kube"), "the command line depends on what only the agent needs");
    let agent = tree(&["--features", "agent"]);
    for name in ["tokio-tungstenite", "tar"] {
        assert!(
            !agent.iter().any(|it| it == name),
            "the agent depends on {name}, which only kubectl-ferrule needs"
        );
    }
}

/// Layer, file and text of everything below `src`.
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut pending = vec![root.clone()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(&root).unwrap();
                let layer = inside.components().next().unwrap().as_os_str().to_str().unwrap();
                let text = fs::read_to_string(&path).unwrap();
                found.push((layer.trim_end_matches(".rs").to_owned(), path, text));
            }
        }
    }
    found
}

/// Every `X` of a `crate::X` outside comments.
fn layers_named(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut named = Vec::new();
    for line in code {
        for rest in line.split("crate::").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if !name.is_empty() {
                named.push(name);
            }
        }
    }
    named
}
