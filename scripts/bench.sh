#!/usr/bin/env bash
# What a pod waits for, measured: ferrule against the plugins that it can replace (ptp and bridge with host-local, as
# the distribution ships them) and against the smallest program that makes the same kernel objects (benches/floor.c).
# Then what NetworkPolicies cost: new connections with none and with many, changes, and packets through changes.
#
#     scripts/bench.sh [--quick] [--policies] [--tsv FILE]
#
#   --quick      a few rounds each, to see that everything runs
#   --policies   only what NetworkPolicies cost
#   --tsv FILE   writes the medians there as well, for scripts/plot.sh
#
# All in one run and in turns, so that whatever else the machine does hits all alike; compare the ratios, not the
# milliseconds of two machines. Nothing is asserted about time. Everything happens in network and mount namespaces of
# its own, which end with the program, and in one directory that is removed whatever happens.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

options=() tsv='' plugins=yes
while (($#)); do
    case $1 in
        --quick) options+=("$1") ;;
        --policies) plugins='' ;;
        --tsv)
            tsv=${2:?--tsv needs a file}
            shift
            ;;
        *) die "usage: scripts/bench.sh [--quick] [--policies] [--tsv FILE]" ;;
    esac
    shift
done

need_root
need_packages iproute2 containernetworking-plugins e2fsprogs mount nftables util-linux
need_rust

# /var/tmp is on a disk, as a node's /var/lib/cni is; /tmp may be memory. The bench makes a file system in it.
work=$(mktemp --directory /var/tmp/ferrule-bench.XXXXXX)
driver=
# shellcheck disable=SC2317 # it is reached: by the trap
clean_up() {
    # Its own process group: the plugins that are running end with it.
    [ -z "$driver" ] || kill -KILL -- "-$driver" 2>/dev/null || true
    [ -z "$driver" ] || wait "$driver" 2>/dev/null || true
    # One that is still dying may have made a file meanwhile.
    rm -rf "$work" || { sleep 1; rm -rf "$work"; }
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# measure PROGRAM ARGUMENT...: in namespaces that end with it. In the background, because bash runs a trap only between
# two commands, and `wait` is one that a signal ends.
measure() {
    local status=0
    setsid unshare --net --mount "$@" "${options[@]}" ${tsv:+--tsv "$work/tsv"} &
    driver=$!
    wait "$driver" || status=$?
    driver=
    [ -z "$tsv" ] || [ ! -e "$work/tsv" ] || cat "$work/tsv" >>"$work/all"
    rm -f "$work/tsv"
    return "$status"
}

say "building"
built=$(target_directory)
status=0
if [ "$plugins" ]; then
    scripts/build.sh "$work/bin" ferrule
    cc -O2 -static -o "$work/floor" benches/floor.c
    cc -O2 -static -o "$work/peak" benches/peak.c
    cargo build --release --locked --package bench
    version=$(dpkg-query --show --showformat='${Version}' containernetworking-plugins)
    measure "$built/release/bench" "$work" /usr/lib/cni "$version" || status=$?
fi
# As the agent is built.
cargo build --profile agent --locked --package bench-policies
# What it mounts there is seen by nobody else, and nothing of it stays.
# shellcheck disable=SC2016 # that shell expands them
hide_netns='mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && exec "$0" "$@"'
measure sh -c "$hide_netns" "$built/agent/bench-policies" || status=$?
# Each has a line of headings.
[ ! -e "$work/all" ] || awk 'NR == 1 || $0 != first { print } NR == 1 { first = $0 }' "$work/all" >"$tsv"
exit "$status"
