//! Where the programs under test are: the one place that names them.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The plugin.
pub static FERRULE: LazyLock<PathBuf> = LazyLock::new(|| built("ferrule"));

/// The agent, of a build with the feature `agent`.
pub static FERRULED: LazyLock<PathBuf> = LazyLock::new(|| built("ferruled"));

/// The command line, of a build with the feature `cli`.
pub static FERRULECTL: LazyLock<PathBuf> = LazyLock::new(|| built("ferrulectl"));

/// The command line for clusters, of a build with the feature `kubectl`.
pub static KUBECTL_FERRULE: LazyLock<PathBuf> = LazyLock::new(|| built("kubectl-ferrule"));

/// Where the distribution keeps the reference plugins (Debian's containernetworking-plugins).
pub const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

/// Cargo puts a package's programs one directory above its tests, and builds them before the tests run.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this program");
    let place = test.parent().expect("a directory");
    let place = if place.ends_with("deps") { place.parent().unwrap_or(place) } else { place };
    existing(place.join(name))
}

fn existing(program: PathBuf) -> PathBuf {
    assert!(Path::new(&program).is_file(), "{}: build the workspace first", program.display());
    program
}
