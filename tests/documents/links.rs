//! Links between the documents.

use std::fs;
use std::path::Path;

use kit::documents::{documents, repository};

/// The lines of a document that stand in no fence.
fn prose(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let mut is_fence = false;
    let lines = text.lines().filter(|line| {
        let is_border = line.trim_start().starts_with("```");
        is_fence ^= is_border;
        !is_fence && !is_border
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// How GitHub names a heading in a link: small letters, hyphens for spaces, nothing else but `_`.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn has_heading(file: &Path, wanted: &str) -> bool {
    let text = prose(file);
    let mut headings =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings.any(|heading| anchor(heading) == wanted)
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let mut count = 0;
    for document in documents() {
        let file = repository().join(&document);
        let text = prose(&file);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            assert!(target.exists(), "{document}: {link}: there is no such file");
            assert!(
                heading.is_empty() || has_heading(&target, heading),
                "{document}: {link}: no such heading"
            );
            count += 1;
        }
    }
    assert!(count > 100, "{count} links");
}
