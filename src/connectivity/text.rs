//! The answer as people read it: a sentence, the remedy, and a table of the steps of each flow.

use std::fmt::Write;

use crate::connectivity::answer::{Answer, FlowAnswer, Verdict};
use crate::connectivity::half::{Direction, State};
#[cfg(feature = "cli")]
use crate::connectivity::probe::{Leg, Probe};
use crate::connectivity::question::Question;
use crate::text_table::{Cell, Table, Tone, escape};

/// What `ferrulectl why` and `kubectl ferrule why` print first, whichever nodes were asked.
pub fn answer_text(question: &Question, answer: &Answer, colour: bool) -> String {
    headline(answer, colour) + &steps_text(question, answer, colour)
}

/// The answer in one sentence, and the remedy.
pub fn headline(answer: &Answer, colour: bool) -> String {
    sentence("", answer.verdict, &answer.sentence, answer.remedy.as_deref(), colour)
}

fn sentence(before: &str, verdict: Verdict, words: &str, remedy: Option<&str>, colour: bool) -> String {
    let (begin, end) = match (colour, verdict) {
        (true, Verdict::Broken) => ("\u{1b}[31m", "\u{1b}[0m"),
        (true, Verdict::Unknown) => ("\u{1b}[33m", "\u{1b}[0m"),
        _ => ("", ""),
    };
    let mut text = format!("{before}{begin}{}{end}\n", escape(words));
    if let Some(remedy) = remedy {
        let _ = writeln!(text, "remedy  {}", escape(remedy));
    }
    text
}

/// What became of a packet.
#[cfg(feature = "cli")]
pub fn probe_text(probe: &Probe, colour: bool) -> String {
    sentence("probe   ", probe.outcome.verdict(), &probe.sentence, probe.remedy.as_deref(), colour)
}

/// The rules and chains that saw packets.
#[cfg(feature = "cli")]
pub fn trace_text(probes: &[Probe], colour: bool) -> String {
    let mut text = String::new();
    for probe in probes.iter().filter(|it| !it.trace.is_empty()) {
        let _ = writeln!(text, "\n{} to {}, what nf_tables did", probe.flow.source, probe.flow.destination);
        let mut table = Table::new(["PACKET", "TABLE", "CHAIN", "RULE", "VERDICT"]);
        for it in &probe.trace {
            let packet = match it.packet {
                Leg::Forth => "sent",
                Leg::ForthInTunnel => "sent, in tunnel",
                Leg::Back => "answer",
                Leg::BackInTunnel => "answer, in tunnel",
                Leg::Error => "error",
            };
            let tone = if it.verdict == "drop" { Tone::Bad } else { Tone::Plain };
            table.push([
                packet.into(),
                format!("{} {}", it.family, it.table).into(),
                it.chain.as_str().into(),
                it.rule.map_or_else(|| "policy".to_owned(), |rule| format!("handle {rule}")).into(),
                Cell::toned(&it.verdict, tone),
            ]);
        }
        text.push_str(&table.render(colour));
    }
    text
}

/// The steps of each flow.
pub fn steps_text(question: &Question, answer: &Answer, colour: bool) -> String {
    let mut text = String::new();
    for flow in &answer.flows {
        let FlowAnswer { flow, steps, .. } = flow;
        let door = question.door(flow);
        let _ = writeln!(text, "\n{} to {door}", flow.source);
        let mut table = Table::new(["NODE", "STEP", "STATE", "WHAT WAS FOUND"]);
        for it in steps {
            let (state, tone) = match it.step.state {
                State::Ok => ("ok", Tone::Plain),
                State::Broken => ("broken", Tone::Bad),
                State::Unknown => ("unknown", Tone::Odd),
            };
            let back = if it.step.direction == Direction::Back { " (back)" } else { "" };
            let step = format!("{}{back}", it.step.kind.word());
            let node = if it.node.is_empty() { "-" } else { &it.node };
            table.push([
                node.into(),
                step.into(),
                Cell::toned(state, tone),
                it.step.sentence.as_str().into(),
            ]);
        }
        text.push_str(&table.render(colour));
    }
    text
}
