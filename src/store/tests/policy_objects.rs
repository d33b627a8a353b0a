//! What the agent knew of policies and pods.

use std::fs;

use serde_json::{Value, json};

use super::{Scratch, boot, this_boot};
use crate::policy::objects::Objects;
use crate::store::StoreError;

fn objects() -> Objects {
    let document = json!({
        "policies": [{ "namespace": "shop", "name": "web", "spec": { "podSelector": {}, "ingress": [{}] } }],
        "namespaces": [{ "name": "shop", "labels": { "team": "a" } }],
        "ownPods": [{ "namespace": "shop", "name": "web-0", "uid": "u1", "labels": { "app": "web" },
                      "addresses": ["10.0.0.2"] }],
        "workloads": [{ "namespace": "shop", "labels": { "app": "db" },
                        "pods": { "db-a": ["10.0.1.2", "fd00::2"], "db-b": ["10.0.1.3"] } }]
    });
    serde_json::from_value(document).unwrap()
}

#[test]
fn what_is_known_is_read_again_as_it_was() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let file = scratch.root().join("policy-objects");
    assert_eq!(store.policy_objects(&this_boot()).unwrap(), None);
    assert_eq!(store.policy_files_written().unwrap(), [None, None]);
    let unfinished = scratch.root().join("policy-objects.new");
    fs::write(&unfinished, "left by an agent that died").unwrap();
    let planner = objects().planner();
    store.remember_policy_objects(&this_boot(), planner.objects()).unwrap();
    let read = store.policy_objects(&this_boot()).unwrap().unwrap();
    assert_eq!((read.objects, read.is_of_boot), (objects(), true));
    assert_eq!(store.policy_files_written().unwrap(), [Some(read.written), None]);
    assert!(!store.policy_objects(&boot("the-next-one")).unwrap().unwrap().is_of_boot);
    assert!(!unfinished.exists());
    let on_disk: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!((&on_disk["version"], &on_disk["objects"]["ownPods"][0]["uid"]), (&json!(1), &json!("u1")));
    // Without a policy there is no file.
    let planner = Objects { policies: Vec::new(), ..objects() }.planner();
    store.remember_policy_objects(&this_boot(), planner.objects()).unwrap();
    assert!(!file.exists() && !unfinished.exists());
}

#[test]
fn objects_of_version_0_1_are_read() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let file = include_str!("../../../tests/formats/0.1/policy-objects");
    fs::write(scratch.root().join("policy-objects"), file).unwrap();
    let objects = store.policy_objects(&this_boot()).unwrap().unwrap().objects;
    assert_eq!((objects.policies.len(), objects.namespaces.len()), (1, 1));
    assert_eq!(objects.own_pods[0].ports[0].port, 8080);
    assert_eq!(objects.workloads[0].pods.len(), 2);
}

#[test]
fn what_cannot_be_understood_is_said() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let file = scratch.root().join("policy-objects");
    for content in ["", "torn {", "[]", r#"{"version":1}"#, r#"{"version":1,"bootId":"b","objects":[{}]}"#] {
        fs::write(&file, content).unwrap();
        let error = store.policy_objects(&this_boot()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged(_)), "{content}: {error}");
        assert!(error.to_string().contains("policy-objects"), "{error}");
    }
    fs::write(&file, r#"{"version":2,"what":"ever"}"#).unwrap();
    let error = store.policy_objects(&this_boot()).unwrap_err();
    assert!(matches!(error, StoreError::NewerFormat { version: 2, .. }), "{error}");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(matches!(store.policy_objects(&this_boot()), Err(StoreError::Damaged(_))));
    // The agent cannot write over a directory, and says so.
    let planner = objects().planner();
    assert!(store.remember_policy_objects(&this_boot(), planner.objects()).is_err());
    assert!(!scratch.root().join("policy-objects.new").exists());
}
