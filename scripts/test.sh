#!/usr/bin/env bash
# What is tested, in one command, from a bare Debian with Rust:
#
#     scripts/test.sh [--all] [--again]
#
#   (nothing)      what a change can break: scripts/check.sh, static binaries, tests on the real kernel and containerd
#   --all          also what takes minutes: every system call fails once, records rot, random sequences against a model,
#                  the lab itself, fuzzing, soak. This is what CI runs.
#   --again        for a machine that others use as well: a part that failed is asked once more, of the tests those that
#                  failed. What passes then counts as passed, and the summary names it.
#
# Runs as root, because the tests make network namespaces and run containerd in them. What is missing is installed
# from the distribution. This machine's own network is left alone. Each part runs even if one before it failed; the
# summary at the end tells which did, and so does the exit status: 0 if all passed, 1 if any failed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

all='' again=''
for argument in "$@"; do
    case $argument in
        --all) all=yes ;;
        --again) again=yes ;;
        *) die "usage: scripts/test.sh [--all] [--again]" ;;
    esac
done
need_root
need_lab
# Readers that are not the code under test, and what attackers, other plugins and command lines of the documents use.
need_packages conntrack gnuplot-nox iperf3 iptables iputils-ping jq python3-minimal strace
# The tools of this script itself.
need_packages shellcheck binutils
need_rust

scratch=$(mktemp --directory "${TMPDIR:-/tmp}/ferrule-test.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

passed=() failed=() skipped=() repeated=()
# What a part that was asked once more was asked about, if it says so.
subject=
part() {
    local name=$1 start=$SECONDS
    shift
    say ""
    say "== $name: $*"
    if "$@"; then
        passed+=("$name ($((SECONDS - start)) s)")
    elif [ -n "$again" ] && say "== $name, once more: $*" && "$@"; then
        passed+=("$name ($((SECONDS - start)) s)")
        repeated+=("$name${subject:+: $subject}")
    else
        failed+=("$name ($((SECONDS - start)) s)")
    fi
    subject=
}

# build.sh refuses a binary that asks for a loader; the kernel is asked as well, where nothing else exists.
build_and_run_alone() {
    scripts/build.sh "$scratch/root" || return
    local binary
    for binary in "${binaries[@]}"; do
        chroot "$scratch/root" "/$binary" --version || return
    done
}

# How many lines of the tests' output are like that.
count() { grep -c "$1" "$scratch/tests" || true; }

# The tests of this tier; the second time those that failed, if it got as far as to know them.
test_everything() {
    local status=0 names=() packages=() filters=()
    [ ! -s "$scratch/failed" ] || mapfile -t names <"$scratch/failed"
    subject=${names[*]}
    if [ -n "$subject" ]; then
        filters=(--exact "${names[@]}")
    elif [ -z "$all" ]; then
        mapfile -t packages < <(printf -- '--exclude=%s\n' "${slow_packages[@]}")
        mapfile -t filters < <(printf -- '--skip=%s\n' "${slow_tests[@]}")
    fi
    cargo test --workspace "${packages[@]}" --features "$features" --locked --no-fail-fast -- \
        "${filters[@]}" 2>&1 | tee "$scratch/tests" || status=$?
    grep '^test result' "$scratch/tests" >>"$scratch/results" || true
    # A name that nothing answers to has not passed.
    [ "$(count '^test .* \.\.\. ok$')" -ge "${#names[@]}" ] || status=1
    sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$scratch/tests" >"$scratch/failed"
    # One that ended without a result says nothing of its tests.
    [ "$(count '^    `-p ')" -eq "$(count '^test result: FAILED')" ] || : >"$scratch/failed"
    return "$status"
}

# unless_missing WHAT COMMAND...: whose exit status 3 says that it lacks something which cannot be had here.
unless_missing() {
    local what=$1 status=0
    shift
    "$@" || status=$?
    [ "$status" -eq 3 ] || return "$status"
    skipped+=("$what")
}

# Some executions of each target, to see that every promise still holds; many find more (docs/adversarial.md).
fuzz_briefly() {
    unless_missing "fuzzing: no nightly Rust can be had; each corpus was read once, by a stable one" \
        scripts/fuzz.sh 20000
}

bench_briefly() {
    scripts/bench.sh --quick --tsv "$scratch/bench.tsv" && scripts/plot.sh "$scratch/bench.tsv" "$scratch/bench.svg" &&
        scripts/plot.sh --policies "$scratch/bench.tsv" "$scratch/policies.svg"
}

part "scripts" shellcheck --external-sources scripts/*.sh .ci/run
part "formatting, clippy" scripts/check.sh --without-tests
part "static binaries" build_and_run_alone
part "alerts" scripts/alerts.sh
part "workflows" unless_missing "workflows: actionlint cannot be had; only the pins were checked" scripts/workflows.sh
part "chart" unless_missing "chart: helm, kustomize or kubeconform cannot be had; only its copies were compared" \
    scripts/chart.sh
part "tests" test_everything
if [ -n "$all" ]; then
    part "fuzzing, briefly" fuzz_briefly
    # Half a minute of what is run for hours by hand.
    part "soak" scripts/soak.sh --plugin "$scratch/root/ferrule" --callers 8 0.5
    # That these two run; what they measure is for a quiet machine.
    part "size, briefly" scripts/soak.sh --plugin "$scratch/root/ferrule" --size --quick
    part "bench, briefly" bench_briefly
    part "API server's bench, briefly" unless_missing "bench of the API server: no etcd or kube-apiserver" \
        scripts/bench.sh --api --quick
else
    skipped+=("${slow_tests[*]} ${slow_packages[*]} fuzzing soak bench: scripts/test.sh --all runs them")
fi

say ""
say "== summary"
# cargo's own lines once more: hundreds of lines may lie between them.
if [ -s "$scratch/results" ]; then cat "$scratch/results" >&2; else say "no test ran"; fi
for line in "${passed[@]}"; do say "passed   $line"; done
for line in "${skipped[@]}"; do say "skipped  $line"; done
for line in "${repeated[@]}"; do say "AGAIN    $line: failed once, passed when asked once more"; done
for line in "${failed[@]}"; do say "FAILED   $line"; done
[ "${#failed[@]}" -eq 0 ]
