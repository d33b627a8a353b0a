#!/usr/bin/env bash
# What is in the binaries, as CycloneDX 1.6 (JSON), one file each:
#
#     scripts/sbom.sh [DIR]                       default: dist/; makes ferrule.cdx.json and ferruled.cdx.json
#
# From cargo itself and Cargo.lock: each crate that is compiled into the binary, with version, licence, checksum and
# what it needs in turn. The same source gives the same file: no time, no number drawn by lot. Not in it: the Rust
# standard library and musl, which come with the toolchain (rust-toolchain.toml).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh

dir=${1:-dist}
PATH=$PATH:${HOME:-/root}/.cargo/bin
command -v cargo >/dev/null || die "needs Rust: no cargo in PATH"
command -v jq >/dev/null || need_packages jq

host=$(rustc -vV | sed -n 's/^host: //p')
# Without dependencies for tests, and without what only runs while it is built.
packages_of() {
    cargo tree --locked --package ferrule --features "$1" --target "$host" --edges normal --prefix none \
        --format '{p}' --no-dedupe | sed -E 's/^([^ ]+) v([^ ]+).*/\1 \2/' | LC_ALL=C sort -u
}

# shellcheck disable=SC2016 # $names are jq's
describe='
# "name version" of each package of Cargo.lock, with its checksum.
def checksums:
    $lock | split("[[package]]")[1:]
    | map(capture("name = \"(?<name>[^\"]+)\"\nversion = \"(?<version>[^\"]+)\"")
          + {sum: (capture("checksum = \"(?<it>[^\"]+)\"").it? // null)})
    | map({key: "\(.name) \(.version)", value: .sum}) | from_entries;
def purl: "pkg:cargo/\(.name)@\(.version)";
# Cargo has known "MIT/Apache-2.0" for longer than SPDX expressions.
def licences: [{expression: (.license // "NOASSERTION" | gsub(" */ *"; " OR "))}];
checksums as $sums
| ($tree | split("\n") | map(select(. != ""))) as $wanted
| [.packages[] | select("\(.name) \(.version)" as $it | $wanted | index($it))] as $packages
| ($packages | map({key: .id, value: purl}) | from_entries) as $refs
| ($packages[] | select(.name == "ferrule" and .source == null)) as $root
| {
    bomFormat: "CycloneDX", specVersion: "1.6", version: 1,
    metadata: {component: {
        type: "application", "bom-ref": $refs[$root.id], name: $binary, version: $root.version,
        description: $root.description, licenses: ($root | licences)
    }},
    components: ($packages | map(select(.id != $root.id) | {
        type: "library", "bom-ref": purl, name, version, purl: purl, licenses: licences,
        hashes: [{alg: "SHA-256", content: $sums["\(.name) \(.version)"]}],
        externalReferences: [.repository // empty | {type: "vcs", url: .}]
    }) | sort_by(.name, .version)),
    dependencies: ([.resolve.nodes[] | select($refs[.id]) | {
        ref: $refs[.id],
        dependsOn: [.deps[] | select(any(.dep_kinds[]; .kind == null)) | $refs[.pkg] // empty] | unique
    }] | sort_by(.ref))
}'

mkdir -p "$dir"
metadata=$(mktemp "${TMPDIR:-/tmp}/ferrule-sbom.XXXXXX")
trap 'rm -f "$metadata"' EXIT
declare -A features=([ferrule]="" [ferruled]=agent)
for binary in ferrule ferruled; do
    cargo metadata --locked --format-version 1 --filter-platform "$host" --features "${features[$binary]}" >"$metadata"
    jq --arg binary "$binary" --arg tree "$(packages_of "${features[$binary]}")" --rawfile lock Cargo.lock \
        "$describe" "$metadata" >"$dir/$binary.cdx.json"
    say "$dir/$binary.cdx.json: $(jq '.components | length' "$dir/$binary.cdx.json") crates"
done
