#!/usr/bin/env bash
# Runs a command in this checkout on a machine that has nothing but the smallest Debian, git and Rust:
#
#     scripts/bare-root.sh [--suite NAME] COMMAND [ARGUMENT...]       for example: scripts/bare-root.sh scripts/demo.sh
#
# What a script here needs and does not ask for is missing there, and seen. The root is made by debootstrap
# (--variant=minbase), once for each suite (default: bookworm): an archive of it stays below
# ${XDG_CACHE_HOME:-/var/cache}/ferrule, and so do the packages that were downloaded. The checkout is cloned into it, so
# that what is not committed is not there. Rust is the one of this machine (~/.rustup, read-only, and ~/.cargo/bin), and
# so are apt's sources, proxies and certificate authorities, and the crates that cargo has downloaded.
#
# The command runs in mount, process, host name and IPC namespaces of its own, behind pivot_root, with /run, /tmp,
# /proc and /dev/shm of its own. It sees this machine's network, /sys and other devices. Exit status: that of the
# command. The root is removed whatever happens, and all processes in it end with the command.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh

usage="usage: scripts/bare-root.sh [--suite NAME] COMMAND [ARGUMENT...]"
suite=bookworm
if [ "${1:-}" = --suite ]; then
    suite=${2:?$usage}
    shift 2
fi
case ${1:--} in -*) die "$usage" ;; esac

need_root
need_packages debian-archive-keyring debootstrap git mount util-linux

cache=${XDG_CACHE_HOME:-/var/cache}/ferrule
rustup=${RUSTUP_HOME:-${HOME:-/root}/.rustup} cargo=${CARGO_HOME:-${HOME:-/root}/.cargo}
[ -x "$cargo/bin/rustup" ] || die "needs Rust as rustup installs it: no $cargo/bin/rustup"

# Where this machine's apt gets Debian from.
mirror() {
    local found
    found=$({
        sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/*.sources
        sed -n 's/^deb  *\(\[[^]]*\]  *\)\?\([^ ]*\) .*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list
    } 2>/dev/null | grep --max-count 1 '/debian/*$') || true
    echo "${found:-http://deb.debian.org/debian}"
}

archive=$cache/$suite-$(dpkg --print-architecture).tar
root='' inside=''
# shellcheck disable=SC2317 # it is reached: by the trap
clean_up() {
    # The first process of a process namespace: all the others end with it, and the mounts with them.
    [ -z "$inside" ] || kill -KILL "$inside" 2>/dev/null || true
    [ -z "$inside" ] || wait "$inside" 2>/dev/null || true
    # One that is still dying may have made a file meanwhile.
    [ -z "$root" ] || rm -rf --one-file-system "$root" || { sleep 1; rm -rf --one-file-system "$root"; }
}
# The command is asked to end, because it may have something to remove that no namespace takes along: cgroups.
# shellcheck disable=SC2317 # it is reached: by the trap
stop() {
    local first
    if [ -n "$inside" ] && read -r first _ <"/proc/$inside/task/$inside/children"; then
        kill -TERM "$first"
        for _ in {1..300}; do
            [ -e "/proc/$first" ] || break
            sleep 0.1
        done
    fi
    exit "$1"
}
trap clean_up EXIT
trap 'stop 130' INT
trap 'stop 143' TERM HUP

# /var/tmp is on a disk, as a machine's root is; /tmp may be memory.
root=$(mktemp --directory /var/tmp/ferrule-bare.XXXXXX)
chmod 755 "$root"
mkdir -p "$cache/packages/partial"
if [ ! -e "$archive" ]; then
    say "debootstrap of $suite (once)"
    quietly debootstrap --variant=minbase --include=ca-certificates,git "$suite" "$root" "$(mirror)"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    # Complete or not there, whatever happens and whoever does the same at the same time.
    tar --create --file "$archive.$$" --directory "$root" --numeric-owner .
    mv "$archive.$$" "$archive"
else
    tar --extract --file "$archive" --directory "$root" --numeric-owner --same-permissions
fi

# The root reaches registries as this machine does. Its list of sources is the one that debootstrap wrote.
for path in /etc/resolv.conf /etc/hosts /etc/ssl/certs /usr/local/share/ca-certificates; do
    [ ! -e "$path" ] || cp --recursive --dereference --remove-destination --no-target-directory "$path" "$root$path"
done
grep --recursive --files-with-matches --null --extended-regexp '^ *Acquire::(https?|ftp|Check|Force|Retries)' /etc/apt/apt.conf.d |
    xargs --null --no-run-if-empty cp --target-directory "$root/etc/apt/apt.conf.d" || true

mkdir -p "$root/root/.rustup" "$root/root/.cargo/registry" "$cargo/registry"
cp --archive "$cargo/bin" "$root/root/.cargo/"
for name in config config.toml; do
    [ ! -e "$cargo/$name" ] || cp "$cargo/$name" "$root/root/.cargo/"
done

git clone --quiet --no-hardlinks . "$root/root/ferrule"
[ -z "$(git status --porcelain)" ] || say "not there, because it is not committed: $(git status --porcelain | wc -l) files"

# The first process: makes the root, goes there, and reaps what the command leaves behind.
# shellcheck disable=SC2016 # expanded by the inner shell
enter='
set -eu
root=$1 rustup=$2 registry=$3 packages=$4
shift 4
mount --bind "$root" "$root"
cd "$root"
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc proc proc
for directory in run tmp dev/shm; do mount -t tmpfs -o mode=1777 tmpfs "$directory"; done
chmod 755 run
mkdir run/lock
mount --bind "$rustup" root/.rustup
mount -o remount,bind,ro root/.rustup
mount --bind "$registry" root/.cargo/registry
mount --bind "$packages" var/cache/apt/archives
mkdir run/before
pivot_root . run/before
cd /root/ferrule
umount --lazy /run/before
rmdir /run/before
hostname bare
trap "kill -TERM \"\$command\" 2>/dev/null" TERM
"$@" <&0 &
command=$!
while status=0; wait "$command" || status=$?; kill -0 "$command" 2>/dev/null; do :; done
exit "$status"
'

# Nothing of this session but what reaches a registry: a bare machine has no other settings.
environment=(HOME=/root USER=root LANG=C.UTF-8 TERM="${TERM:-dumb}" DEBIAN_FRONTEND=noninteractive
    PATH=/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
for name in {http,https,ftp,all,no}_proxy {HTTP,HTTPS,FTP,ALL,NO}_PROXY SSL_CERT_FILE SSL_CERT_DIR CARGO_HTTP_CAINFO \
    CARGO_NET_OFFLINE RUSTUP_AUTO_INSTALL RUSTUP_DIST_SERVER RUSTUP_UPDATE_ROOT; do
    [ -z "${!name:-}" ] || environment+=("$name=${!name}")
done

# In the background, because bash runs a trap only between two commands, and `wait` is one that a signal ends. What runs
# in the background is deaf to SIGINT, unless told.
env --ignore-environment --default-signal=INT,QUIT "${environment[@]}" \
    unshare --mount --pid --fork --kill-child --uts --ipc \
    bash -c "$enter" bare "$root" "$rustup" "$cargo/registry" "$cache/packages" "$@" <&0 &
inside=$!
status=0
wait "$inside" || status=$?
inside=
exit "$status"
