//! Where a command is broken, and how: which call can fail with what, before which calls a kill matters, and what the
//! kernel may be made to say over netlink.

use std::fmt;

use super::strace::{Fault, Step};

/// One thing that goes wrong at one step.
#[derive(Debug, Clone)]
pub struct Point {
    /// Where.
    pub step: Step,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Point {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at {}", self.fault, self.step)
    }
}

/// Whether every error is tried at every step, and a kill before each; otherwise they take turns, and a kill comes
/// only before what changes something.
pub fn is_exhaustive() -> bool {
    std::env::var_os("FERRULE_FAULTS").is_some_and(|it| it == "all")
}

/// Every step that can fail, with an error that it can fail with. Of several errors one is taken, another at each step.
pub fn errors(steps: &[Step]) -> Vec<Point> {
    let mut points = Vec::new();
    for (turn, step) in reachable(steps).enumerate() {
        let fitting = fitting_errors(step);
        let chosen = match fitting.len() {
            0 => &[][..],
            _ if is_exhaustive() => fitting,
            count => std::slice::from_ref(&fitting[turn % count]),
        };
        points.extend(chosen.iter().map(|errno| Point { step: step.clone(), fault: Fault::Error(errno) }));
    }
    only_asked_for(points)
}

/// Every step before which a kill leaves something else than a kill one step before: those that change something.
pub fn kills(steps: &[Step]) -> Vec<Point> {
    let matters = |step: &&Step| is_exhaustive() || changes_something(step);
    let points = reachable(steps).filter(matters);
    only_asked_for(points.map(|step| Point { step: step.clone(), fault: Fault::Killed }).collect())
}

fn reachable(steps: &[Step]) -> impl Iterator<Item = &Step> {
    steps.iter().filter(|step| step.place.is_some())
}

/// How to break one point again: `FERRULE_FAULT` is a part of its name.
fn only_asked_for(mut points: Vec<Point>) -> Vec<Point> {
    if let Ok(part) = std::env::var("FERRULE_FAULT") {
        points.retain(|point| point.to_string().contains(&part));
    }
    points
}

/// The errors that a call can have which was given nothing wrong. None for those that the kernel cannot refuse.
fn fitting_errors(step: &Step) -> &'static [&'static str] {
    let text = step.text.as_str();
    match step.call.as_str() {
        "open" | "openat" if text.contains("O_CREAT") => {
            &["ENOSPC", "EMFILE", "EIO", "EACCES", "EINTR", "ENOMEM"]
        }
        "open" | "openat" => &["EMFILE", "EIO", "ENFILE", "EACCES", "EINTR", "ENOMEM"],
        "read" | "pread64" => &["EIO", "EINTR", "ENOMEM"],
        "write" | "pwrite64" if text.contains("eventfd") => &["EINTR"],
        "write" | "pwrite64" => &["ENOSPC", "EIO", "EINTR", "EDQUOT"],
        "linkat" | "mkdir" | "mkdirat" | "renameat" | "renameat2" | "symlinkat" => {
            &["ENOSPC", "EIO", "EPERM", "EROFS"]
        }
        "unlink" | "unlinkat" | "rmdir" => &["EIO", "EPERM", "EROFS"],
        "ftruncate" => &["EIO", "ENOSPC", "EINTR"],
        "statx" | "fstat" | "newfstatat" | "fstatfs" | "faccessat" | "faccessat2" | "access" | "readlink" => {
            &["EIO", "ENOMEM", "EACCES"]
        }
        "getdents64" => &["EIO", "ENOMEM"],
        // Not EAGAIN, which says that another process has the lock: then it is at work.
        "flock" => &["ENOLCK", "EINTR", "EIO"],
        "socket" | "socketpair" | "epoll_create1" | "eventfd2" => &["EMFILE", "ENOMEM", "EPERM"],
        "epoll_ctl" => &["ENOMEM", "ENOSPC"],
        "epoll_wait" => &["EINTR"],
        "setsockopt" | "getsockopt" | "getsockname" | "bind" => &["ENOMEM", "ENOPROTOOPT", "EPERM"],
        "ioctl" => &["EIO", "ENODEV"],
        // Not EAGAIN, after which epoll would have to tell when to try again, and the kernel knows of nothing.
        "sendto" | "sendmsg" => &["ENOBUFS", "EINTR", "ENOMEM", "EPERM"],
        "recvfrom" | "recvmsg" => &["ENOBUFS", "EINTR", "ENOMEM", "EIO"],
        "setns" => &["EPERM", "ENOMEM"],
        "clone3" | "clone" => &["EAGAIN", "ENOMEM"],
        // Not brk, which tells of no error but answers with an address.
        "mmap" | "mprotect" | "munmap" => &["ENOMEM"],
        // The kernel lets go of a descriptor whatever close answers, strace of none: of a lock that would be another
        // fault, which does not exist.
        "close" if text.contains("/lock>") => &[],
        "close" => &["EIO", "EINTR"],
        "futex" => &["EINTR", "EAGAIN"],
        "fcntl" if text.contains("F_DUPFD") => &["EMFILE"],
        "getrandom" => &["EINTR", "EAGAIN"],
        // What the kernel does not refuse: exit and exit_group, signal masks and stacks, names and ids of threads, the
        // flags of a descriptor (which a debug build of std asks for before it closes one).
        _ => &[],
    }
}

