//! What is to be done, gathered until it is.

use tokio::time::Instant;

use crate::agent::policy::drift::Look;
use crate::policy::plan::Touched;

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) at: Option<Instant>,
    pub(super) touched: Touched,
    pub(super) look: Look,
    /// When the API server said the first of what is to be applied.
    pub(super) said: Option<Instant>,
    /// When drift was heard of.
    pub(super) drifted: Option<Instant>,
}

/// Of a set of which one of both does not say which addresses moved, any may have.
pub(super) fn merge(into: &mut Touched, mut from: Touched) {
    into.all |= from.all;
    for name in from.sets {
        let moved = from.moved.remove(&name);
        let is_new = into.sets.insert(name.clone());
        match (moved, into.moved.get_mut(&name)) {
            (Some(moved), None) if is_new => {
                into.moved.insert(name, moved);
            }
            (Some(moved), Some(known)) => known.extend(moved),
            _ => {
                into.moved.remove(&name);
            }
        }
    }
    into.pods.extend(from.pods);
    into.holds.extend(from.holds);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_is_known_only_if_both_say_it() {
        let touched = |set: &str, moved: Option<&str>| {
            let mut touched = Touched::default();
            touched.sets.insert(set.to_owned());
            let moved = moved.map(|address| (set.to_owned(), [address.parse().unwrap()].into()));
            touched.moved.extend(moved);
            touched
        };
        let mut all = Touched::default();
        merge(&mut all, touched("a", Some("10.0.0.1")));
        merge(&mut all, touched("a", Some("10.0.0.2")));
        merge(&mut all, touched("b", None));
        assert_eq!((all.sets.len(), all.moved["a"].len()), (2, 2));
        merge(&mut all, touched("b", Some("10.0.0.3")));
        merge(&mut all, touched("a", None));
        assert!(all.moved.is_empty(), "any may have");
    }
}
