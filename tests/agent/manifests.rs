//! What stands in deploy/, as far as text tells. tests/security/privileges.rs looks at the rights, the cluster tests apply
//! it.

use std::fs;
use std::path::Path;

fn deployed(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const WITH_PODS: [&str; 3] = ["base/daemonset.yaml", "ferrule.yaml", "uninstall.yaml"];

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
    for name in ["base/daemonset.yaml", "ferrule.yaml"] {
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

/// The labels by which users find what belongs together.
#[test]
fn every_object_has_the_labels_that_kubernetes_recommends() {
    let version = format!("app.kubernetes.io/version: {}\n", env!("CARGO_PKG_VERSION"));
    let objects = [
        "ferrule.yaml",
        "uninstall.yaml",
        "components/flow-control/flow-control.yaml",
        "prometheus/podmonitor.yaml",
        "prometheus/rules.yaml",
    ];
    for name in objects {
        let text = deployed(name);
        // Each object, and the pods that one makes.
        let places = text.lines().filter(|line| line.starts_with("kind: ")).count()
            + text.matches("\n  template:\n").count();
        for label in
            ["app.kubernetes.io/component: network\n", "app.kubernetes.io/part-of: ferrule\n", &version]
        {
            assert_eq!(text.matches(label).count(), places, "{name}: {label}");
        }
        assert!(text.matches("app.kubernetes.io/name: ferrule").count() >= places, "{name}");
    }
}

/// Without it a container may neither write to the node's directories nor to its sysctls where SELinux is enforcing.
#[test]
fn pods_have_the_selinux_type_that_may_write_to_the_node() {
    for name in WITH_PODS {
        let text = deployed(name);
        assert_eq!(text.matches("seLinuxOptions:\n          type: spc_t\n").count(), 1, "{name}");
        assert!(!text.contains("privileged:"), "{name}");
    }
}

#[test]
fn no_image_but_ferrules_own_is_needed() {
    let ours = format!("image: ferrule:{}", env!("CARGO_PKG_VERSION"));
    for name in WITH_PODS {
        let text = deployed(name);
        let images: Vec<&str> =
            text.lines().filter_map(|line| line.find("image: ").map(|at| &line[at..])).collect();
        assert!(!images.is_empty() && images.iter().all(|image| *image == ours), "{name}: {images:?}");
    }
}

#[test]
fn settings_may_stand_in_a_config_map() {
    for name in WITH_PODS {
        let text = deployed(name);
        let reference =
            "envFrom:\n        - configMapRef:\n            name: ferrule\n            optional: true\n";
        assert_eq!(text.matches(reference).count(), 1, "{name}");
    }
}

/// The scheduler must know that these ports of the node are taken, and Prometheus finds one by its name.
#[test]
fn the_metrics_port_has_a_name_and_is_the_nodes() {
    for name in ["base/daemonset.yaml", "ferrule.yaml"] {
        let text = deployed(name);
        for port in ["9690", "9691"] {
            assert_eq!(text.matches(&format!("containerPort: {port}\n")).count(), 1, "{name}");
            assert_eq!(text.matches(&format!("hostPort: {port}\n")).count(), 1, "{name}");
        }
        assert!(text.contains("hostNetwork: true") && text.contains("name: metrics\n"), "{name}");
    }
    assert!(deployed("prometheus/podmonitor.yaml").contains("- port: metrics\n"));
    assert!(deployed("prometheus/podmonitor.yaml").contains("app.kubernetes.io/name: ferrule\n"));
}

#[test]
fn the_image_says_what_it_is() {
    let text = deployed("Containerfile");
    for label in ["title", "description", "licenses", "version", "revision"] {
        assert!(text.contains(&format!("org.opencontainers.image.{label}=")), "{label}");
    }
    assert!(text.contains(&format!("ARG VERSION={}\n", env!("CARGO_PKG_VERSION"))));
}
