//! What stands in deploy/, as far as text tells. tests/security/privileges.rs looks at the rights, the cluster tests apply
//! it.

use std::fs;
use std::path::Path;

fn deployed(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const WITH_PODS: [&str; 3] = ["daemonset.yaml", "ferrule.yaml", "uninstall.yaml"];

/// Variables of Services are settings of nobody here.
#[test]
fn pods_get_no_service_links_and_set_ferrule_names() {
    for name in WITH_PODS {
        let text = deployed(name);
        assert_eq!(text.matches("enableServiceLinks: false").count(), 1, "{name}");
        let variables =
            text.split("env:\n").skip(1).filter_map(|it| it.trim_start().strip_prefix("- name: "));
        let names: Vec<&str> = variables.filter_map(|it| it.lines().next()).collect();
        assert!(!names.is_empty(), "{name}");
        assert!(names.iter().all(|it| it.starts_with("FERRULE_")), "{name}: {names:?}");
    }
}

/// Kubelet asks where the agent answers, whatever it is told to listen on besides.
#[test]
fn probes_ask_where_the_agent_answers() {
    use clap::Parser;
    let settings =
        ferrule::agent::settings::Settings::try_parse_from(["ferruled", "--node-name", "a"]).unwrap();
    let (host, port) = (settings.probe_listen.ip().to_string(), settings.probe_listen.port());
    for name in ["daemonset.yaml", "ferrule.yaml"] {
        let text = deployed(name);
        assert_eq!(text.matches(&format!("host: {host}\n")).count(), 2, "{name}: both probes");
        assert_eq!(text.matches("port: probes\n").count(), 2, "{name}: both probes");
        assert_eq!(text.matches(&format!("containerPort: {port}\n")).count(), 1, "{name}");
        assert_eq!(
            text.matches(&format!("containerPort: {}\n", settings.listen.port())).count(),
            1,
            "{name}"
        );
        assert!(!text.contains("name: FERRULE_LISTEN"), "{name}");
    }
}
