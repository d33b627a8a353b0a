#!/usr/bin/env bash
# Two builds of one commit are bit for bit the same, whatever directory they are made in:
#
#     scripts/reproducible.sh [--target TRIPLE] [BINARY...]
#
# Clones HEAD twice, into directories whose names differ in length, builds the second with one job,
# compares every file, and packs both as scripts/archive.sh does. Takes as long as two builds without a cache. What may
# still make a difference: another version of Rust (rust-toolchain.toml), another libc or C compiler, another target.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

target=()
if [ "${1:-}" = --target ]; then
    target=(--target "${2:?usage: scripts/reproducible.sh [--target TRIPLE] [BINARY...]}")
    shift 2
fi
need_rust

scratch=$(mktemp --directory "${TMPDIR:-/tmp}/ferrule-reproducible.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
unset CARGO_TARGET_DIR

commit=$(git rev-parse HEAD)
# build DIRECTORY
build() {
    git clone --quiet . "$1"
    git -C "$1" checkout --quiet --detach "$commit"
    (
        cd "$1"
        export SOURCE_DATE_EPOCH
        SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
        scripts/build.sh "${target[@]}" dist "${@:2}"
        scripts/archive.sh dist "$PWD/archive.tar.gz"
    )
}
build "$scratch/a" "$@"
CARGO_BUILD_JOBS=1 build "$scratch/a-directory-with-a-longer-name/b" "$@"

cd "$scratch"
diff --recursive --brief a/dist a-directory-with-a-longer-name/b/dist >&2 || die "$commit: two builds differ"
cmp a/archive.tar.gz a-directory-with-a-longer-name/b/archive.tar.gz >&2 || die "$commit: two archives differ"
# What a panic names is a path of the sources, not of this machine.
! grep --quiet --text --fixed-strings -e "$scratch" -e "${CARGO_HOME:-${HOME:-/root}/.cargo}/" a/dist/ferrule* ||
    die "a binary names a directory of this machine"
(cd a/dist && sha256sum -- ferrule*)
sha256sum a/archive.tar.gz
say "$commit: two builds are the same, byte for byte"
