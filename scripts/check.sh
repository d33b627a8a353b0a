#!/usr/bin/env bash
# What to run before each commit: formatting, clippy, and the tests that need neither root nor anything installed.
#
#     scripts/check.sh [--without-tests]
#
# Each part runs even if one before it failed. Exit status 1 if any did.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

tests=yes
case $* in
    "") ;;
    --without-tests) tests= ;;
    *) die "usage: scripts/check.sh [--without-tests]" ;;
esac
need_rust

failed=()
part() {
    local name=$1
    shift
    say "== $name: $*"
    "$@" || failed+=("$name")
}

part formatting cargo fmt --all --check
part "formatting, fuzz/" cargo fmt --manifest-path fuzz/Cargo.toml --check
# By itself as well: the plugin must not come to need what only the agent, the tests or the bench have.
part "clippy, the plugin alone" cargo clippy --package ferrule --lib --bin ferrule --locked -- --deny warnings
part clippy cargo clippy --workspace --features "$features" --all-targets --locked -- --deny warnings
if [ -n "$tests" ]; then
    part "unit tests" cargo test --workspace --features "$features" --locked --no-fail-fast --lib --bins
fi

[ "${#failed[@]}" -eq 0 ] || die "failed: $(printf '%s, ' "${failed[@]}" | sed 's/, $//')"
