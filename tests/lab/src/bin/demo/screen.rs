//! What the demo prints: headings, steps, tables of cells. Coloured on a terminal only.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// Standard output, and whether a person looks at it.
pub struct Screen {
    is_coloured: bool,
}

/// How something turned out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As promised.
    Good,
    /// Not as promised.
    Bad,
    /// Neither: a remark.
    Faint,
    /// Neither: a heading.
    Loud,
}

impl Screen {
    /// Colours unless standard output is a file or pipe, or `NO_COLOR` is set.
    pub fn new() -> Self {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { is_coloured: io::stdout().is_terminal() && !is_unwanted }
    }

    /// The text in the colour of its mood.
    pub fn paint(&self, mood: Mood, text: &str) -> String {
        let code = match mood {
            Mood::Good => "32",
            Mood::Bad => "1;31",
            Mood::Faint => "2",
            Mood::Loud => "1",
        };
        if self.is_coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// One line.
    pub fn line(&self, text: &str) -> io::Result<()> {
        writeln!(io::stdout(), "{text}")
    }

    /// An empty line and a heading.
    pub fn heading(&self, text: &str) -> io::Result<()> {
        self.line(&format!("\n{}", self.paint(Mood::Loud, text)))
    }

    /// A step that is done, and how long it took.
    pub fn step(&self, since: Instant, text: &str) -> io::Result<()> {
        let took = format!("{:>6.1} s", since.elapsed().as_secs_f32());
        self.line(&format!("{} {}  {text}", self.paint(Mood::Faint, &took), self.paint(Mood::Good, "✓")))
    }

    /// A promise, kept or not, with what was seen.
    pub fn verdict(&self, holds: bool, text: &str) -> io::Result<()> {
        let mark = if holds { self.paint(Mood::Good, "✓") } else { self.paint(Mood::Bad, "✗") };
        self.line(&format!("  {mark} {text}"))
    }

    /// The output of another program, set in.
    pub fn quote(&self, command: &str, output: &str) -> io::Result<()> {
        self.line(&format!("  {}", self.paint(Mood::Faint, &format!("# {command}"))))?;
        output.lines().try_for_each(|line| self.line(&format!("  {}", line.trim_end())))
    }
}
