# shellcheck shell=bash disable=SC2034 # what is set here is used by those that source it
# What the scripts here tell cargo, in one place. Sourced after debian.sh:
#
#     . scripts/debian.sh
#     . scripts/workspace.sh
#     need_rust                              # cargo in PATH, and what it links with; else ends with a message
#     cargo clippy --features "$features"
#     cd "$(target_directory)"

# With all doors: what clippy and the tests are built with.
features=ferrule/agent

# What goes onto a node: each binary with the features and the profile that it is built with. The plugin is built
# without what only the others need, and smaller.
binaries=(ferrule ferruled)
declare -A features_of=([ferrule]="" [ferruled]=agent)
declare -A profile_of=([ferrule]=release [ferruled]=agent)

# What only `scripts/test.sh --all` runs: minutes each. Names of tests as libtest has them, or parts of these.
slow_tests=(adversarial:: faults:: model:: rot:: storm::)
# The same of packages: the tests of what other tests are made with.
slow_packages=(lab)

need_rust() {
    PATH=$PATH:${HOME:-/root}/.cargo/bin
    command -v cargo >/dev/null || die "needs Rust: no cargo in PATH"
    need_linker
}

# Where cargo leaves what it builds: CARGO_TARGET_DIR and cargo's own settings may say so.
target_directory() {
    cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}
