#!/usr/bin/env bash
# Three nodes, six pods, everybody reaches everybody, a hostPort, masquerade, a pod that lies, and what ferrule says of a
# node: ferrule at work under real containerd, on one machine.
#
#     scripts/demo.sh [--keep] [--plugin ptp]
#
#   --keep         leave the nodes running, and say how to look around and how to remove them
#   --plugin ptp   the reference plugins instead of ferrule, to compare with
#
# Runs as root on a Debian with Rust. What it lacks it installs from the distribution; what it makes it removes, also
# after a failure or Ctrl-C. The nodes are namespaces: this machine's own network is left alone. Exit status 1 if
# anything is not as promised.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

keep=() plugin=ferrule
while (($#)); do
    case $1 in
        --keep) keep=(--keep) ;;
        --plugin) plugin=${2:-} && shift ;;
        *) plugin= ;;
    esac
    shift || plugin=
done
case $plugin in
    ferrule | ptp) ;;
    *) die "usage: scripts/demo.sh [--keep] [--plugin ptp]" ;;
esac

[ "$(id -u)" -eq 0 ] || die "needs root: it runs containers; try sudo"
need_lab
need_rust

# Somebody who watches sees cargo's progress.
build() { if [ -t 2 ]; then "$@"; else quietly "$@"; fi; }

say "building (the first time takes a minute or two)"
if [ "$plugin" = ferrule ]; then
    build scripts/build.sh dist ferrule
    order=(dist/ferrule)
else
    order=(--plugin ptp)
fi
build cargo build --locked --package lab
exec "$(target_directory)/debug/demo" "${keep[@]}" "${order[@]}"
