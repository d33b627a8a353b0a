#!/usr/bin/env bash
# Builds what goes onto a node, and leaves it in DIR:
#
#     scripts/build.sh [--target TRIPLE] [DIR [BINARY...]]
#
#   TRIPLE         default: this machine, the plugin against musl where rustup has that target, the others against
#                  glibc. For another machine, for example aarch64-unknown-linux-gnu, Debian's cross compiler is used,
#                  and what it lacks is installed.
#   DIR BINARY...  default: dist/, and all that goes onto a node (scripts/workspace.sh); kubectl-ferrule, which does not, is
#                  built when it is named
#
# With ferrulectl and kubectl-ferrule come their shell completions (DIR/completions) and man pages (DIR/man).
#
# Release binaries that need nothing of the machine they run on. The same commit gives the same bytes in any directory
# (scripts/reproducible.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

usage() { die "usage: scripts/build.sh [--target TRIPLE] [DIR [BINARY...]]"; }

target=
case ${1:-} in
    --target) [ -n "${2:-}" ] || usage; target=$2; shift 2 ;;
    -*) usage ;;
esac
dir=${1:-dist}
[ $# -lt 2 ] || binaries=("${@:2}")
for binary in "${binaries[@]}"; do
    [ -n "${features_of[$binary]+known}" ] || die "no such binary: $binary"
done

need_rust
command -v readelf >/dev/null || need_packages binutils

# The plugin starts for every pod. musl's start is shorter than glibc's, which asks the CPU much (in a virtual machine
# each CPUID is a trap), and the plugin is a fifth smaller with it. The others have parts in C (ring), which would need a
# C compiler for musl.
# Of those kubectl-ferrule runs on machines of which nothing is known, and asks for an API server by its name: glibc's
# resolver, linked statically, works with the very same glibc only. The parts in C need no libc, so this machine's
# compiler will do.
declare -A target_of=()
if [ -z "$target" ]; then
    host=$(rustc -vV | sed -n 's/^host: //p')
    musl=${host%%-*}-unknown-linux-musl
    if ! has_std "$musl" && command -v rustup >/dev/null; then
        timeout 120 rustup target add "$musl" >&2 || say "no musl for this toolchain: glibc instead"
    fi
    for binary in "${binaries[@]}"; do target_of[$binary]=$host; done
    if has_std "$musl"; then
        target_of[ferrule]=$musl
        if [ -n "${target_of[kubectl-ferrule]:-}" ]; then target_of[kubectl-ferrule]=$musl; fi
        export "CC_${musl//-/_}=cc" "AR_${musl//-/_}=ar"
    fi
else
    need_target "$target"
    for binary in "${binaries[@]}"; do target_of[$binary]=$target; done
fi

built=$(target_directory)
# Not position-independent: nothing is relocated at each start, which a plugin makes for every pod. No directory of this
# machine gets into a binary, where panics and logs name source files.
# Without --target the flags would reach procedural macros too, and those are dynamic libraries.
read -ra flags <<<"${RUSTFLAGS:-}"
flags+=(-C target-feature=+crt-static -C relocation-model=static
    "--remap-path-prefix=${CARGO_HOME:-${HOME:-/root}/.cargo}=/cargo" "--remap-path-prefix=$built=/target"
    "--remap-path-prefix=$PWD=/ferrule")
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS
for binary in "${binaries[@]}"; do
    cargo build --profile "${profile_of[$binary]}" --locked --target "${target_of[$binary]}" --bin "$binary" \
        --features "${features_of[$binary]}"
done

for binary in "${binaries[@]}"; do
    target=${target_of[$binary]}
    install -D --mode=0755 "$built/$target/${profile_of[$binary]}/$binary" "$dir/$binary"
    if readelf --wide --program-headers "$dir/$binary" | grep --quiet INTERP; then
        die "$dir/$binary is not static: it asks for a dynamic loader"
    fi
    size=$(stat --format=%s "$dir/$binary")
    say "$dir/$binary: static, $target, $((size / 1024)) KiB"
    case $binary in
        ferrulectl | kubectl-ferrule) "${runner[@]}" "$dir/$binary" generate "$dir" ;;
    esac
done
