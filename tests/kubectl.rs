//! `kubectl ferrule` and an API server that a test fills: who is asked, what becomes of those that cannot be, and how it
//! ends. The cluster tests ask the same of real ones.

mod api;
mod migrate;

use std::fs;

use kit::answer::Answer;
use kit::files::Scratch;
use kit::process;
use serde_json::{Value, json};

use api::{Api, Exec};

fn says(document: &Value, status: i32) -> Option<Exec> {
    Some(Exec::Says(document.to_string().into_bytes(), String::new(), status))
}

fn finding(found: &str) -> Value {
    json!({ "id": "dead-attachments", "severity": "error", "network": "podnet", "found": found, "cause": "a crash",
            "remedy": "ferrulectl reclaim" })
}

fn doctor(findings: &[Value], skipped: &[&str]) -> Value {
    json!({ "version": 1, "findings": findings, "skipped": skipped })
}

/// How it ended, and the problem of each node.
fn problems(answer: &Answer) -> (Option<i32>, Vec<(String, String)>) {
    let document = answer.document().unwrap_or_else(|| panic!("{answer:?}"));
    let nodes = document["nodes"].as_array().unwrap().iter();
    let of = |it: &Value| {
        (it["node"].as_str().unwrap().to_owned(), it["problem"].as_str().unwrap_or_default().to_owned())
    };
    (answer.status.code(), nodes.map(of).collect())
}

#[test]
fn each_node_that_cannot_be_asked_has_its_line() {
    let api = Api::new();
    api.node("a", None, says(&doctor(&[], &[]), 0));
    api.node("b", None, None);
    api.node(
        "c",
        Some("Kubelet stopped posting node status."),
        Some(Exec::Refused("error dialing backend".into())),
    );
    api.node("d", None, Some(Exec::Hangs));
    let old = "error: unrecognized subcommand 'doctor'\n\nUsage: ferrulectl".to_owned();
    api.node("e", None, Some(Exec::Says(Vec::new(), old, 2)));
    let answer = api.call("doctor --output json --deadline 2").run();
    let of = |node: &str, problem: &str| (node.to_owned(), problem.to_owned());
    let told = [
        of("a", ""),
        of("b", "no agent's pod is on it"),
        of("c", "it is NotReady: Kubelet stopped posting node status.; error dialing backend"),
        of("d", "its agent did not answer within 2 s (--deadline)"),
        of("e", "its agent's ferrulectl is another version, without `doctor`"),
    ];
    assert_eq!(problems(&answer), (Some(3), told.to_vec()));
    assert_eq!(api.asked("a"), ["/ferrulectl doctor --output json"]);
    let some = api.call("doctor --node a").run();
    assert_eq!((some.status.code(), some.stderr.as_str()), (Some(0), ""), "{some:?}");
    let none = api.call("doctor --node x").run();
    assert_eq!(none.status.code(), Some(3));
    assert!(none.stderr.contains("there is no node \"x\""), "{none:?}");
}

