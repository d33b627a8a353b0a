#!/usr/bin/env bash
# What a pod waits for, measured: ferrule against the plugins that it can replace (ptp and bridge with host-local, as
# the distribution ships them) and against the smallest program that makes the same kernel objects (benches/floor.c).
# Then what NetworkPolicies cost: new connections with none and with many, changes, and packets through changes.
#
#     scripts/bench.sh [--quick] [--policies | --api] [--tsv FILE]
#
#   --quick      a few rounds each, to see that everything runs
#   --policies   only what NetworkPolicies cost
#   --api        only what agents cost an API server. ETCD and KUBE_APISERVER name the programs; without them nothing is
#                measured, and the exit status is 3. BASELINE names a ferruled of another version, to compare with
#   --tsv FILE   writes the medians there as well, for scripts/plot.sh
#
# All in one run and in turns, so that whatever else the machine does hits all alike; compare the ratios, not the
# milliseconds of two machines. Nothing is asserted about time. Everything happens in network and mount namespaces of
# its own, which end with the program, and in one directory that is removed whatever happens.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

options=() tsv='' plugins=yes policies=yes api=''
while (($#)); do
    case $1 in
        --quick) options+=("$1") ;;
        --policies) plugins='' ;;
        --api) plugins='' policies='' api=yes ;;
        --tsv)
            tsv=${2:?--tsv needs a file}
            shift
            ;;
        *) die "usage: scripts/bench.sh [--quick] [--policies | --api] [--tsv FILE]" ;;
    esac
    shift
done

need_root
if [ "$api" ]; then
    for program in "${ETCD:=etcd}" "${KUBE_APISERVER:=kube-apiserver}"; do
        command -v "$program" >/dev/null || {
            say "no $program: name etcd and kube-apiserver by ETCD and KUBE_APISERVER"
            exit 3
        }
    done
    export ETCD KUBE_APISERVER
    need_packages openssl
fi
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
# What it mounts is seen by nobody else, and nothing of it stays.
# shellcheck disable=SC2016 # that shell expands it
hide() { printf 'mkdir -p %s && mount -t tmpfs tmpfs %s && mkdir -p /run/netns && exec "$0" "$@"' "$1" "$1"; }
# As the agent is built.
if [ "$policies" ]; then
    cargo build --profile agent --locked --package bench-policies
    measure sh -c "$(hide /run/netns)" "$built/agent/bench-policies" || status=$?
fi
if [ "$api" ]; then
    cargo build --profile agent --locked --package bench-api --package ferrule --features ferrule/agent \
        --bin bench-api --bin ferruled
    agents=(${BASELINE:+--agent before "$BASELINE"} --agent now "$built/agent/ferruled")
    # Secrets of agents are below /run as well.
    measure sh -c "$(hide /run)" "$built/agent/bench-api" "$work" "${agents[@]}" || status=$?
fi
# Each has a line of headings.
[ ! -e "$work/all" ] || awk 'NR == 1 || $0 != first { print } NR == 1 { first = $0 }' "$work/all" >"$tsv"
exit "$status"
