#!/usr/bin/env bash
# What comes from outside, made up: runs the targets of fuzz/, each from its corpus on.
#
#     scripts/fuzz.sh                      20,000 executions of each target
#     scripts/fuzz.sh 10000000             as many of each; that takes some hours
#     scripts/fuzz.sh 10000000 rtnetlink   of one of them
#
# Needs a nightly Rust, cargo-fuzz and a C++ compiler, and installs what is missing. Where no nightly can be had, each
# corpus is read once by what a stable Rust makes of it; exit status 3 says that this was all.
#
# Inputs that led somewhere new are kept in target/fuzz/corpus, and one that broke a promise in target/fuzz/broken: its
# file goes into fuzz/corpus, together with the repair and a test of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

targets=(request annotations prev_result record rtnetlink nfnetlink)
runs=${1:-20000}
[[ $runs =~ ^[0-9]+$ && $# -le 2 ]] || die "usage: scripts/fuzz.sh [EXECUTIONS [TARGET]]"
[ $# -lt 2 ] || targets=("$2")

need_rust
out=${CARGO_TARGET_DIR:-$PWD/target}/fuzz

has_nightly() { cargo +nightly --version >/dev/null 2>&1; }
if ! has_nightly && command -v rustup >/dev/null; then
    say "installing a nightly Rust"
    rustup toolchain install nightly --profile minimal --no-self-update >&2 || true
fi
if ! has_nightly; then
    say "no nightly Rust: each corpus is read once, and nothing is made up"
    cargo test --manifest-path fuzz/Cargo.toml --no-default-features --locked --target-dir "$out"
    exit 3
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    say "installing cargo-fuzz"
    # Not into the directory of this project's artifacts.
    env -u CARGO_TARGET_DIR cargo install cargo-fuzz --version 0.13.2 --locked
fi
command -v c++ >/dev/null || need_packages g++

# Without a sanitizer of addresses: nothing here is unsafe, and it would halve the speed.
cargo +nightly fuzz build --release --sanitizer none --target-dir "$out" >&2
host=$(cargo +nightly --version --verbose | sed -n 's/^host: //p')

# DONE tells how many places of the program were reached (cov), in how many ways (ft), by how many inputs (corp).
failed=()
for target in "${targets[@]}"; do
    log=$out/$target.log
    say "== $target: $runs executions (tail --follow $log)"
    mkdir -p "$out/corpus/$target" "$out/broken"
    # 4 KiB are more than any corpus needs; 10 seconds and 1 GiB are more than any input may take.
    if "$out/$host/release/$target" -runs="$runs" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -dict=fuzz/words.dict \
        -artifact_prefix="$out/broken/$target-" -print_final_stats=1 \
        "$out/corpus/$target" "fuzz/corpus/$target" >"$log" 2>&1; then
        grep -E 'DONE|^stat::number_of' "$log" >&2
    else
        grep -A 12 -E 'panicked|ERROR|ALARM' "$log" >&2 || tail "$log" >&2
        failed+=("$target")
    fi
done
[ "${#failed[@]}" -eq 0 ] || die "broken: ${failed[*]}; see $out/broken"
