# shellcheck shell=bash
# What the scripts here share: getting what they need onto a bare Debian machine. Sourced, not run:
#
#     set -euo pipefail
#     cd "$(dirname "$0")/.."
#     . scripts/debian.sh
#     need_root                              # ends with a message unless we are root
#     need_packages iproute2 busybox-static  # installs those that dpkg lacks; says nothing if it lacks none
#     need_linker                            # what cargo cannot do without: a C compiler to link with
#     need_lab                               # what the nodes of tests/lab are made of
#     say "building"                         # a line of progress, on stderr
#     die "no such node"                     # the same, and exit 1
#
# The package lists are fetched at most once per script, and only if something is missing; nothing is ever upgraded
# or removed. Someone who is not root is told what to install instead. Works with `set -euo pipefail`.

say() { printf '%s\n' "$*" >&2; }

die() { say "${0##*/}: $*"; exit 1; }

need_root() { [ "$(id -u)" -eq 0 ] || die "needs root: it makes network namespaces"; }

package_is_installed() {
    # "config-files" is what a removed package leaves behind, so presence in the database is not enough.
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

need_packages() {
    local missing=() package
    for package in "$@"; do
        package_is_installed "$package" || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "not a Debian: please install what its packages ${missing[*]} hold"
    [ "$(id -u)" -eq 0 ] || die "please install: apt-get install ${missing[*]}"

    say "installing ${missing[*]}"
    if [ -z "${package_lists_are_fresh:-}" ]; then
        patiently apt-get update
        package_lists_are_fresh=yes
    fi
    patiently env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
}

# Binaries are linked statically, so libc is needed as an archive too.
need_linker() {
    command -v cc >/dev/null || need_packages gcc libc6-dev
    [ "$(cc -print-file-name=libc.a)" != libc.a ] || need_packages libc6-dev
}

# What a node of tests/lab is made of, and what looks at it from inside; procps has kill, which a shell has built in but
# nobody else.
need_lab() {
    # containerd may be here from elsewhere than Debian, and Debian's would replace it.
    command -v containerd >/dev/null || need_packages containerd
    command -v runc >/dev/null || need_packages runc
    need_packages busybox-static containernetworking-plugins iproute2 mount nftables procps util-linux
}

# Runs an apt-get, for at most five minutes once more while somebody else holds one of its locks.
patiently() {
    local output end=$((SECONDS + 300))
    until output=$("$@" 2>&1 </dev/null); do
        [[ $output == *"Could not get lock"* && $SECONDS -lt $end ]] || die "$* failed:
$output"
        sleep 1
    done
}

# Runs a command whose output matters only if it fails.
quietly() {
    local output
    output=$("$@" 2>&1 </dev/null) || die "$* failed:
$output"
}
