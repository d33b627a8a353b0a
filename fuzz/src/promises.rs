//! What holds of everything, whoever spoke.

use ferrule::cni::error::CniError;
use ferrule::cni::ids::AttachmentKey;
use ferrule::cni::version::SpecVersion;
use ferrule::desired::names;
use ferrule::log;
use serde_json::Value;

/// Most bytes of an answer that refuses a request, which is itself much smaller.
const ANSWER_MAX: usize = 64 << 10;

/// A refusal is an error object of the specification, for people to read: one line each of what and why.
pub fn refusal(error: &CniError, version: SpecVersion) {
    let json = error.to_json(version);
    assert!(json.len() <= ANSWER_MAX, "an answer of {} bytes", json.len());
    assert!(json.bytes().all(|byte| byte == b'\n' || !byte.is_ascii_control()), "{json:?}");
    let answer: Value = serde_json::from_str(&json).expect("the answer is JSON");
    assert_eq!(answer["cniVersion"], version.as_str());
    assert_eq!(answer["code"], error.code.number());
    let message = answer["msg"].as_str().expect("the answer has a message");
    assert!(!message.is_empty());
    one_line(message);
    one_line(answer.get("details").map_or("", |details| details.as_str().expect("details are a text")));
    log_line(&error.to_string());
}

/// Nobody's text begins a line of its own, or moves the cursor of who reads it.
pub fn one_line(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// A field of the log begins no line, and does not end before its end.
pub fn log_line(value: &str) {
    let mut line = String::new();
    log::push_field(&mut line, "msg", value);
    one_line(&line);
    let field = line.strip_prefix(" msg=").expect("the field has its name");
    match field.strip_prefix('"') {
        None => assert!(!field.contains([' ', '=', '"'])),
        Some(quoted) => {
            let ends = quoted.replace("\\\\", "").replace("\\\"", "");
            assert!(ends.find('"') == Some(ends.len() - 1), "{line}");
        }
    }
}

/// A text that becomes the name of a file stays in its directory.
pub fn file_name(name: &str) {
    assert!((1..=255).contains(&name.len()), "{name:?}");
    assert!(!name.contains(['/', '\0']) && name != "." && name != "..", "{name:?}");
    one_line(name);
}

/// Whatever an attachment is called, its names fit where they go.
pub fn names_of(key: &AttachmentKey, pod: Option<&str>) {
    file_name(key.network.as_str());
    file_name(&format!("{}@{}", key.container, key.ifname));
    for link in names::node_links(key) {
        assert!(link.len() <= 15 && names::is_node_link(&link), "{link}");
    }
    let alias = names::alias(key, pod);
    one_line(&alias);
    assert!(alias.len() <= 255 && names::alias_names(&alias, key), "{alias:?}");
    assert!(names::host_mac(key).is_unicast() && names::pod_mac(key).is_unicast());
}
