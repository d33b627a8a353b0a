//! Rules as nf_tables has them. Those of iptables are in the tests of `save`.

use super::super::traffic::Traffic;
use super::*;

const ESTABLISHED: u32 = 2;

/// The first packet of a connection from 10.244.1.0/24 to 10.244.2.0/24.
fn packet() -> Packet {
    let traffic = Traffic {
        own: vec!["10.244.1.0/24".parse().unwrap()],
        others: vec!["10.244.2.0/24".parse().unwrap()],
        link4: Some("eth0".into()),
        link6: None,
    };
    traffic.packets(true).remove(0)
}

fn rule(exprs: &[Expr]) -> Rule {
    Rule { chain: "c".into(), exprs: exprs.to_vec(), comment: None }
}

fn run(rules: Vec<Rule>, sets: &[(&str, Vec<Member>)]) -> Ends {
    let chains = HashMap::from([("c".to_owned(), rules), ("d".to_owned(), vec![rule(&[ACCEPT])])]);
    let sets = sets.iter().map(|(name, members)| ((*name).to_owned(), members.clone())).collect();
    walk(Rules { chains: &chains, sets: &sets }, "c", &packet())
}

const R: Reg = Reg(0);
const ACCEPT: Expr = Expr::Verdict(Verdict::Accept);
const SOURCE: Expr = Expr::Payload { header: Header::Network, offset: 12, length: 4, to: R };
const STATE: Expr = Expr::FlowState { to: R };

fn lookup() -> Expr {
    Expr::Lookup { set: "s".into(), key: R, data: None }
}

fn map() -> Expr {
    Expr::VerdictMap { map: "s".into(), key: R }
}

fn member(key: &[u8], verdict: Option<Verdict>) -> Member {
    Member { key: Some(key.to_vec()), ends_range: false, has_key_end: false, verdict }
}

fn end(key: &[u8]) -> Member {
    Member { ends_range: true, ..member(key, None) }
}

#[test]
fn a_set_of_states_is_asked() {
    let with = |state: u32| vec![member(&state.to_ne_bytes(), None)];
    let rules = || vec![rule(&[STATE, lookup(), ACCEPT])];
    assert_eq!(run(rules(), &[("s", with(ESTABLISHED))]), Ends::ON);
    assert_eq!(run(rules(), &[("s", with(STATE_NEW))]), Ends::ACCEPT);
    assert_eq!(run(rules(), &[]), Ends::ACCEPT | Ends::ON);
}

/// The kernel never says so, but four gigabytes are not to be had for a STATUS.
#[test]
fn a_length_beyond_all_registers_costs_nothing() {
    for header in [Header::Network, Header::Transport] {
        let load = Expr::Payload { header, offset: u32::MAX, length: u32::MAX, to: Reg(15) };
        assert_eq!(run(vec![rule(&[load, ACCEPT])], &[]), Ends::ACCEPT);
    }
}

#[test]
fn a_set_of_ranges_is_asked() {
    let rules = || vec![rule(&[SOURCE, lookup(), ACCEPT])];
    let range = |from: [u8; 4], to: [u8; 4]| vec![end(&[0; 4]), member(&from, None), end(&to)];
    for (set, expected) in [
        (range([10, 0, 0, 0], [11, 0, 0, 0]), Ends::ACCEPT),
        (range([10, 244, 1, 0], [10, 244, 2, 0]), Ends::ACCEPT),
        (range([10, 244, 1, 1], [10, 244, 2, 0]), Ends::ACCEPT | Ends::ON),
        (range([10, 244, 2, 0], [10, 244, 3, 0]), Ends::ON),
        (vec![end(&[0; 4]), member(&[10, 0, 0, 0], None)], Ends::ACCEPT),
        (vec![member(&[10, 244, 1, 7], None)], Ends::ACCEPT | Ends::ON),
        (vec![member(&[10, 245, 1, 7], None)], Ends::ON),
        // Everything.
        (vec![member(&[0; 4], None)], Ends::ACCEPT | Ends::ON),
    ] {
        assert_eq!(run(rules(), &[("s", set.clone())]), expected, "{set:?}");
    }
}

#[test]
fn a_map_of_verdicts_decides_or_does_not() {
    let rules = || vec![rule(&[STATE, map()])];
    let with = |state: u32, verdict| vec![member(&state.to_ne_bytes(), Some(verdict))];
    assert_eq!(run(rules(), &[("s", with(ESTABLISHED, Verdict::Accept))]), Ends::ON);
    assert_eq!(run(rules(), &[("s", with(STATE_NEW, Verdict::Drop))]), Ends::DROP | Ends::ON);
    assert_eq!(run(rules(), &[("s", with(STATE_NEW, Verdict::Jump("d".into())))]), Ends::ACCEPT | Ends::ON);
    assert_eq!(run(rules(), &[]), Ends { back: false, on: true, ..Ends::ANY });
    // All others: it has no key.
    let others = Member { key: None, ..member(&[], Some(Verdict::Drop)) };
    assert_eq!(run(rules(), &[("s", vec![others])]), Ends::DROP | Ends::ON);
}

#[test]
fn what_has_no_word_may_do_anything_and_what_it_loads_is_not_known() {
    let compare = Expr::Compare { from: R, comparison: Comparison::Equal, value: vec![10, 244, 1] };
    let foreign = |name: &str| Expr::Foreign(name.into());
    assert_eq!(run(vec![rule(&[SOURCE, compare.clone(), ACCEPT])], &[]), Ends::ACCEPT);
    assert_eq!(run(vec![rule(&[SOURCE, foreign("bitwise"), compare, ACCEPT])], &[]), Ends::ACCEPT | Ends::ON);
    assert_eq!(run(vec![rule(&[foreign("limit"), ACCEPT])], &[]), Ends::ACCEPT | Ends::ON);
    assert_eq!(run(vec![rule(&[foreign("log"), foreign("reject")])], &[]), Ends::DROP);
    assert_eq!(run(vec![rule(&[foreign("queue")])], &[]), Ends { back: false, ..Ends::ANY });
    let elsewhere = Expr::Verdict(Verdict::Jump("not-read".into()));
    assert_eq!(run(vec![rule(&[elsewhere])], &[]), Ends { back: false, ..Ends::ANY });
}

#[test]
fn what_kube_proxy_marks_is_not_between_pods_until_somebody_may_have_set_the_mark() {
    let mark = Expr::Meta { field: MetaField::Mark, to: R };
    let is_marked = Expr::Compare { from: R, comparison: Comparison::Equal, value: vec![0, 0x40, 0, 0] };
    let marked = rule(&[mark, is_marked, ACCEPT]);
    assert_eq!(run(vec![marked.clone()], &[]), Ends::ON);
    let set = Extension { is_target: true, name: "MARK".into(), revision: 2, info: vec![] };
    assert_eq!(run(vec![rule(&[Expr::Extension(set)]), marked], &[]), Ends::ACCEPT | Ends::ON);
}

#[test]
fn chains_that_call_each_other_come_to_an_end() {
    let jump = |name: &str| rule(&[Expr::Foreign("limit".into()), Expr::Verdict(Verdict::Jump(name.into()))]);
    let ring = HashMap::from([("c".to_owned(), vec![jump("e"); 40]), ("e".to_owned(), vec![jump("c"); 40])]);
    let ends = walk(Rules { chains: &ring, sets: &HashMap::new() }, "c", &packet());
    assert_eq!(ends, Ends { back: false, ..Ends::ANY });
}
