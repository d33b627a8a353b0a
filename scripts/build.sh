#!/usr/bin/env bash
# Builds what goes onto a node, and leaves it in DIR:
#
#     scripts/build.sh [DIR [BINARY...]]          default: dist/, and all of them (scripts/workspace.sh)
#
# Release binaries that need nothing of the machine they run on: static against musl where that target is installed
# (rustup target add "$(uname -m)-unknown-linux-musl"), else against glibc.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

dir=${1:-dist}
[ $# -lt 2 ] || binaries=("${@:2}")
for binary in "${binaries[@]}"; do
    [ -n "${features_of[$binary]+known}" ] || die "no such binary: $binary"
done

need_rust
command -v readelf >/dev/null || need_packages binutils

host=$(rustc -vV | sed -n 's/^host: //p')
target=${host%%-*}-unknown-linux-musl
# rustc names a target's directory whether or not it is there.
[ -d "$(rustc --print target-libdir --target "$target")" ] || target=$host

# Not position-independent: nothing is relocated at each start, which a plugin makes for every pod.
# Without --target the flags would reach procedural macros too, and those are dynamic libraries.
export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static -C relocation-model=static"
for binary in "${binaries[@]}"; do
    cargo build --profile "${profile_of[$binary]}" --locked --target "$target" --bin "$binary" \
        --features "${features_of[$binary]}"
done

built=$(target_directory)
for binary in "${binaries[@]}"; do
    install -D --mode=0755 "$built/$target/${profile_of[$binary]}/$binary" "$dir/$binary"
    if readelf --wide --program-headers "$dir/$binary" | grep --quiet INTERP; then
        die "$dir/$binary is not static: it asks for a dynamic loader"
    fi
    size=$(stat --format=%s "$dir/$binary")
    say "$dir/$binary: static, $target, $((size / 1024)) KiB"
done
