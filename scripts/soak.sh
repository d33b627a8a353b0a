#!/usr/bin/env bash
# A node under 32 callers at once, some of them killed, its pods' namespaces removed under them, a garbage collection
# every second, its nftables flushed and its routes deleted beside it; and a check every ten seconds, by other tools
# than ferrule, that no address is held twice, that none is lost, and that kernel and store agree.
#
#     scripts/soak.sh [--callers N] [--seed N] [--plugin FILE] [MINUTES]      default: 32 callers, 10 minutes
#     scripts/soak.sh --size [--quick] [--plugin FILE]
#
#   --size         instead: what a call costs on a node with 4,000 pods, among 20,000 routes of others, or with 5,000
#                  peers, against the same call on an empty node
#   --plugin FILE  a ferrule that is built already
#
# A line every ten seconds: calls of each kind in these seconds, what was done to them, what is open at that quiet
# moment, the most memory of a call, median and p99 of the time of ADD and DEL. Exit status 1 if anything is not as it
# must be, with what came before. A failure is told with its seed.
#
# Runs as root on a Debian with Rust. Everything happens in network, mount and process namespaces of its own, which end
# with the program, and in one directory that is removed whatever happens.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

usage="usage: scripts/soak.sh [--callers N] [--seed N] [--plugin FILE] [MINUTES] | --size [--quick] [--plugin FILE]"
options=() size='' plugin=''
while (($#)); do
    case $1 in
        --callers | --seed) options+=("$1" "${2:?$usage}") && shift ;;
        --plugin) plugin=$(realpath "${2:?$usage}") && shift ;;
        --size) size=full ;;
        --quick) size=quick ;;
        [0-9]* | .[0-9]*) options+=(--minutes "$1") ;;
        *) die "$usage" ;;
    esac
    shift
done
[ -z "$size" ] || options+=(--size "$size")

need_root
# procps has sysctl, for a vandal.
need_packages iproute2 mount nftables procps util-linux
need_rust

# /var/tmp is on a disk, as a node's /var/lib/cni is; /tmp may be memory.
work=$(mktemp --directory /var/tmp/ferrule-soak.XXXXXX)
driver=
# shellcheck disable=SC2317 # it is reached: by the trap
clean_up() {
    # The first process of a process namespace: all the others end with it, and the namespaces with them.
    [ -z "$driver" ] || kill -KILL "$driver" 2>/dev/null || true
    [ -z "$driver" ] || wait "$driver" 2>/dev/null || true
    # One that is still dying may have made a file meanwhile.
    rm -rf "$work" || { sleep 1; rm -rf "$work"; }
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say "building"
if [ -z "$plugin" ]; then
    scripts/build.sh "$work/bin" ferrule
    plugin=$work/bin/ferrule
fi
cc -O2 -static -o "$work/peak" benches/peak.c
cargo build --locked --package soak
built=$(target_directory)

# In the background, because bash runs a trap only between two commands, and `wait` is one that a signal ends.
unshare --net --mount --pid --fork --kill-child --mount-proc "$built/debug/soak" "$work" "$plugin" "${options[@]}" &
driver=$!
status=0
wait "$driver" || status=$?
driver=
exit "$status"
