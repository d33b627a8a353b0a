#!/usr/bin/env bash
# The demo as it is seen in a terminal, in asciinema's form (version 2), made anew:
#
#     scripts/record.sh [FILE]         default: docs/demo.cast
#     asciinema play docs/demo.cast
#
# Needs what scripts/demo.sh needs, and asciinema, which it installs.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

file=${1:-docs/demo.cast}
need_root
need_lab
need_packages asciinema jq
need_rust
say "building"
quietly scripts/build.sh dist ferrule ferrulectl
quietly cargo build --locked --package lab

scratch=$(mktemp --directory "${TMPDIR:-/tmp}/ferrule-record.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
# What scripts/demo.sh starts in the end; its building is not worth looking at.
echo "$(target_directory)/debug/demo dist/ferrule; echo \$? >$scratch/status" >"$scratch/demo.sh"
asciinema rec --quiet --cols 120 --rows 50 --title "scripts/demo.sh" --command "bash $scratch/demo.sh" "$scratch/cast" </dev/null
[ "$(cat "$scratch/status")" = 0 ] || die "the demo failed"
# Neither this machine nor this day.
jq --compact-output 'if type == "object" then del(.timestamp, .env) else .[0] *= 1000 | .[0] |= round / 1000 end' \
    "$scratch/cast" >"$file"
say "$file: $(wc -l <"$file") lines, $(stat --format=%s "$file") bytes"