#[test]
fn a_large_document_arrives_whole_and_findings_are_grouped() {
    let api = Api::new();
    let many: Vec<String> = (0..5000).map(|number| format!("place {number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    api.node("a", None, says(&doctor(&[finding("dead: x/1")], &many), 1));
    api.node("b", None, says(&doctor(&[finding("dead: x/1")], &many), 1));
    let answer = api.call("doctor").run();
    assert_eq!(answer.status.code(), Some(1));
    let text = answer.text();
    assert!(text.contains("network podnet: dead: x/1\n  nodes   a, b\n  cause   a crash\n"), "{text}");
    assert!(text.contains("not looked at on a, b: place 4999\n"));
}

#[test]
fn a_cluster_without_agents_and_one_that_is_away_end_with_3() {
    let api = Api::new();
    api.node("a", None, None);
    let answer = api.call("inspect").run();
    assert_eq!(answer.status.code(), Some(3), "{answer:?}");
    assert!(answer.stderr.contains("there is no agent of ferrule"), "{answer:?}");
    let away = kit::call::Call::of(&*kit::binaries::KUBECTL_FERRULE)
        .arguments("inspect --kubeconfig /nowhere")
        .run();
    assert_eq!(away.status.code(), Some(3), "{away:?}");
    assert!(away.stderr.contains("no kubeconfig") && away.stderr.contains("/nowhere"), "{away:?}");
}

#[test]
fn policies_are_asked_about_on_the_nodes_of_the_pods() {
    let api = Api::new();
    api.node("a", None, says(&json!({ "version": 1 }), 0));
    api.node("b", None, says(&json!({ "version": 1 }), 1));
    api.node("c", None, says(&json!({ "version": 1 }), 1));
    api.pod("client", "a", "10.244.1.2");
    api.pod("web", "b", "10.244.2.7");
    let answer = api.call("policy why client 10.244.2.7:80 --output json").run();
    assert_eq!(answer.status.code(), Some(1), "{answer:?}");
    for node in ["a", "b"] {
        let asked = api.asked(node);
        assert_eq!(asked.len(), 2);
        assert!(asked.iter().any(|it| it.contains("json")), "{asked:?}");
        assert!(
            asked.iter().all(|it| it.starts_with("/ferrulectl policy why shop/client 10.244.2.7")),
            "{asked:?}"
        );
    }
    assert!(api.asked("c").is_empty());
    let shown = api.call("policy show shop/web").run();
    assert_eq!(shown.status.code(), Some(1), "{shown:?}");
    let nobody = api.call("policy show shop/nobody").run();
    assert!(nobody.stderr.contains("there is no pod shop/nobody"), "{nobody:?}");
}

#[test]
fn packets_are_handed_on_as_they_come_and_the_leash_is_held() {
    let api = Api::new();
    let packets: Vec<u8> = (0..100_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    api.node("a", None, Some(Exec::Streams(packets.clone(), "7 packets captured\n".into())));
    api.pod("web", "a", "10.244.1.2");
    let answer = api.call("capture web --count 7 --full").run();
    assert_eq!(answer.status.code(), Some(0), "{answer:?}");
    assert!(answer.stdout == packets, "{} bytes of {}", answer.stdout.len(), packets.len());
    assert_eq!(answer.stderr, "capturing shop/web on veth1: headers only\n7 packets captured\n");
    assert_eq!(api.asked("a"), ["/ferrulectl capture shop/web --leash --count 7 --full"]);
}

#[test]
fn what_a_capture_is_refused_for_is_told() {
    let api = Api::new();
    let refused = "ferrulectl capture: cannot capture shop/web: no running pod\n".to_owned();
    api.node("a", None, Some(Exec::Says(Vec::new(), refused, 1)));
    api.node("b", None, None);
    api.pod("web", "a", "10.244.1.2");
    api.pod("far", "b", "10.244.2.2");
    for (pod, why) in [
        ("web", "node a: cannot capture shop/web: no running pod"),
        ("far", "node b: no agent's pod is on it"),
        ("nobody", "there is no pod shop/nobody"),
    ] {
        let answer = api.call(&format!("capture {pod}")).run();
        assert_eq!((answer.status.code(), answer.stdout.len()), (Some(1), 0), "{answer:?}");
        assert!(answer.stderr.contains(why), "{answer:?}");
    }
}

#[test]
fn a_bundle_says_what_is_missing_and_keeps_no_secret() {
    let api = Api::new();
    let state = json!({ "version": 1, "doctor": doctor(&[finding("dead: x/1")], &[]), "routes": ["default via 1.2.3.4"] });
    api.node("a", None, says(&state, 0));
    api.node("b", None, None);
    let scratch = Scratch::new("bundle");
    let file = scratch.path().join("bundle.tar.gz");
    let answer = api.call("bundle").argument(&file).run();
    assert_eq!(answer.status.code(), Some(3), "{answer:?}");
    assert!(answer.stderr.contains("node b: no agent's pod is on it"), "{answer:?}");
    let paths = [&file, scratch.path()].map(|path| path.to_str().unwrap().to_owned());
    process::expect("tar", &["-xzf", &paths[0], "-C", &paths[1], "--strip-components=1"]);
    let read =
        |name: &str| fs::read_to_string(scratch.path().join(name)).unwrap_or_else(|_| panic!("{name}"));
    assert!(read("nodes/a/state.json").contains("default via 1.2.3.4"));
    assert!(read("nodes/a/node.json").contains("podCIDRs") && !read("nodes/a/node.json").contains("hidden"));
    assert_eq!(read("nodes/a/agent.log"), "level=info msg=started token=REDACTED\n");
    assert!(read("nodes/a/agent.json").contains("ferrule:1"));
    assert!(read("doctor.txt").contains("dead: x/1") && read("problems.txt").contains("node b: "));
    let manifest = read("MANIFEST");
    for name in ["nodes/a/state.json", "nodes/b/node.json", "doctor.txt", "problems.txt"] {
        assert!(manifest.contains(&format!("  {name}\n")), "{manifest}");
    }
    let again = api.call("bundle").argument(&file).run();
    assert_eq!(again.status.code(), Some(1), "an archive is not overwritten: {again:?}");
}

/// What one node knows of a connection from shop/client to shop/web.
fn half(node: &str, role: &str, steps: &Value) -> Value {
    let flow = json!({ "source": "10.244.1.2", "destination": "10.244.2.7", "protocol": 6, "port": 80 });
    json!({ "version": 1, "halves": [{ "node": node, "role": role, "flow": flow, "steps": steps, "of later": 1 }] })
}

#[test]
fn both_nodes_are_asked_why_and_their_halves_are_joined() {
    let api = Api::new();
    let broken = json!([{ "kind": "firewall", "state": "broken", "sentence": "table inet firewalld drops it",
                          "remedy": "let it pass" }]);
    api.node("a", None, says(&half("a", "source", &json!([])), 0));
    api.node("b", None, says(&half("b", "destination", &broken), 1));
    api.node("c", None, says(&half("c", "source", &json!([])), 0));
    api.pod("client", "a", "10.244.1.2");
    api.pod("web", "b", "10.244.2.7");
    let answer = api.call("why client web:80").run();
    assert_eq!(answer.status.code(), Some(1), "{answer:?}");
    let sentence = "shop/client does not reach shop/web (10.244.2.7:80): b: table inet firewalld drops it\n";
    assert!(answer.text().starts_with(&(sentence.to_owned() + "remedy  let it pass\n")), "{}", answer.text());
    for node in ["a", "b"] {
        let asked = api.asked(node);
        assert!(
            asked[0].starts_with("/ferrulectl why --question ") && asked[0].contains("shop/client"),
            "{asked:?}"
        );
    }
    assert!(api.asked("c").is_empty(), "it has neither end");
}

#[test]
fn a_node_that_is_not_asked_why_leaves_the_answer_open() {
    let api = Api::new();
    api.node("a", None, says(&half("a", "source", &json!([])), 0));
    api.node("b", None, None);
    api.pod("client", "a", "10.244.1.2");
    api.pod("web", "b", "10.244.2.7");
    let answer = api.call("why shop/client shop/web:80 --output json").run();
    let told = [("a".to_owned(), String::new()), ("b".to_owned(), "no agent's pod is on it".to_owned())];
    assert_eq!(problems(&answer), (Some(3), told.to_vec()));
    let document = answer.document().unwrap();
    assert_eq!(document["answer"]["verdict"], "unknown");
    let wrong = api.call("why client:80 web:80").run();
    assert!(wrong.stderr.contains("a port of its own choice"), "{wrong:?}");
}
