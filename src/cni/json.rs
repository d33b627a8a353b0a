//! Walks a JSON document and remembers where it is, so that every finding names its place.
//!
//! serde's derive would stop at the first value of a wrong kind. Here a wrong kind is one more
//! [`Problem`](super::problem::Problem) and reading goes on. Depth is no concern: the parser refuses
//! documents deeper than 128, and a walk goes only as deep as the keys that its caller names.
//!
//! As runtimes and Go plugins have it, `null` and `""` are the same as an absent key, and a key that is not there as
//! it is spelled is looked for in any case: Go reads so, and containerd relies on it. Its go-cni writes `HostPort` and
//! `IngressRate` where the conventions say `hostPort` and `ingressRate`.

use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;

use serde_json::Value;

use super::problem::{Problems, quote};

/// Longest text taken: `PATH_MAX` without its NUL (include/uapi/linux/limits.h).
const TEXT_MAX: usize = 4095;

/// A document being read, with what was found wrong so far.
pub struct Document<'v> {
    value: &'v Value,
    // Nodes of one document are alive side by side, and each may find something.
    problems: RefCell<Problems>,
}

impl<'v> Document<'v> {
    /// Begins to read `value`.
    pub fn new(value: &'v Value) -> Self {
        Self { value, problems: RefCell::default() }
    }

    /// The whole.
    pub fn root(&self) -> Node<'_, 'v> {
        Node { value: self.value, step: Step::Root, parent: None, problems: &self.problems }
    }

    /// What was found.
    pub fn into_problems(self) -> Problems {
        self.problems.into_inner()
    }
}

/// A problem has been noted, so that there is no value and nothing more to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted;

/// The last part of a place.
#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Key(&'p str),
    Index(usize),
}

/// A value and its place. Places are chains of borrowed steps: a path becomes text only when a finding
/// needs it, as a conf with thousands of peers has tens of thousands of nodes and no findings.
#[derive(Clone, Copy)]
pub struct Node<'p, 'v> {
    value: &'v Value,
    step: Step<'p>,
    parent: Option<&'p Node<'p, 'v>>,
    problems: &'p RefCell<Problems>,
}

impl<'v> Node<'_, 'v> {
    /// The value under `key`, in any case if not as it is spelled. `None` if there is none, it is `null` or `""`, or this is no object.
    pub fn member<'n>(&'n self, key: &'n str) -> Option<Node<'n, 'v>> {
        match self.find(key)? {
            (_, Value::Null) => None,
            (_, Value::String(text)) if text.is_empty() => None,
            (key, value) => {
                Some(Node { value, step: Step::Key(key), parent: Some(self), problems: self.problems })
            }
        }
    }

    /// The key as it is written, and what is under it.
    fn find(&self, key: &str) -> Option<(&'v str, &'v Value)> {
        let object = self.value.as_object()?;
        let exact = object.get_key_value(key);
        let found = exact.or_else(|| object.iter().find(|(written, _)| written.eq_ignore_ascii_case(key)));
        found.map(|(written, value)| (written.as_str(), value))
    }

    /// True if `key` is there, be it with `null`.
    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// The object under `key`; another kind is a problem.
    pub fn object<'n>(&'n self, key: &'n str) -> Option<Node<'n, 'v>> {
        self.member(key).filter(Node::is_object)
    }

    /// The list under `key`; another kind is a problem.
    pub fn list<'n>(&'n self, key: &'n str) -> Option<Node<'n, 'v>> {
        self.member(key).filter(Node::is_list)
    }

    /// The text under `key`; another kind is a problem, and so is a control character.
    pub fn text(&self, key: &str) -> Option<&'v str> {
        self.member(key)?.as_text()
    }

    /// The number under `key`; another kind is a problem, and so is one outside `range`.
    pub fn number<N: TryFrom<u64> + PartialOrd + fmt::Display>(
        &self,
        key: &str,
        range: RangeInclusive<N>,
    ) -> Option<N> {
        self.member(key)?.as_number(range)
    }

    /// The text under `key` as `parse` takes it; what it refuses is a problem.
    pub fn parsed<T, E: fmt::Display>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.member(key)?.parse(parse)
    }

    /// As [`Node::parsed`], for what depends on several keys: tells an absent key from a refused value.
    ///
    /// # Errors
    /// If the value is a problem, which is noted.
    pub fn try_parsed<T, E: fmt::Display>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Noted> {
        self.member(key).map(|node| node.parse(parse).ok_or(Noted)).transpose()
    }

    /// The texts of the list under `key`. Those that are none are problems and left out.
    pub fn texts(&self, key: &str) -> Vec<String> {
        let Some(list) = self.list(key) else { return Vec::new() };
        let texts = list.items().filter_map(|item| item.as_text());
        texts.filter(|text| !text.is_empty()).map(str::to_owned).collect()
    }

    /// The elements of this list; none if this is no list.
    pub fn items<'n>(&'n self) -> impl Iterator<Item = Node<'n, 'v>> {
        let items = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().enumerate().map(|(at, value)| Node {
            value,
            step: Step::Index(at),
            parent: Some(self),
            problems: self.problems,
        })
    }

    /// True if this is an object; otherwise that is a problem.
    pub fn is_object(&self) -> bool {
        self.value.is_object() || self.refuse_kind("an object")
    }

    /// True if this is a list; otherwise that is a problem.
    pub fn is_list(&self) -> bool {
        self.value.is_array() || self.refuse_kind("a list")
    }

    /// This as text; another kind is a problem. So is a control character, as none belongs into a conf
    /// and its texts end in logs and file names, and a text longer than any path.
    pub fn as_text(&self) -> Option<&'v str> {
        let Some(text) = self.value.as_str() else {
            self.refuse_kind("a string");
            return None;
        };
        if text.len() > TEXT_MAX {
            self.refuse(format!("has {} bytes; {TEXT_MAX} are the most that is taken", text.len()));
            return None;
        }
        if text.chars().any(char::is_control) {
            self.refuse(format!("is {}, with a control character in it", quote(text)));
            return None;
        }
        Some(text)
    }

    /// This as a number of `range`.
    pub fn as_number<N: TryFrom<u64> + PartialOrd + fmt::Display>(
        &self,
        range: RangeInclusive<N>,
    ) -> Option<N> {
        let Value::Number(number) = self.value else {
            self.refuse_kind("a number");
            return None;
        };
        let found = number.as_u64().and_then(|number| N::try_from(number).ok());
        let found = found.filter(|number| range.contains(number));
        if found.is_none() {
            let (least, most) = (range.start(), range.end());
            self.refuse(format!("is {number}; a whole number from {least} to {most} is needed"));
        }
        found
    }

    /// This text as `parse` takes it. The message of a refusal follows the path.
    pub fn parse<T, E: fmt::Display>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        parse(self.as_text()?).map_err(|error| self.refuse(error.to_string())).ok()
    }

    /// The value as true or false; another kind is a problem.
    pub fn as_bool(&self) -> Option<bool> {
        if !self.value.is_boolean() {
            self.refuse_kind("true or false");
        }
        self.value.as_bool()
    }

    /// The value as it stands.
    pub fn value(&self) -> &'v Value {
        self.value
    }

    /// Notes that something is wrong here. `text` follows the path and a colon.
    pub fn refuse(&self, text: impl Into<String>) {
        self.problems.borrow_mut().add(self.path(), text);
    }

    /// Notes that something is wrong at `path`, which another node of this document gave.
    pub fn refuse_at(&self, path: &str, text: impl Into<String>) {
        self.problems.borrow_mut().add(path, text);
    }

    /// Notes that something is wrong with `key` of this object, also where there is none.
    pub fn refuse_member(&self, key: &str, text: impl Into<String>) {
        let path = Node { step: Step::Key(key), parent: Some(self), ..*self }.path();
        self.problems.borrow_mut().add(path, text);
    }

    /// Always false, so that it can end a condition.
    fn refuse_kind(&self, needed: &str) -> bool {
        self.refuse(format!("is {} where {needed} is needed", kind(self.value)));
        false
    }

    /// The place as text.
    pub fn path(&self) -> String {
        let chain = std::iter::successors(Some(self), |node| node.parent);
        let mut steps: Vec<Step<'_>> = chain.map(|node| node.step).collect();
        steps.reverse();
        steps.into_iter().fold(String::new(), |path, step| match step {
            Step::Root => path,
            Step::Index(at) => format!("{path}[{at}]"),
            Step::Key(key) if !is_plain(key) => format!("{path}[{key:?}]"),
            Step::Key(key) if path.is_empty() => key.to_owned(),
            Step::Key(key) => format!("{path}.{key}"),
        })
    }
}

