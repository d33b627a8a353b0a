//! What the kernel says over netfilter's netlink, or would if it lied: one datagram, as recv(2) has it. Tables, chains,
//! sets and rules may be anybody's, and so are all names and comments in them.

use std::slice::from_ref;

use ferrule::cni::error::CniError;
use ferrule::cni::version::SpecVersion;
use ferrule::linux::nft::change::Change;
use ferrule::linux::nft::expr::Expr;
use ferrule::linux::nft::fuzzing::{Told, messages_of};
use ferrule::linux::nft::table::{Family, Table};

use crate::promises;

/// Most bytes of a comment that are kept.
const COMMENT_MAX: usize = 127;

/// Reads a datagram.
pub fn check(data: &[u8]) {
    let told = Told::by(data);
    for refusal in &told.refusals {
        assert!(refusal.errno > 0, "{refusal:?}");
        promises::refusal(&CniError::from(refusal.clone()), SpecVersion::NEWEST);
    }
    told.events.windows(2).for_each(|two| assert_ne!(two[0], two[1], "equal events that follow each other"));
    asked_for_again(&told);
}

/// What was read can be asked for, and then reads the same: nothing of it is lost or made up.
fn asked_for_again(told: &Told) {
    for chain in &told.chains {
        assert_eq!(again(&Change::AddChain(table(), chain.clone())).chains, from_ref(chain));
    }
    for (_, rule) in &told.rules {
        let is_whole = !rule.exprs.iter().any(|expr| matches!(expr, Expr::Foreign(_)));
        if is_whole && fits(rule.comment.as_deref()) {
            let read = again(&Change::AddRule(table(), rule.clone())).rules;
            assert_eq!(read, [(Some(table().name), rule.clone())]);
        }
    }
    for element in &told.elements {
        if fits(element.comment.as_deref()) {
            let elements = vec![element.clone()];
            let add = Change::AddElements(table(), elements.clone());
            assert_eq!(again(&add).elements, elements);
        }
    }
}

/// Whether a comment is short enough to be kept whole.
fn fits(comment: Option<&str>) -> bool {
    comment.is_none_or(|comment| comment.len() <= COMMENT_MAX)
}

fn table() -> Table {
    Table { family: Family::Inet, name: "table".to_owned() }
}

fn again(change: &Change) -> Told {
    let messages = messages_of(change);
    assert_eq!(messages.len(), 1);
    Told::by(&messages[0])
}
