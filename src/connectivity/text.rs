//! The answer as people read it: a sentence, the remedy, and a table of the steps of each flow.

use std::fmt::Write;

use crate::connectivity::answer::{Answer, FlowAnswer, Verdict};
use crate::connectivity::half::{Direction, State};
use crate::connectivity::question::Question;
use crate::text_table::{Cell, Table, Tone, escape};

/// What `ferrulectl why` and `kubectl ferrule why` print first, whichever nodes were asked.
pub fn answer_text(question: &Question, answer: &Answer, colour: bool) -> String {
    let (begin, end) = match (colour, answer.verdict) {
        (true, Verdict::Broken) => ("\u{1b}[31m", "\u{1b}[0m"),
        (true, Verdict::Unknown) => ("\u{1b}[33m", "\u{1b}[0m"),
        _ => ("", ""),
    };
    let mut text = format!("{begin}{}{end}\n", escape(&answer.sentence));
    if let Some(remedy) = &answer.remedy {
        let _ = writeln!(text, "remedy  {}", escape(remedy));
    }
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
