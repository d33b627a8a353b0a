//! The documents of this repository, and the fences in them: what a reader copies.

use std::fs;
use std::path::Path;

use crate::files::names_in;

/// Lines between a pair of "```".
pub struct Fence {
    /// The document, by its path in the repository.
    pub document: String,
    /// The line of the document on which it begins, for messages.
    pub line: usize,
    /// What stands behind the first "```": the language, and for command lines the place where they run.
    pub info: String,
    /// What it holds, without the indentation of a list that it is in.
    pub text: String,
}

impl Fence {
    /// The lines that are not empty.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter(|line| !line.is_empty())
    }
}

/// The top of the repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// README.md and its like, and the pages of docs/, by their paths in the repository.
pub fn documents() -> Vec<String> {
    let mut documents: Vec<String> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned).into();
    for directory in ["docs", "docs/design"] {
        let names = names_in(&repository().join(directory)).into_iter();
        documents.extend(names.filter(|it| it.ends_with(".md")).map(|name| format!("{directory}/{name}")));
    }
    documents
}

/// Every fence of every document, in order.
pub fn fences() -> Vec<Fence> {
    documents().iter().flat_map(|document| fences_of(document)).collect()
}

/// Those of one document.
pub fn fences_of(document: &str) -> Vec<Fence> {
    let text = fs::read_to_string(repository().join(document)).unwrap();
    let (mut fences, mut lines) = (Vec::new(), (1..).zip(text.lines()));
    while let Some((line, first)) = lines.next() {
        let Some((indent, info)) = first.split_once("```").filter(|(indent, _)| indent.trim().is_empty())
        else {
            continue;
        };
        let mut text = String::new();
        loop {
            let (_, next) = lines.next().unwrap_or_else(|| panic!("{document}:{line}: a fence without end"));
            let next = next.strip_prefix(indent).unwrap_or(next);
            if next == "```" {
                break;
            }
            text.extend([next, "\n"]);
        }
        fences.push(Fence { document: document.to_owned(), line, info: info.trim().to_owned(), text });
    }
    fences
}

/// Whether a command line of a fence `sh cluster` only looks at the cluster. The cluster tests execute those.
pub fn only_reads(line: &str) -> bool {
    let words = line.split_whitespace().collect::<Vec<_>>();
    if let ["kubectl", "ferrule", verb, ..] = words[..] {
        return ["doctor", "inspect"].contains(&verb);
    }
    let verb = match words[..] {
        ["kubectl", "--namespace", _, verb, ..] | ["kubectl", verb, ..] => verb,
        _ => return false,
    };
    ["exec", "get", "logs"].contains(&verb) || line.contains(" rollout status daemonset/ferrule")
}
