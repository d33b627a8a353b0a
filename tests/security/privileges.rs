//! What the agent is given (deploy/) is what it needs, and no more: each verb of its role, and each of its
//! capabilities, is taken from it in turn, and something fails.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::agent::access::Access;
use crate::agent::node::{AgentNode, other};
use crate::agent::objects::Kind;
use kit::call::Call;
use kit::pod::Pod;
use serde_json::json;

/// A file of deploy/.
fn deployed(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words of a list in a line, `key: [a, b]`; `None` if the line has no such key.
fn list(line: &str, key: &str) -> Option<Vec<String>> {
    let line = line.trim().trim_start_matches("- ");
    let words = line.strip_prefix(key)?.strip_prefix(": [")?.strip_suffix(']')?;
    Some(words.split(',').map(|word| word.trim().trim_matches('"').to_owned()).collect())
}

/// What the agent's ClusterRole allows, one by one.
fn role() -> BTreeSet<Access> {
    let text = deployed("base/rbac.yaml");
    let role = text.split("\n---\n").find(|document| document.contains("kind: ClusterRole\n")).unwrap();
    let (mut groups, mut resources, mut all) = (Vec::new(), Vec::new(), BTreeSet::new());
    for line in role.lines() {
        groups = list(line, "apiGroups").unwrap_or(groups);
        resources = list(line, "resources").unwrap_or(resources);
        for verb in list(line, "verbs").unwrap_or_default() {
            let of = |group: &String, resource: &String| Access {
                group: group.clone(),
                resource: resource.clone(),
                verb: verb.clone(),
            };
            all.extend(
                groups
                    .iter()
                    .flat_map(|group| resources.iter().map(move |it| (group, it)))
                    .map(|it| of(it.0, it.1)),
            );
        }
    }
    all
}

/// The capabilities of the containers of a manifest, which must drop all others.
fn capabilities(manifest: &str) -> Vec<String> {
    let text = deployed(manifest);
    let mut added: Vec<String> = text.lines().filter_map(|line| list(line, "add")).flatten().collect();
    added.sort();
    added.dedup();
    let containers = text.matches("image: ").count();
    assert_eq!(text.matches("drop: [ALL]").count(), containers, "{manifest}: each container drops all");
    assert_eq!(text.matches("allowPrivilegeEscalation: false").count(), containers, "{manifest}");
    assert_eq!(text.matches("readOnlyRootFilesystem: true").count(), containers, "{manifest}");
    assert!(
        !text.contains("privileged:") && !text.contains("hostPID") && !text.contains("hostIPC"),
        "{manifest}"
    );
    assert!(text.contains("type: RuntimeDefault"), "{manifest}: seccomp");
    added
}

/// Executes a program as root with nothing but these capabilities, as a container runtime does it.
fn with_only(capabilities: &[String]) -> Vec<String> {
    let added: String = capabilities.iter().map(|it| format!(",+{}", it.to_lowercase())).collect();
    [
        "setpriv",
        "--no-new-privs",
        "--ambient-caps=-all",
        &format!("--inh-caps=-all{added}"),
        &format!("--bounding-set=-all{added}"),
    ]
    .map(str::to_owned)
    .to_vec()
}

fn is_ready(node: &AgentNode) -> bool {
    node.page("/readyz").is_some_and(|page| page.contains(" 200 "))
}

/// A node on which everything happens that the agent tells the cluster of: another conf comes before its own.
fn eventful(role: &str) -> AgentNode {
    let node = AgentNode::new(role);
    node.api.put(other(11));
    node.api.define_cluster_policies(true);
    fs::create_dir(node.path("net.d")).unwrap();
    fs::write(node.path("net.d/00-other.conf"), "{\"name\": \"other\", \"type\": \"other\"}").unwrap();
    node
}

fn writes_event(node: &AgentNode) -> bool {
    !node.api.written("/events").is_empty()
}

fn sets_condition(node: &AgentNode) -> bool {
    !node.api.written("/nodes/node-a/status").is_empty()
}

#[test]
fn the_agent_asks_for_what_its_role_allows_and_for_nothing_else() {
    let mut node = eventful("role");
    node.api.allow(role());
    // An old server: lists are asked for as well.
    node.api.refuse_streams();
    let policy =
        json!({ "metadata": { "namespace": "shop", "name": "none" }, "spec": { "podSelector": {} } });
    node.api.put_object(Kind::Policy, policy);
    node.start_ready();
    node.wait("an event", || writes_event(&node));
    node.wait("the condition", || sets_condition(&node));
    // A watch that was cut, and one that is too old, are taken up again by the same verbs.
    node.api.cut();
    node.api.compact(true);
    node.api.put(other(13));
    node.wait_for_routes_to(&[11, 13]);
    node.wait("the rest of its role", || node.api.asked() == role());
}

/// Not ready, or a duty that is not done: what it is shows in the log.
#[test]
fn without_any_one_verb_of_its_role_something_fails() {
    for taken in role() {
        let mut node = eventful("verb");
        node.api.refuse_streams();
        let mut rest = role();
        assert!(rest.remove(&taken));
        node.api.allow(rest);
        node.start();
        node.wait(&format!("being refused {taken:?}"), || node.api.asked().contains(&taken));
        match (taken.resource.as_str(), taken.verb.as_str()) {
            ("nodes", "list") => {
                node.wait("the reason", || node.log().contains("orbidden"));
                assert!(!is_ready(&node));
            }
            ("nodes", "watch") => {
                node.wait("the reason", || node.log().contains("orbidden"));
                let (lists, watches) = node.api.lists_and_watches();
                assert!(lists > 0 && watches == 0, "nothing new is learnt");
            }
            ("nodes/status", "patch") => {
                node.wait("the reason", || node.log().contains("node condition not set"));
            }
            ("events", "create") => {
                node.wait("the reason", || node.log().contains("event not written"));
            }
            ("servicecidrs", "list") => {
                node.wait("the reason", || node.log().contains("Service ranges not known"));
            }
            ("networkpolicies" | "clusternetworkpolicies" | "namespaces" | "pods", _) => {
                let log = "API server refuses what NetworkPolicy needs";
                node.wait("the reason", || node.log().contains(log) && node.log().contains(&taken.resource));
                // All else goes on.
                node.wait("readiness", || is_ready(&node));
            }
            other => panic!("a verb that no duty is known for: {other:?}"),
        }
    }
}

#[test]
fn the_daemon_sets_capabilities_are_enough() {
    let all = capabilities("base/daemonset.yaml");
    assert_eq!(capabilities("uninstall.yaml"), all);
    let mut node = AgentNode::new("caps");
    node.through = with_only(&all);
    node.words = vec!["--routing".into(), "vxlan".into()];
    node.namespace.set_sysctl("net/ipv4/ip_forward", "0");
    node.api.put(other(11));
    node.start_ready();
    assert_eq!(node.namespace.sysctl("net/ipv4/ip_forward"), "1");
    assert!(node.namespace.ip("-d link show ferrule-vxlan").contains("vxlan id 4096"));
    assert!(node.namespace.ip("route show proto 102").contains("10.244.11.0/24"));
    assert!(node.nft("list table inet ferrule").contains("fully-random"));
    assert!(node.has("net.d/10-ferrule.conflist") && node.has("bin/ferrule"));
    // A pod comes, and dies untold; then all goes.
    let pod = Pod::new("pod");
    let call = Call::ferrule("ADD").on(&node.namespace).conf(&node.conf());
    call.attachment(pod.container(), pod.namespace().path()).run().result();
    node.namespace.ip("route flush proto 102");
    node.wait("the pod's route", || {
        node.namespace.ip("route show proto 102").contains("10.244.1.2 dev veth")
    });
    node.end(rustix::process::Signal::TERM);
    drop(pod);
    assert!(node.uninstall(&["--yes-pods-lose-their-network"]));
    assert_eq!(node.nft("list tables"), "");
    assert_eq!(node.namespace.ip("route show table all proto 102"), "");
    assert!(!node.has("data/podnet") && !node.has("net.d/10-ferrule.conflist"));
}

#[test]
fn the_agent_names_the_capability_that_it_lacks() {
    let all = capabilities("base/daemonset.yaml");
    assert!(!all.is_empty());
    for taken in &all {
        let rest: Vec<String> = all.iter().filter(|it| *it != taken).cloned().collect();
        let mut node = AgentNode::new("without");
        node.through = with_only(&rest);
        node.api.put(other(11));
        node.start();
        node.wait("the reason", || node.log().contains("Operation not permitted"));
        assert!(!is_ready(&node), "without {taken}");
        assert!(!node.has("net.d/10-ferrule.conflist"), "without {taken} no pod may come");
    }
}

/// Nothing to execute for whoever gets in, but the three programs.
#[test]
fn the_image_has_three_programs_and_no_shell() {
    let file = deployed("Containerfile");
    let says_what_it_is = |line: &&str| ["#", "ARG ", "LABEL ", " "].iter().any(|it| line.starts_with(it));
    let lines: Vec<&str> = file.lines().filter(|line| !says_what_it_is(line) && !line.is_empty()).collect();
    assert_eq!(
        lines,
        ["FROM scratch", "COPY $DIR/ferrule $DIR/ferruled $DIR/ferrulectl /", "ENTRYPOINT [\"/ferruled\"]"]
    );
}

/// What `kubectl apply -f` puts there is what `-k` does.
#[test]
fn the_manifest_in_one_file_gives_the_same_rights() {
    let text = deployed("ferrule.yaml");
    assert_eq!(text.matches("- NET_ADMIN").count(), capabilities("base/daemonset.yaml").len());
    assert_eq!(text.matches("add:").count(), 1);
    let verbs: BTreeSet<String> = role().into_iter().map(|it| it.verb).collect();
    for verb in ["get", "list", "watch", "create", "update", "patch", "delete", "'*'"] {
        assert_eq!(text.contains(&format!("  - {verb}\n")), verbs.contains(verb), "{verb}");
    }
}
