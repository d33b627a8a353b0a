# shellcheck shell=bash disable=SC2034 # what is set here is used by those that source it
# What the scripts here tell cargo, in one place. Sourced after debian.sh:
#
#     . scripts/debian.sh
#     . scripts/workspace.sh
#     need_rust                              # cargo in PATH, and what it links with; else ends with a message
#     cargo clippy --features "$features"
#     cd "$(target_directory)"
#     need_target aarch64-unknown-linux-gnu  # std, linker and C compiler for another machine, and what executes its
#     "${runner[@]}" dist/ferrule --version  # programs here: nothing, where this machine does so itself

# With all doors: what clippy and the tests are built with.
features=ferrule/agent,ferrule/cli,ferrule/kubectl

# What goes onto a node: each binary with the features and the profile that it is built with. The plugin is built
# without what only the others need, and smaller.
binaries=(ferrule ferruled ferrulectl)
declare -A features_of=([ferrule]="" [ferruled]=agent [ferrulectl]=cli [kubectl-ferrule]=kubectl)
declare -A profile_of=([ferrule]=release [ferruled]=agent [ferrulectl]=agent [kubectl-ferrule]=agent)
# What goes onto no node: it runs where kubectl does.
binaries_of_users=(kubectl-ferrule)

# What only `scripts/test.sh --all` runs: minutes each. Names of tests as libtest has them, or parts of these.
slow_tests=(adversarial::)
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

has_std() { [ -d "$(rustc --print target-libdir --target "$1")" ]; }

runner=()
# Exit status 3 where no std for that target can be had: a toolchain of a distribution has none for others.
need_target() {
    local machine=${1%%-*} variable
    [[ $1 =~ ^(x86_64|aarch64)-unknown-linux-(gnu|musl)$ ]] || die "no such target: $1"
    if ! has_std "$1" && ! { command -v rustup >/dev/null && rustup target add "$1" >&2; }; then
        say "no std for $1 can be had"
        exit 3
    fi
    [ "$machine" != "$(uname --machine)" ] || return 0
    case $machine in
        aarch64) need_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static ;;
        x86_64) need_packages gcc-x86-64-linux-gnu libc6-dev-amd64-cross qemu-user-static ;;
    esac
    # Of musl rustc brings its own start files and libc; Debian's compiler only links them.
    variable=${1//-/_}
    export "CC_$variable=$machine-linux-gnu-gcc" "AR_$variable=$machine-linux-gnu-ar"
    variable=CARGO_TARGET_${variable^^}
    runner=("qemu-$machine-static")
    export "${variable}_LINKER=$machine-linux-gnu-gcc" "${variable}_RUNNER=${runner[*]}"
}
