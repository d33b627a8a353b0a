#!/usr/bin/env bash
# Packs a directory so that equal files give equal bytes: no names of users, no times but the commit's, in order.
#
#     scripts/archive.sh DIR FILE.tar.gz
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: scripts/archive.sh DIR FILE.tar.gz" >&2; exit 1; }

# By https://reproducible-builds.org/specs/source-date-epoch/; a checkout without git says it itself.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$(dirname "$0")" log -1 --format=%ct)}
tar --create --directory "$1" --sort name --owner 0 --group 0 --numeric-owner --mode u+w,go-w,a+rX \
    --mtime "@$SOURCE_DATE_EPOCH" --format ustar . | gzip --no-name -9 >"$2"
