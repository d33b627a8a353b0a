//! docs/security-model.md says of each threat which test shows that it is held. A test that was renamed or removed must not
//! leave a claim behind.

use std::fs;
use std::path::{Path, PathBuf};

/// The words in backquotes that name a test: `tests/security/files.rs::name` or `src/cni/ids.rs::name`.
fn named(text: &str) -> Vec<(PathBuf, String)> {
    let quoted = text.split('`').skip(1).step_by(2);
    let tests = quoted.filter_map(|word| word.split_once(".rs::"));
    tests.map(|(file, test)| (PathBuf::from(format!("{file}.rs")), test.to_owned())).collect()
}

#[test]
fn every_test_that_the_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/security-model.md")).unwrap();
    let named = named(&text);
    assert!(named.len() > 40, "the test no longer reads the document: {}", named.len());
    for (file, test) in &named {
        let source = fs::read_to_string(root.join(file))
            .unwrap_or_else(|error| panic!("{}: {error}; docs/security-model.md names it", file.display()));
        let is_test = source.contains(&format!("#[test]\nfn {test}()"))
            || source.contains(&format!("#[test]\n    fn {test}()"));
        assert!(is_test, "docs/security-model.md names {test}, and {} has no such test", file.display());
    }
}

/// Each line of the tables has a threat, what holds it, and at least one test, or says that there is none.
#[test]
fn every_threat_of_the_document_has_what_shows_that_it_is_held() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security-model.md")).unwrap();
    let mut rows = 0;
    for table in text.split("| threat | what holds it | shown by |\n|---|---|---|\n").skip(1) {
        for row in table.lines().take_while(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 3, "{row}");
            assert!(cells.iter().all(|cell| !cell.is_empty()), "{row}");
            assert!(cells[2].contains(".rs::"), "no test: {row}");
            rows += 1;
        }
    }
    assert!(rows > 20, "the test no longer sees the tables: {rows}");
}
