//! Selectors of labels, compiled once: checked, sorted, and equal if they say the same in the same words.

use std::fmt;

use serde::Serialize;

use crate::policy::object::{LabelSelector, Requirement};

/// What is wrong with a field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Where it is, as `spec.ingress[0].from[1].podSelector.matchExpressions[0].operator`.
    pub field: String,
    /// What is wrong there.
    pub reason: String,
}

impl Invalid {
    pub(in crate::policy) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// A compiled selector: all of its terms must hold. None: everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Selector {
    terms: Vec<Term>,
}

/// One requirement. Labels are written `key=value`, as the index interns them: a key holds no `=`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Term {
    /// One of these labels is there.
    In(Vec<String>),
    /// The key is missing, or has none of these values.
    NotIn(Vec<String>),
    /// The key, with any value.
    Exists(String),
    /// The key is missing.
    Missing(String),
}

/// A label as the index interns it.
pub fn label(key: &str, value: &str) -> String {
    format!("{key}={value}")
}

impl Selector {
    /// Reads the selector that stands at `field`.
    pub fn compile(written: &LabelSelector, field: &str) -> Result<Self, Invalid> {
        let exact = written.match_labels.iter().map(|(key, value)| Ok(Term::In(vec![label(key, value)])));
        let expressions = written.match_expressions.iter().enumerate();
        let expressions =
            expressions.map(|(n, it)| Term::compile(it, &format!("{field}.matchExpressions[{n}]")));
        let mut terms = exact.chain(expressions).collect::<Result<Vec<_>, _>>()?;
        terms.sort();
        terms.dedup();
        Ok(Self { terms })
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether it selects what has these labels.
    pub fn matches<L: AsRef<str>>(&self, labels: &[L]) -> bool {
        self.terms.iter().all(|term| term.holds(labels))
    }

    /// The first term that these labels do not fulfil.
    pub fn unmet<L: AsRef<str>>(&self, labels: &[L]) -> Option<&Term> {
        self.terms.iter().find(|term| !term.holds(labels))
    }

    /// How many terms these labels do not fulfil.
    pub fn count_unmet<L: AsRef<str>>(&self, labels: &[L]) -> usize {
        self.terms.iter().filter(|term| !term.holds(labels)).count()
    }

    /// Labels of which whatever it selects has one; none if there are no such labels.
    pub fn anchors(&self) -> Option<&[String]> {
        let lists = self.terms.iter().filter_map(|term| match term {
            Term::In(labels) => Some(labels.as_slice()),
            _ => None,
        });
        lists.min_by_key(|labels| labels.len())
    }
}

impl Term {
    fn compile(written: &Requirement, field: &str) -> Result<Self, Invalid> {
        let key = written.key.as_str();
        if key.is_empty() {
            return Err(Invalid::new(format!("{field}.key"), "must not be empty"));
        }
        let labels = || {
            let mut labels: Vec<String> = written.values.iter().map(|value| label(key, value)).collect();
            labels.sort();
            labels.dedup();
            labels
        };
        let values = format!("{field}.values");
        match (written.operator.as_str(), written.values.is_empty()) {
            ("In" | "NotIn", true) => Err(Invalid::new(values, "must not be empty for In and NotIn")),
            ("In", false) => Ok(Self::In(labels())),
            ("NotIn", false) => Ok(Self::NotIn(labels())),
            ("Exists" | "DoesNotExist", false) => {
                Err(Invalid::new(values, "must be empty for Exists and DoesNotExist"))
            }
            ("Exists", true) => Ok(Self::Exists(key.to_owned())),
            ("DoesNotExist", true) => Ok(Self::Missing(key.to_owned())),
            (other, _) => Err(Invalid::new(
                format!("{field}.operator"),
                format!("{other:?} is not one of In, NotIn, Exists, DoesNotExist"),
            )),
        }
    }

