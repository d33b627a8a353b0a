//! Somebody finds the binary in /opt/cni/bin and runs it to see what it is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use kit::answer::Answer;
use kit::binaries::FERRULE;
use kit::call::Call;

/// Runs it with `arguments` at a terminal where nobody types.
fn run(arguments: &[&str]) -> Answer {
    arguments.iter().fold(Call::of(&*FERRULE).silent_stdin(), |call, argument| call.argument(argument)).run()
}

fn stdout(answer: &Answer) -> &str {
    str::from_utf8(&answer.stdout).unwrap()
}

/// Many plugins wait for a conf on stdin here, and look like a hang.
#[test]
fn at_a_terminal_it_says_what_it_is() {
    for arguments in [&[][..], &["--help"], &["-h"]] {
        let answer = run(arguments);
        assert!(answer.status.success(), "{arguments:?}: {answer:?}");
        for word in ["CNI", "CNI_COMMAND", "/opt/cni/bin", "--version"] {
            assert!(stdout(&answer).contains(word), "{arguments:?} without {word}: {}", stdout(&answer));
        }
        assert_eq!(answer.stderr, "");
    }
}

#[test]
fn it_tells_its_version_and_those_of_the_specification() {
    for argument in ["--version", "-V"] {
        let answer = run(&[argument]);
        assert!(answer.status.success());
        assert!(stdout(&answer).starts_with("ferrule 0."), "{}", stdout(&answer));
        assert!(stdout(&answer).contains("0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"));
    }
}

#[test]
fn an_unknown_argument_is_named_on_stderr() {
    let cases: [&[&OsStr]; 4] = [
        &["--frobnicate".as_ref()],
        &["--version".as_ref(), "--help".as_ref()],
        &["".as_ref()],
        &[OsStr::from_bytes(b"\xff\xfe")],
    ];
    for arguments in cases {
        let call = arguments.iter().fold(Call::of(&*FERRULE).silent_stdin(), |call, it| call.argument(it));
        let answer = call.run();
        assert_eq!(answer.status.code(), Some(2), "{arguments:?}: {answer:?}");
        assert_eq!(stdout(&answer), "", "{arguments:?}");
        assert!(answer.stderr.starts_with("ferrule: unknown argument"), "{answer:?}");
        assert!(answer.stderr.contains("--help"), "{answer:?}");
    }
}

/// A runtime's own arguments are not the protocol's.
#[test]
fn with_cni_command_set_arguments_are_not_looked_at() {
    let answer = Call::ferrule("VERSION").argument("--help").run();
    assert_eq!(answer.success()["supportedVersions"][0], "0.1.0");
}
