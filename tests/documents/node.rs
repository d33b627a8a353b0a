//! What the documents tell people to type on a node, typed there: each page by one shell, in a namespace with a link `eth0`,
//! where /etc, /opt, /var/lib, /usr/local/bin and /run/netns are its own. Where a page shows what is printed, that is
//! compared, but for words with a digit (names, addresses, times). A line `...` stands for any lines.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use kit::binaries::{FERRULE, FERRULECTL, FERRULED};
use kit::documents::{Fence, fences, fences_of, repository};
use kit::mounts::Mounts;
use kit::node::Node;
use kit::process::run;

use super::pages::{COMMON, PAGES, Page};

/// The machine's own stay as they are: mounted over, in a mount namespace.
const MOUNTS: &str = "
    cp -a /etc/. $work/etc
    mount --bind $work/etc /etc
    for place in /opt /var/lib /usr/local/bin /run/netns; do mount -t tmpfs none $place; done
";

/// Types the page's lines; compares.
fn execute(page: &Page) {
    let mut fences = fences_of(page.document);
    fences.retain(|fence| fence.info.ends_with(" node"));
    let node = Node::bare("reader");
    let work = node.scratch().path();
    for directory in ["bin", "dist", "etc", "shown"] {
        fs::create_dir(work.join(directory)).unwrap();
    }
    for directory in ["conf", "scripts"] {
        symlink(repository().canonicalize().unwrap().join(directory), work.join(directory)).unwrap();
    }
    for (binary, name) in [(&FERRULE, "ferrule"), (&FERRULED, "ferruled"), (&FERRULECTL, "ferrulectl")] {
        symlink(&**binary, work.join("dist").join(name)).unwrap();
    }
    let mounts = Mounts::new(&MOUNTS.replace("$work", &work.display().to_string()));
    let (typed, shown) = typed(page, &fences);
    let script = format!("cd {}\n{COMMON}\n{typed}", work.display());
    let [nsenter, mount, _] = mounts.wrapper();
    let mut shell = Command::new(nsenter);
    // It opens the namespace's file before it goes where another /run/netns is.
    shell.arg(mount).arg(format!("--net={}", node.namespace().path().display()));
    shell.args(["--", "bash", "-ex", "-c", &script]);
    run(&mut shell, "").unwrap_or_else(|failed| panic!("{}: {}", page.document, failed.reason));
    for (number, (command, wanted)) in shown.iter().enumerate() {
        let printed = fs::read_to_string(work.join(format!("shown/{number}"))).unwrap();
        let wanted: Vec<String> = wanted.iter().copied().map(normalised).collect();
        let lines: Vec<String> = printed.lines().map(normalised).collect();
        assert!(matches(&wanted, &lines), "{}: {command} prints\n{printed}", page.document);
    }
}

/// The script of a page, and what its commands must print: the output of the nth is in `shown/n`.
fn typed<'f>(page: &Page, fences: &'f [Fence]) -> (String, Vec<(&'f str, Vec<&'f str>)>) {
    let (mut script, mut shown) = (page.before("").to_owned(), Vec::<(&str, Vec<&str>)>::new());
    for fence in fences {
        let is_console = fence.info == "console node";
        for line in fence.text.lines() {
            let command = if is_console { line.strip_prefix("# ") } else { Some(line) };
            let Some(command) = command else {
                shown.last_mut().expect("a command before its output").1.push(line);
                continue;
            };
            write!(script, "\n{}\n", page.before(command)).unwrap();
            let mut command_line = command.to_owned();
            if is_console {
                write!(command_line, " >shown/{}", shown.len()).unwrap();
                shown.push((command, Vec::new()));
            }
            if page.fails.contains(&command) {
                command_line = format!("if {command_line}; then false; else [ $? = 1 ]; fi");
            } else if command == "scripts/build.sh" {
                // scripts/test.sh runs it.
                command_line = format!("[ -x {command} ]");
            }
            script.push_str(&command_line);
        }
    }
    (script + "\n" + page.after, shown)
}

/// The words of a line. Those with a digit differ from node to node.
fn normalised(line: &str) -> String {
    let words = line
        .split_whitespace()
        .map(|word| if word.contains(|it: char| it.is_ascii_digit()) { "#" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether these are the lines that are wanted, where "..." stands for any.
fn matches(wanted: &[String], lines: &[String]) -> bool {
    match wanted {
        [first, rest @ ..] if first == "..." => (0..=lines.len()).any(|from| matches(rest, &lines[from..])),
        [first, rest @ ..] => lines.first() == Some(first) && matches(rest, &lines[1..]),
        [] => lines.is_empty(),
    }
}

macro_rules! pages {
    ($($test:ident $document:literal)*) => {
        #[test]
        fn every_page_with_commands_for_a_node_is_here() {
            let mut documents: Vec<String> =
                fences().into_iter().filter(|it| it.info.ends_with(" node")).map(|it| it.document).collect();
            documents.dedup();
            assert_eq!(documents, [$($document),*]);
        }
        $(#[test]
        fn $test() {
            execute(PAGES.iter().find(|page| page.document == $document).unwrap());
        })*
    };
}

pages! {
    readme "README.md"
    cli "docs/cli.md"
    configuration "docs/configuration.md"
    install "docs/install.md"
    migration "docs/migration.md"
    multi_node "docs/multi-node.md"
    troubleshooting "docs/troubleshooting.md"
    store "docs/design/store.md"
}

#[test]
fn output_that_differs_is_seen() {
    let lines = |text: &str| text.lines().map(normalised).collect::<Vec<_>>();
    let printed = lines("NAME   AGE\nweb-1  3s\nweb-2  4s");
    assert!(matches(&lines("NAME AGE\nweb-9  0s\nweb-8  0s"), &printed));
    assert!(matches(&lines("NAME AGE\n..."), &printed) && matches(&lines("...\nweb-2 3s"), &printed));
    for wrong in ["NAME AGE STATE\n...", "NAME AGE\nweb-1 3s", "NAME AGE\nweb-1 3s\nweb-2 gone", ""] {
        assert!(!matches(&lines(wrong), &printed), "{wrong}");
    }
}
