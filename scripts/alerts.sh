#!/usr/bin/env bash
# Plays each alert of deploy/prometheus to promtool, as tests/prometheus/alerts.yaml says. promtool is taken from the
# distribution's package without installing that: it would start a server.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh

scratch=$(mktemp --directory "${TMPDIR:-/tmp}/ferrule-alerts.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

promtool=$(command -v promtool || echo target/promtool)
download() { apt-get --option APT::Sandbox::User=root download prometheus; }

if [ ! -x "$promtool" ]; then
    command -v apt-get >/dev/null || die "please install promtool (Prometheus)"
    say "getting promtool"
    # By default apt-get downloads as a user of its own, who may not write here.
    (cd "$scratch" && { download || { patiently apt-get update && download; }; }) >&2
    dpkg-deb --fsys-tarfile "$scratch"/prometheus_*.deb | tar --extract --directory "$scratch" ./usr/bin/promtool
    mkdir -p target
    install -m 0755 "$scratch/usr/bin/promtool" "$promtool"
fi

# A file of rules is what the operator's object has in `spec`.
sed -n '/^spec:/,$ { /^spec:/d; s/^  //; p; }' deploy/prometheus/rules.yaml >"$scratch/rules.yaml"
cp tests/prometheus/alerts.yaml "$scratch/"
"$promtool" check rules "$scratch/rules.yaml"
"$promtool" test rules "$scratch/alerts.yaml"
sed -n 's/^ *- alert: //p' deploy/prometheus/rules.yaml | while read -r alert; do
    grep -q "alertname: $alert\$" "$scratch/alerts.yaml" || die "nothing fires $alert"
done
