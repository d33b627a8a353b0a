#!/usr/bin/env bash
# Builds what goes onto a node, and leaves it in DIR:
#
#     scripts/build.sh [DIR [BINARY...]]          default: dist/, and both: ferrule and ferruled
#
# Release binaries that need nothing of the machine they run on: static against musl where that target is installed
# (rustup target add "$(uname -m)-unknown-linux-musl"), else against glibc.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh

dir=${1:-dist}
binaries=("${@:2}")
[ "${#binaries[@]}" -gt 0 ] || binaries=(ferrule ferruled)
# The plugin is built without what only the agent needs, and smaller.
declare -A features=([ferrule]="" [ferruled]=agent) profiles=([ferrule]=release [ferruled]=agent)
for binary in "${binaries[@]}"; do
    [ -n "${features[$binary]+known}" ] || die "no such binary: $binary"
done

command -v cargo >/dev/null || die "needs Rust: no cargo in PATH"
need_linker
command -v readelf >/dev/null || need_packages binutils

host=$(rustc -vV | sed -n 's/^host: //p')
target=${host%%-*}-unknown-linux-musl
# rustc names a target's directory whether or not it is there.
[ -d "$(rustc --print target-libdir --target "$target")" ] || target=$host

# Not position-independent: nothing is relocated at each start, which a plugin makes for every pod.
# Without --target the flags would reach procedural macros too, and those are dynamic libraries.
export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static -C relocation-model=static"
for binary in "${binaries[@]}"; do
    cargo build --profile "${profiles[$binary]}" --locked --target "$target" --bin "$binary" --features "${features[$binary]}"
done

built=$(cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
for binary in "${binaries[@]}"; do
    install -D --mode=0755 "$built/$target/${profiles[$binary]}/$binary" "$dir/$binary"
    if readelf --wide --program-headers "$dir/$binary" | grep --quiet INTERP; then
        die "$dir/$binary is not static: it asks for a dynamic loader"
    fi
    size=$(stat --format=%s "$dir/$binary")
    say "$dir/$binary: static, $target, $((size / 1024)) KiB"
done
