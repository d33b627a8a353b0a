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
