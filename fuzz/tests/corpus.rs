//! Every corpus, held against what is promised, without libFuzzer: on a stable compiler, in a second.

use std::fs;
use std::path::Path;

/// Each file of a corpus, and each half of it, as a pipe that breaks leaves it.
fn hold(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 10, "the test no longer sees the corpus");
    for file in files {
        let data = fs::read(&file).unwrap();
        // First: where it panics, it does not say of what.
        eprintln!("{}", file.display());
        check(&data);
        check(&data[..data.len() / 2]);
        check(&data[data.len() / 2..]);
    }
}

#[test]
fn what_a_runtime_says() {
    hold("request", ferrule_fuzz::request::check);
}

#[test]
fn what_a_pod_asks_for() {
    hold("annotations", ferrule_fuzz::annotations::check);
}

#[test]
fn what_another_plugin_answers() {
    hold("prev_result", ferrule_fuzz::prev_result::check);
}

#[test]
fn what_a_file_of_the_store_says() {
    hold("record", ferrule_fuzz::record::check);
}

#[test]
fn what_the_kernel_says_of_links_and_routes() {
    hold("rtnetlink", ferrule_fuzz::rtnetlink::check);
}

#[test]
fn what_the_kernel_says_of_tables_and_flows() {
    hold("nfnetlink", ferrule_fuzz::nfnetlink::check);
}
