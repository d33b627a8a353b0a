#!/usr/bin/env bash
# ferrule for arm64 on a machine that is not one: builds binaries (default: all) with Debian's cross compiler into DIR
# (default: dist/arm64), and executes each once, under qemu's user mode:
#
#     scripts/arm64.sh [--tests] [DIR [BINARY...]]
#
#   --tests        runs the unit tests of what is in them as well
#
# qemu's user mode refuses most of netlink: every test that makes a network is for a real arm64 machine
# (.github/workflows/test.yaml). Exit status 3: no std for arm64 can be had.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

target=aarch64-unknown-linux-gnu
tests=
if [ "${1:-}" = --tests ]; then
    tests=yes
    shift
fi
dir=${1:-dist/arm64}
[ $# -lt 2 ] || binaries=("${@:2}")
need_rust
need_target "$target"
scripts/build.sh --target "$target" "$dir" "${binaries[@]}"
for binary in "${binaries[@]}"; do
    readelf --file-header "$dir/$binary" | grep --quiet 'Machine: *AArch64' || die "$dir/$binary is not for arm64"
    "${runner[@]}" "$dir/$binary" --version
done
[ -n "$tests" ] || exit 0
features=
for binary in "${binaries[@]}"; do features+=${features_of[$binary]:+ferrule/${features_of[$binary]},}; done
# Nobody debugs these, and none is built twice.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=none
cargo test --package ferrule --features "$features" --locked --target "$target" --lib
