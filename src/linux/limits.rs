//! Limits of this process.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Lets this process open as many files as it may: the usual soft limit of 1,024 is made for select(2). For whoever
/// holds the locks of many attachments at once. Where that fails the limit stays.
pub fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