    fn holds<L: AsRef<str>>(&self, labels: &[L]) -> bool {
        let mut there = labels.iter().map(AsRef::as_ref);
        match self {
            Self::In(wanted) => there.any(|label| wanted.iter().any(|it| it == label)),
            Self::NotIn(unwanted) => !there.any(|label| unwanted.iter().any(|it| it == label)),
            Self::Exists(key) => there.any(|label| has_key(label, key)),
            Self::Missing(key) => !there.any(|label| has_key(label, key)),
        }
    }
}

fn has_key(label: &str, key: &str) -> bool {
    label.strip_prefix(key).is_some_and(|rest| rest.starts_with('='))
}

impl fmt::Display for Term {
    /// As `kubectl get --selector` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (labels, word) = match self {
            Self::In(labels) if labels.len() == 1 => return f.write_str(&labels[0]),
            Self::In(labels) => (labels, "in"),
            Self::NotIn(labels) => (labels, "notin"),
            Self::Exists(key) => return f.write_str(key),
            Self::Missing(key) => return write!(f, "!{key}"),
        };
        let parts: Vec<(&str, &str)> = labels.iter().filter_map(|label| label.split_once('=')).collect();
        let values: Vec<&str> = parts.iter().map(|(_, value)| *value).collect();
        write!(f, "{} {word} ({})", parts.first().map_or("", |(key, _)| key), values.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn compile(selector: serde_json::Value) -> Result<Selector, Invalid> {
        Selector::compile(&serde_json::from_value(selector).unwrap(), "spec.podSelector")
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Result<Selector, Invalid> {
        compile(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
    }

    #[test]
    fn operators_are_those_of_kubernetes() {
        let none: &[&str] = &[];
        let (web, db) = (&["app=web", "tier=1"][..], &["app=db"][..]);
        for (operator, values, of_web, of_db, of_none) in [
            ("In", &["web", "api"][..], true, false, false),
            ("NotIn", &["web", "api"], false, true, true),
            ("Exists", &[], true, true, false),
            ("DoesNotExist", &[], false, false, true),
        ] {
            let selector = expression("app", operator, values).unwrap();
            assert_eq!(selector.matches(web), of_web, "{operator}");
            assert_eq!(selector.matches(db), of_db, "{operator}");
            assert_eq!(selector.matches(none), of_none, "{operator}");
        }
        assert!(Selector::default().matches(none));
    }

    #[test]
    fn a_key_that_begins_another_key_is_not_that_key() {
        assert!(!expression("app", "Exists", &[]).unwrap().matches(&["app.kubernetes.io/name=web"]));
        assert!(!compile(json!({"matchLabels": {"app": ""}})).unwrap().matches(&["app=web"]));
        assert!(compile(json!({"matchLabels": {"app": ""}})).unwrap().matches(&["app="]));
    }

    #[test]
    fn all_terms_must_hold() {
        let both = json!({"matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["2"]}]});
        let both = compile(both).unwrap();
        assert!(both.matches(&["app=web"]) && both.matches(&["app=web", "tier=1"]));
        assert!(!both.matches(&["app=web", "tier=2"]) && !both.matches(&["tier=1"]));
        assert_eq!(both.unmet(&["app=web", "tier=2"]).unwrap().to_string(), "tier notin (2)");
        assert_eq!(both.anchors(), Some(&["app=web".to_owned()][..]));
    }

    #[test]
    fn what_says_the_same_is_equal() {
        let one = expression("app", "In", &["b", "a", "b"]).unwrap();
        assert_eq!(one, expression("app", "In", &["a", "b"]).unwrap());
        assert_eq!(one.terms[0].to_string(), "app in (a, b)");
        assert_eq!(
            expression("app", "In", &["a"]).unwrap(),
            compile(json!({"matchLabels": {"app": "a"}})).unwrap()
        );
    }

    #[test]
    fn an_invalid_expression_is_named_by_its_field() {
        for (key, operator, values, field) in [
            ("app", "Equals", &["a"][..], "operator"),
            ("app", "in", &["a"], "operator"),
            ("app", "In", &[], "values"),
            ("app", "NotIn", &[], "values"),
            ("app", "Exists", &["a"], "values"),
            ("", "Exists", &[], "key"),
        ] {
            let invalid = expression(key, operator, values).unwrap_err();
            assert_eq!(invalid.field, format!("spec.podSelector.matchExpressions[0].{field}"));
        }
    }
}