/// True if `key` can stand after a dot without being mistaken for two keys.
fn is_plain(key: &str) -> bool {
    key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_is_found_in_any_case_and_as_it_is_spelled_first() {
        let value = json!({ "HostPort": 80, "hostip": "x", "hostIP": "10.0.0.1" });
        let document = Document::new(&value);
        let root = document.root();
        assert_eq!(root.number("hostPort", 0..=9), None);
        assert_eq!(root.text("hostIP"), Some("10.0.0.1"));
        assert!(root.has("HOSTPORT") && !root.has("port"));
        // The path is what was written.
        assert!(document.into_problems().to_string().starts_with("HostPort: "));
    }

    #[test]
    fn wrong_kinds_are_reported_together_each_with_its_path() {
        let value = json!({
            "a": {"b": [[1], {"c": "x"}]}, "n": "7", "t": 7, "cni.dev/x": [{"y": true}], "big": 70000, "half": 1.5
        });
        let document = Document::new(&value);
        let root = document.root();
        let a = root.object("a").unwrap();
        let b = a.list("b").unwrap();
        for item in b.items() {
            item.object("c");
            item.is_list();
        }
        root.number("n", 0..=9);
        root.text("t");
        root.number("big", 0..=65535);
        root.number("half", 0..=9);
        for item in root.list("cni.dev/x").unwrap().items() {
            item.text("y");
        }
        root.refuse_member("gone", "is missing");
        let found: Vec<String> = document.into_problems().shown().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "a.b[1].c: is a string where an object is needed",
                "a.b[1]: is an object where a list is needed",
                "n: is a string where a number is needed",
                "t: is a number where a string is needed",
                "big: is 70000; a whole number from 0 to 65535 is needed",
                "half: is 1.5; a whole number from 0 to 9 is needed",
                r#"["cni.dev/x"][0].y: is a boolean where a string is needed"#,
                "gone: is missing",
            ]
        );
    }

    #[test]
    fn null_and_the_empty_text_are_as_if_absent() {
        let value = json!({"a": null, "b": "", "c": null});
        let document = Document::new(&value);
        let root = document.root();
        assert!(root.member("a").is_none() && root.text("b").is_none() && root.list("c").is_none());
        assert!(root.has("a") && !root.has("d"));
        assert!(document.into_problems().is_empty());
    }

    #[test]
    fn a_control_character_never_gets_past() {
        let value = json!({"a": "x\ny"});
        let document = Document::new(&value);
        assert_eq!(document.root().text("a"), None);
        assert_eq!(document.into_problems().to_string(), r#"a: is "x\ny", with a control character in it"#);
    }
}
