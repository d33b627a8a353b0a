#!/usr/bin/env bash
# Writes the manifest of a release for krew, by which `kubectl krew install --manifest` installs kubectl-ferrule:
#
#     scripts/krew.sh OWNER/REPOSITORY TAG DIR >krew.yaml
#
# DIR has the archives kubectl-ferrule-TAG-linux-{amd64,arm64}.tar.gz, as scripts/archive.sh packs them.
set -euo pipefail
[ $# -eq 3 ] || { echo "usage: scripts/krew.sh OWNER/REPOSITORY TAG DIR" >&2; exit 1; }

checksum() { sha256sum "$3/kubectl-ferrule-$2-linux-$1.tar.gz" | cut --delimiter ' ' --fields 1; }

amd64=$(checksum amd64 "$2" "$3")
arm64=$(checksum arm64 "$2" "$3")
sed --expression "s|\$REPOSITORY|$1|g" --expression "s|\$TAG|$2|g" --expression "s|\$SHA256_AMD64|$amd64|" \
    --expression "s|\$SHA256_ARM64|$arm64|" "$(dirname "$0")/../deploy/krew/ferrule.yaml"
