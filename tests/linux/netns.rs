//! Opening namespaces by paths from outside, and working inside them.

use std::fmt::Debug;
use std::fs::File;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ferrule::linux::netns::{Netns, NetnsError};
use ferrule::linux::sysctl;

use kit::files::Scratch;
use kit::netns::Namespace;

/// What a path names if it names no network namespace.
fn what_is_at(path: &Path) -> String {
    what_was_found(path, Netns::open(path))
}

fn what_was_found<T: Debug>(path: &Path, outcome: Result<T, NetnsError>) -> String {
    match outcome {
        Err(NetnsError::NotNetns { what, .. }) => what.to_owned(),
        other => panic!("{}: {other:?}", path.display()),
    }
}

#[test]
fn a_path_to_something_else_is_refused() {
    let scratch = Scratch::new("netns");
    let file = scratch.path().join("file");
    File::create(&file).unwrap();
    let fifo = scratch.path().join("fifo");
    // Opening it for reading would wait for a writer that never comes.
    scratch.make_fifo("fifo");
    let socket = scratch.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink(&fifo, &link).unwrap();

    assert_eq!(what_is_at(&file), "a regular file");
    assert_eq!(what_is_at(&fifo), "a FIFO");
    assert_eq!(what_is_at(&link), "a FIFO");
    assert_eq!(what_is_at(&socket), "a socket");
    assert_eq!(what_is_at(scratch.path()), "a directory");
    assert_eq!(what_is_at(Path::new("/dev/null")), "a character device");
    assert_eq!(what_is_at(Path::new("/proc/self/status")), "a regular file");
}

#[test]
fn a_namespace_of_another_kind_is_found_out_when_it_is_entered() {
    for kind in ["mnt", "uts", "user"] {
        let path = Path::new("/proc/self/ns").join(kind);
        let mistaken = Netns::open(&path).unwrap();
        let outcome = mistaken.run(|| panic!("ran in a namespace of another kind"));
        assert_eq!(what_was_found::<()>(&path, outcome), "a namespace of another kind");
        assert_ne!(mistaken, Netns::current().unwrap());
    }
}

#[test]
fn a_missing_path_is_told_apart_from_an_unreadable_one() {
    let scratch = Scratch::new("netns");
    File::create(scratch.path().join("file")).unwrap();
    for missing in ["missing", "missing/deeper", "file/below"] {
        let error = Netns::open(&scratch.path().join(missing)).unwrap_err();
        assert!(matches!(error, NetnsError::NotFound { .. }), "{missing}: {error}");
    }
    let endless = scratch.path().join("loop");
    std::os::unix::fs::symlink(&endless, &endless).unwrap();
    let error = Netns::open(&endless).unwrap_err();
    assert!(matches!(error, NetnsError::Open { .. }), "{error}");
    assert!(error.to_string().contains("os error"), "{error}");
}

#[test]
fn a_namespace_is_the_same_by_every_path() {
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    let scratch = Scratch::new("netns");
    let alias = scratch.path().join("alias");
    std::os::unix::fs::symlink(a.path(), &alias).unwrap();
    let open = |path| Netns::open(path).unwrap();
    assert_eq!(open(a.path()).identity(), open(&alias).identity());
    assert_ne!(open(a.path()).identity(), open(b.path()).identity());
    assert_ne!(open(a.path()), Netns::current().unwrap());
    assert_eq!(open(a.path()).run(|| Netns::current().unwrap()).unwrap(), open(a.path()));
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(a.path()).unwrap());
    assert_eq!(open(a.path()).identity().ino, inode);
}

#[test]
fn the_calling_thread_stays_even_if_the_work_panics() {
    let namespace = Namespace::new("run");
    let inside = Netns::open(namespace.path()).unwrap();
    let before = Netns::current().unwrap();
    assert_eq!(inside.run(|| 42).unwrap(), 42);
    let panicked = catch_unwind(AssertUnwindSafe(|| inside.run(|| panic!("as planned"))));
    let words = panicked.unwrap_err();
    assert_eq!(words.downcast_ref::<&str>(), Some(&"as planned"));
    assert_eq!(Netns::current().unwrap(), before);
}

#[test]
fn a_namespace_outlives_its_path_while_it_is_open() {
    let namespace = Namespace::new("unlinked");
    let open = Netns::open(namespace.path()).unwrap();
    let path = namespace.path().to_owned();
    drop(namespace);
    assert!(matches!(Netns::open(&path), Err(NetnsError::NotFound { .. })));
    assert_eq!(open.run(|| Netns::current().unwrap()).unwrap(), open);
}

#[test]
fn a_sysctl_is_written_only_if_it_differs() {
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    a.ip("link add eth0.100 type veth peer other");
    let inside = Netns::open(a.path()).unwrap();
    let key = ["net", "ipv4", "conf", "eth0.100", "rp_filter"];
    let write = || inside.run(|| sysctl::write_if_different(&key, "2").unwrap()).unwrap();
    let path = "net/ipv4/conf/eth0.100/rp_filter";
    assert_ne!(a.sysctl(path), "2");
    assert!(write());
    assert!(!write());
    assert_eq!(a.sysctl(path), "2");
    assert_eq!(inside.run(|| sysctl::read(&key).unwrap()).unwrap(), "2");

    b.ip("link set lo up");
    let elsewhere = Netns::open(b.path()).unwrap().run(|| sysctl::read(&key)).unwrap();
    assert!(elsewhere.unwrap_err().is_not_found());
    assert_eq!(inside.run(sysctl::has_ipv6).unwrap(), Path::new("/proc/sys/net/ipv6/conf").exists());
}
