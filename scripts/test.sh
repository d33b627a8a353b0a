#!/usr/bin/env bash
# Everything that is tested, in one command, from a bare Debian with Rust:
#
#     scripts/test.sh [--again]
#
# Runs as root, because the tests make network namespaces and run containerd in them. What is missing is installed
# from the distribution. This machine's own network is left alone. Each part runs even if one before it failed; the
# summary at the end tells which did, and so does the exit status: 0 if all passed, 1 if any failed.
#
# --again, for a machine that others use as well: a part that failed is asked once more, of the tests those that failed.
# What passes then counts as passed, and the summary says so.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh

again=
case $* in
    "") ;;
    --again) again=yes ;;
    *) die "usage: scripts/test.sh [--again]" ;;
esac
need_root
PATH=$PATH:${HOME:-/root}/.cargo/bin
command -v cargo >/dev/null || die "needs Rust: no cargo in PATH"
# containerd may be here from elsewhere than Debian, and Debian's would replace it.
command -v containerd >/dev/null || need_packages containerd
command -v runc >/dev/null || need_packages runc
# Readers that are not the code under test, and the plugins that the same cases run against.
need_packages iproute2 iperf3 nftables iptables iputils-ping util-linux strace jq busybox-static containernetworking-plugins \
    conntrack procps python3-minimal
# The tools of this script itself.
need_packages shellcheck binutils
need_linker

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
    chroot "$scratch/root" /ferrule --version && chroot "$scratch/root" /ferruled --version
}

# How many lines of the tests' output are like that.
count() { grep -c "$1" "$scratch/tests" || true; }

# All tests; the second time those that failed, if it got as far as to know them.
test_everything() {
    local status=0 names=()
    [ ! -s "$scratch/failed" ] || mapfile -t names <"$scratch/failed"
    subject=${names[*]}
    cargo test --workspace --features ferrule/agent --locked --no-fail-fast -- \
        ${names:+--exact "${names[@]}"} 2>&1 | tee "$scratch/tests" || status=$?
    grep '^test result' "$scratch/tests" >>"$scratch/results" || true
    # A name that nothing answers to has not passed.
    [ "$(count '^test .* \.\.\. ok$')" -ge "${#names[@]}" ] || status=1
    sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$scratch/tests" >"$scratch/failed"
    # One that ended without a result says nothing of its tests.
    [ "$(count '^    `-p ')" -eq "$(count '^test result: FAILED')" ] || : >"$scratch/failed"
    return "$status"
}

# Some executions of each target, to see that every promise still holds; many find more (docs/TESTING.md).
fuzz_briefly() {
    local status=0
    scripts/fuzz.sh 20000 || status=$?
    [ "$status" -eq 3 ] || return "$status"
    skipped+=("fuzzing: no nightly Rust can be had; each corpus was read once, by a stable one")
}

part "scripts" shellcheck --external-sources scripts/*.sh .ci/run
part "formatting, clippy" scripts/check.sh --without-tests
if cargo deny --version >/dev/null 2>&1; then
    # Advisories come from the network, and change without us: they are for a person to look at.
    part "licences and sources" cargo deny --locked check licenses bans sources
else
    # It takes many minutes to build. The tests hold the same rules (tests/security/packages.rs).
    skipped+=("cargo deny: not installed (cargo install cargo-deny)")
fi
part "static binaries" build_and_run_alone
part "all tests" test_everything
part "fuzzing, briefly" fuzz_briefly
# Half a minute of what is run for hours by hand.
part "soak" scripts/soak.sh --plugin "$scratch/root/ferrule" --callers 8 0.5

say ""
say "== summary"
# cargo's own lines once more: hundreds of lines may lie between them.
if [ -s "$scratch/results" ]; then cat "$scratch/results" >&2; else say "no test ran"; fi
for line in "${passed[@]}"; do say "passed   $line"; done
for line in "${skipped[@]}"; do say "skipped  $line"; done
for line in "${repeated[@]}"; do say "AGAIN    $line: failed once, passed when asked once more"; done
for line in "${failed[@]}"; do say "FAILED   $line"; done
[ "${#failed[@]}" -eq 0 ]
