//! The pictures of docs/: each is held against what it shows. Those of the layers are in tests/layers.rs.

use std::fs;
use std::path::Path;
use std::process::Command;

use kit::documents::{fences, repository};
use kit::files::Scratch;
use kit::process::{expect, run};

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap()
}

/// gnuplot's versions differ in how they write numbers: what is compared is the text in the picture.
#[test]
fn the_plots_are_those_of_the_figures() {
    let scratch = Scratch::new("plot");
    let picture = scratch.path().join("out.svg");
    let text = |file: &Path| {
        let picture = expect("sed", &["-n", "s/.*<text[^>]*>//;s/<[^>]*>//gp", file.to_str().unwrap()]);
        picture.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect::<Vec<_>>()
    };
    for (options, figures, kept) in [
        (&[][..], "docs/benchmarks.tsv", "docs/benchmarks.svg"),
        (&["--policies"][..], "docs/benchmarks.tsv", "docs/policies.svg"),
        (&["--api"][..], "docs/api-load.tsv", "docs/api-load.svg"),
    ] {
        let mut plot = Command::new(repository().join("scripts/plot.sh"));
        run(plot.args(options).arg(figures).arg(&picture), "").unwrap();
        let drawn = text(&picture);
        assert!(drawn.len() > 20, "{drawn:?}");
        assert_eq!(drawn, text(&repository().join(kept)), "scripts/plot.sh {options:?} {figures} {kept}");
    }
}

/// What the page says is compared with what the command prints, in [`super::node`].
#[test]
fn the_screen_shows_the_transcript_of_its_page() {
    let scratch = Scratch::new("screen");
    let picture = scratch.path().join("out.svg");
    let mut screen = Command::new(repository().join("scripts/screen.sh"));
    run(screen.args(["docs/cli.md", "ferrulectl doctor"]).arg(&picture), "").unwrap();
    let drawn = fs::read_to_string(&picture).unwrap();
    assert!(drawn.contains("remedy"), "{drawn}");
    assert_eq!(
        drawn,
        read("docs/doctor.svg"),
        "scripts/screen.sh docs/cli.md \"ferrulectl doctor\" docs/doctor.svg"
    );
}

/// What stands between `class="KIND...">` and `</text>`, for each of a picture's texts of that kind.
fn texts<'p>(picture: &'p str, kind: &str) -> Vec<&'p str> {
    let start = format!("<text class=\"{kind}\"");
    picture.split(&start).skip(1).filter_map(|rest| rest.split(['>', '<']).nth(1)).collect()
}

/// docs/packet.svg names chains with their priorities; the tables are compared with the kernel's by other tests.
#[test]
fn the_packet_meets_the_chains_of_the_tables() {
    let tables = read("tests/nftables/table/table.nft") + &read("tests/policy/table.nft");
    let picture = read("docs/packet.svg");
    let priority = |chain: &str| {
        let (_, body) = tables.split_once(&format!("\tchain {chain} {{\n"))?;
        let (_, words) = body.lines().next()?.split_once(" priority ")?;
        words.split(';').next()?.replace(" + ", " ").split(' ').try_fold(0, |sum, word| {
            let base = match word {
                "raw" => -300,
                "dstnat" => -100,
                "filter" => 0,
                "srcnat" => 100,
                number => number.parse::<i32>().ok()?,
            };
            Some(sum + base)
        })
    };
    let numbers = texts(&picture, "small").into_iter().filter_map(|text| text.parse::<i32>().ok());
    let chains = texts(&picture, "name");
    assert!(chains.len() > 8, "{chains:?}");
    assert_eq!(
        numbers.map(Some).collect::<Vec<_>>(),
        chains.iter().map(|chain| priority(chain)).collect::<Vec<_>>(),
        "{chains:?}"
    );
}

/// Without the codes of colours.
fn plain(text: &str) -> String {
    let mut pieces = text.split("\u{1b}[");
    let first = pieces.next().unwrap_or_default().to_owned();
    first
        + &pieces
            .map(|it| it.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').get(1..).unwrap_or(""))
            .collect::<String>()
}

/// scripts/record.sh makes it; what README quotes of the demo is in it.
#[test]
fn the_recording_shows_what_the_readme_quotes() {
    let recording = fs::read_to_string(repository().join("docs/demo.cast")).unwrap();
    let mut lines = recording.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let header = lines.next().unwrap();
    assert_eq!(header["version"], 2);
    assert!(header.get("timestamp").is_none() && header.get("env").is_none(), "{header}");
    let shown: String = lines.map(|event| plain(event[2].as_str().unwrap())).collect();
    let quoted = fences().into_iter().find(|it| it.document == "README.md" && it.info == "text").unwrap();
    assert!(quoted.lines().count() > 8);
    for line in quoted.lines() {
        assert!(shown.contains(line), "docs/demo.cast has not: {line}");
    }
}
