#!/usr/bin/env bash
# ferrule for arm64 on a machine that is not one: builds all binaries with Debian's cross compiler into DIR (default:
# dist/arm64), executes each once, and runs the unit tests, both under qemu's user mode:
#
#     scripts/arm64.sh [DIR]
#
# qemu hands system calls to this machine's kernel and does not know all of them: netlink of netfilter, and with it every
# test that makes a network, is for a real arm64 machine (.github/workflows/test.yaml). Exit status 3: no std for arm64
# can be had.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

target=aarch64-unknown-linux-gnu
dir=${1:-dist/arm64}
need_rust
need_target "$target"
scripts/build.sh --target "$target" "$dir"
for binary in "${binaries[@]}"; do
    readelf --file-header "$dir/$binary" | grep --quiet 'Machine: *AArch64' || die "$dir/$binary is not for arm64"
    "${runner[@]}" "$dir/$binary" --version
done
# One thread less of everything that qemu has to translate: incremental compilation and debug information.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=none
cargo test --package ferrule --features "$features" --locked --target "$target" --lib