/// Whether what other processes see is another thing after the call.
fn changes_something(step: &Step) -> bool {
    let text = step.text.as_str();
    match step.call.as_str() {
        "open" | "openat" => text.contains("O_CREAT"),
        "write" | "pwrite64" => !text.contains("eventfd"),
        "linkat" | "mkdir" | "mkdirat" | "renameat" | "renameat2" | "unlink" | "unlinkat" | "rmdir"
        | "ftruncate" => true,
        "sendto" | "sendmsg" => !text.contains("GET"),
        "flock" | "exit_group" | "clone3" | "setns" => true,
        _ => false,
    }
}

/// Every answer of the kernel over netlink, and a lie about it. Of several lies one is told, another each time.
pub fn lies(steps: &[Step]) -> Vec<Point> {
    let mut points = Vec::new();
    let answers = reachable(steps).map(|step| (step, lies_about(step))).filter(|(_, lies)| !lies.is_empty());
    for (turn, (step, fitting)) in answers.enumerate() {
        let chosen = if is_exhaustive() { &fitting[..] } else { &fitting[turn % fitting.len()..][..1] };
        points.extend(chosen.iter().map(|lie| Point { step: step.clone(), fault: lie.clone() }));
    }
    only_asked_for(points)
}

/// What may be said instead of the answer that was received; nothing where the call received none.
pub fn lies_about(step: &Step) -> Vec<Fault> {
    Header::of(step).map(Header::lies).unwrap_or_default()
}

/// `struct nlmsghdr`, as strace shows that of a received datagram's first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// The end of a list, and a message that belongs to one (include/uapi/linux/netlink.h).
const DONE: u16 = 3;
const ERROR: u16 = 2;
const MULTI: u16 = 2;
const DUMP_INTERRUPTED: u16 = 0x10;

impl Header {
    fn of(step: &Step) -> Option<Self> {
        let text = step.text.strip_prefix("recvfrom(").or(step.text.strip_prefix("recvmsg("))?;
        let field = |name: &str| {
            let (_, after) = text.split_once(name)?;
            let value = &after[..after.find(", ").or(after.find('}'))?];
            flags_in(value)
        };
        Some(Self {
            length: field("nlmsg_len=")?,
            kind: field("nlmsg_type=")?.try_into().ok()?,
            flags: field("nlmsg_flags=")?.try_into().ok()?,
            sequence: field("nlmsg_seq=")?,
        })
    }

    /// What the kernel might as well have said, on a bad day or by a defect.
    fn lies(self) -> Vec<Fault> {
        let begin = |header: Self| {
            let mut bytes = header.length.to_ne_bytes().to_vec();
            bytes.extend(header.kind.to_ne_bytes());
            bytes.extend(header.flags.to_ne_bytes());
            bytes.extend(header.sequence.to_ne_bytes());
            bytes
        };
        // Behind the header: whose it is, which nobody looks at, and the errno.
        let verdict = |kind, errno: i32| {
            let mut bytes = begin(Self { kind, ..self });
            bytes.extend([0; 4]);
            bytes.extend(errno.to_ne_bytes());
            bytes
        };
        let mut lies = vec![
            Fault::Lie("an error", verdict(ERROR, -libc_errno::ENOMEM)),
            Fault::Lie("a wrong sequence number", begin(Self { sequence: self.sequence + 1000, ..self })),
            Fault::Lie("a message that is cut short", begin(Self { length: self.length + 1000, ..self })),
        ];
        if self.flags & MULTI != 0 {
            let torn = Self { flags: self.flags | DUMP_INTERRUPTED, ..self };
            lies.push(Fault::Lie("a list that changed meanwhile", begin(torn)));
            lies.push(Fault::Lie("a list that ends in an error", verdict(DONE, -libc_errno::ENOMEM)));
        }
        lies
    }
}

/// Errnos by number.
mod libc_errno {
    pub const ENOMEM: i32 = 12;
}

/// A number as strace writes one with `-X verbose`: `0x2 /* NLM_F_MULTI */|0x800`, `0xa /* NFTABLES */<<8|0x3`.
fn flags_in(text: &str) -> Option<u32> {
    let mut bare = String::new();
    let mut rest = text;
    while let Some((before, comment)) = rest.split_once("/*") {
        bare.push_str(before);
        rest = comment.split_once("*/")?.1;
    }
    bare.push_str(rest);
    let number = |text: &str| match text.trim().strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.trim().parse().ok(),
    };
    let mut sum = 0;
    for part in bare.split('|') {
        sum |= match part.split_once("<<") {
            Some((value, by)) => number(value)? << number(by)?,
            None => number(part)?,
        };
    }
    Some(sum)
}
