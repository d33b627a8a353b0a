//! `ferrule`: the CNI plugin, executed by a container runtime. Run by hand it says what it is.
//!
//! Decides nothing: environment and stdin become a [`Request`], the command answers, the answer becomes
//! one write and an exit code.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};

use ferrule::attachments::timing::{Phase, Progress, Running};
use ferrule::cni::env::Command;
use ferrule::cni::error::{CniError, Code};
use ferrule::cni::request::{Failure, Request};
use ferrule::cni::version::SpecVersion;
use ferrule::plugin;
use ferrule::plugin::watchdog::{self, Expired, Turn};

// A process of two milliseconds: musl's allocator asks the kernel for each larger block anew (54 mmap in an ADD), and
// glibc's makes an arena for each thread.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

const HELP: &str = "\
ferrule gives Kubernetes pods their network: a CNI plugin with its own address management.

It is not started by hand but by a container runtime, which names the command in CNI_COMMAND and writes
the network's conf to stdin. To install it, put this file into /opt/cni/bin and a conflist that names it
(\"type\": \"ferrule\") into /etc/cni/net.d; docs/install.md shows both, and how to try it without a runtime.

To look after a node, use ferrulectl: `ferrulectl doctor` finds what is wrong, `ferrulectl inspect` lists pods
and addresses, `ferrulectl --help` has the rest.

  ferrule --version   this version, and the versions of the CNI specification that it speaks
  ferrule --help      this text
";

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some() { run_plugin() } else { run_by_hand() }
}

/// One command of the protocol. Exit code 0 with the answer on stdout, or 1 with an error object there.
fn run_plugin() -> ExitCode {
    let (turn, running) = (Arc::new(Turn::default()), Running::default());
    let version = Arc::new(OnceLock::new());
    start_watchdog(&turn, &running, &version);
    let environment = |name: &str| std::env::var_os(name);
    let read = running.during(Phase::Request, || Request::read(environment, io::stdin().lock()));
    let request = match read {
        Ok(request) => request,
        Err(Failure { error, version }) => return fail(&turn, &error, version),
    };
    let _ = version.set(request.conf.version);
    let progress = Progress::new(running);
    match run_guarded(&request, &progress, &turn) {
        Ok(()) => {
            if turn.take() {
                turn.finish(true);
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(&turn, &error, request.conf.version),
    }
}

/// Answers in the place of a command that cannot any more.
#[expect(
    clippy::disallowed_methods,
    reason = "this is main; a thread that blocks cannot undo its ADD, DEL does"
)]
fn start_watchdog(turn: &Arc<Turn>, running: &Running, version: &Arc<OnceLock<SpecVersion>>) {
    let given = std::env::var_os("CNI_COMMAND").unwrap_or_default();
    let command = Command::ALL.into_iter().find(|command| given == command.as_str());
    let (running, version) = (running.clone(), Arc::clone(version));
    let time = watchdog::last_deadline(command);
    watchdog::start(turn, time, move |expired| {
        if expired == Expired::Unanswered {
            let command = command.map_or("the command", Command::as_str);
            let error = running.timeout_error(command, time);
            let version = version.get().copied().unwrap_or(SpecVersion::NEWEST);
            let mut stdout = io::stdout();
            let _ = stdout.write_all(error.to_json(version).as_bytes()).and_then(|()| stdout.flush());
        }
        std::process::exit(i32::from(expired != Expired::Answered { is_success: true }));
    });
}

/// Runs the command so that even a defect of ours answers in JSON and takes back what it had made.
fn run_guarded(request: &Request, progress: &Progress, turn: &Turn) -> Result<(), CniError> {
    static PANIC: Mutex<String> = Mutex::new(String::new());
    panic::set_hook(Box::new(|info| {
        if let Ok(mut text) = PANIC.lock() {
            *text = info.to_string().replace('\n', " ");
        }
    }));
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| plugin::run(request, progress, &mut Stdout(turn))));
    outcome.unwrap_or_else(|_| {
        // After an answer the pod is the runtime's. What is missing, CHECK names and the next ADD or DEL mends.
        if turn.has_answered() {
            return Ok(());
        }
        let text = PANIC.lock().map(|text| text.clone()).unwrap_or_default();
        let undone = if progress.has_claimed() { plugin::take_back(request) } else { Ok(()) };
        let rest = undone.err().map(|error| format!("; and it could not be taken back: {error}"));
        let details = format!("{text}{}; please report it", rest.unwrap_or_default());
        Err(CniError::new(Code::Internal, "a defect of ferrule").with_details(details))
    })
}

/// Standard output, of which it is known whether it was there.
///
/// Before `main`, std puts `/dev/null`, open for reading and writing, in the place of a descriptor that was
/// closed, and what is written there is written for nobody: an ADD would leave a pod that no runtime knows of.
struct Stdout<'a>(&'a Turn);

impl Stdout<'_> {
    fn was_closed() -> bool {
        let null = rustix::fs::stat("/dev/null");
        let (flags, found) = (rustix::fs::fcntl_getfl(io::stdout()), rustix::fs::fstat(io::stdout()));
        let (Ok(null), Ok(flags), Ok(found)) = (null, flags, found) else { return false };
        (found.st_dev, found.st_ino) == (null.st_dev, null.st_ino)
            && flags & rustix::fs::OFlags::RWMODE == rustix::fs::OFlags::RDWR
    }
}

impl Write for Stdout<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = if !self.0.take() || Self::was_closed() {
            Err(rustix::io::Errno::BADF.into())
        } else {
            io::stdout().write(bytes)
        };
        written.inspect_err(|_| self.0.give_back())
    }

    /// The answer is whole: it ends with this, and is written once.
    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush().inspect_err(|_| self.0.give_back())?;
        self.0.finish(true);
        Ok(())
    }
}

fn fail(turn: &Turn, error: &CniError, version: SpecVersion) -> ExitCode {
    if turn.take() {
        // Nobody may be reading any more; the exit code still tells.
        let _ = io::stdout().write_all(error.to_json(version).as_bytes());
        turn.finish(false);
    }
    ExitCode::FAILURE
}

fn run_by_hand() -> ExitCode {
    // What is not UTF-8 is no argument of ours, and must not be a panic either.
    let arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let arguments: Vec<String> = arguments.collect();
    let (text, code) = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--version" | "-V"] => (version_text(), ExitCode::SUCCESS),
        [] | ["--help" | "-h"] => (HELP.to_owned(), ExitCode::SUCCESS),
        [first, ..] => {
            let text = format!("ferrule: unknown argument {first:?}\n\n{HELP}");
            let _ = io::stderr().write_all(text.as_bytes());
            return ExitCode::from(2);
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn version_text() -> String {
    let spoken = SpecVersion::ALL.map(SpecVersion::as_str).join(", ");
    format!("ferrule {}\nCNI {spoken}\n", env!("CARGO_PKG_VERSION"))
}
