#!/usr/bin/env bash
# A real Kubernetes cluster on this machine whose network is ferrule, by kind:
#
#     scripts/kind.sh up [--family ipv4|ipv6|dual] [--proxy iptables|nftables] [--workers N]
#                                                  a cluster from conf/kind.yaml with the ferrule of this checkout
#     scripts/kind.sh test [--list] [--again] [--long] [NAME...]
#                                                  the cluster tests, all or those named; --again: those that fail twice;
#                                                  --long: the attacks go on for minutes instead of seconds
#     scripts/kind.sh down                         removes what the other two made
#
# Needs kind, kubectl and docker in PATH, and Rust. E2E_DIR names a directory with Kubernetes' e2e.test and ginkgo, whose
# network tests are run then as well; HELM names helm, which then installs, upgrades and removes the chart.
# KIND_NODE_IMAGE names the node image (default: kind's own), KIND_CLUSTER_NAME the cluster (default: ferrule), KUBECONFIG
# where its credentials go, as kind does it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

usage() { die "usage: scripts/kind.sh up [--family ipv4|ipv6|dual] [--proxy iptables|nftables] [--workers N]
       scripts/kind.sh test [--list] [--again] [--long] [NAME...]
       scripts/kind.sh down"; }

export KIND_CLUSTER_NAME=${KIND_CLUSTER_NAME:-ferrule}
image=ferrule:$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)

need_tools() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || die "needs $tool in PATH"
    done
    docker version >/dev/null 2>&1 || die "needs a docker daemon that answers: see what \`docker version\` says"
}

k() { kubectl --context "kind-$KIND_CLUSTER_NAME" "$@"; }

# step TEXT COMMAND...: says how long it took; what the command said, only if it failed or somebody watches.
step() {
    local text=$1 start tenths
    shift
    start=$(date +%s%N)
    if [ -t 2 ]; then "$@" >&2; else quietly "$@"; fi
    tenths=$((($(date +%s%N) - start) / 100000000))
    say "$(printf '%5d.%d s  %s' $((tenths / 10)) $((tenths % 10)) "$text")"
}

# conf/kind.yaml with what was asked for in its place.
config() {
    local family=$1 proxy=$2 workers=$3
    sed -e "s/^  ipFamily: .*/  ipFamily: $family/" -e "s/^  kubeProxyMode: .*/  kubeProxyMode: $proxy/" \
        -e '/^- role: worker/d' conf/kind.yaml
    for ((; workers > 0; workers--)); do echo '- role: worker'; done
}

create() {
    config "$@" | kind create cluster --name "$KIND_CLUSTER_NAME" --config - \
        ${KIND_NODE_IMAGE:+--image "$KIND_NODE_IMAGE"}
}

# `kind create` returns before the last node has registered.
note_nodes() {
    mapfile -t nodes < <(kind get nodes --name "$KIND_CLUSTER_NAME" | sed 's|^|node/|')
    k wait --for=create "${nodes[@]}" --timeout=120s
    remove_loopback
    run_tests --note-nodes
}

all_are_ready() {
    k wait --for=condition=Ready nodes --all --timeout=180s
    k --namespace kube-system rollout status daemonset/ferrule --timeout=120s
}

# kind's nodes have a plugin `loopback`, and others' have none: the network has to bring it.
remove_loopback() {
    local node
    for node in "${nodes[@]#node/}"; do
        docker exec "$node" rm -f /opt/cni/bin/loopback
    done
}

# What went wrong is said by those who did it.
diagnose() {
    say "== nodes, pods of kube-system, and what the agents say"
    k get nodes --output wide >&2 || true
    k --namespace kube-system get pods --output wide >&2 || true
    k --namespace kube-system logs --selector app.kubernetes.io/name=ferrule --prefix --tail 20 >&2 || true
}

# With the program of users, which the tests run here.
build_tests() {
    cargo build --locked --package cluster
    cargo build --locked --package ferrule --features "$features" --bin kubectl-ferrule
}

run_tests() {
    "$(target_directory)/debug/cluster" "$@"
}

up() {
    local family=dual proxy=iptables workers=2 start
    while (($#)); do
        case $1 in
            --family) family=${2:-} ;;
            --proxy) proxy=${2:-} ;;
            --workers) workers=${2:-} ;;
            *) usage ;;
        esac
        shift
        shift || usage
    done
    [[ $family =~ ^(ipv4|ipv6|dual)$ && $proxy =~ ^(iptables|nftables)$ && $workers =~ ^[0-9]+$ ]] || usage
    need_tools kind kubectl docker
    need_rust

    step "binaries built" scripts/build.sh dist
    step "image $image" docker build --tag "$image" --file deploy/Containerfile \
        --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" dist
    step "tests built" build_tests
    start=$SECONDS
    step "cluster $KIND_CLUSTER_NAME created ($family, kube-proxy by $proxy, $workers workers)" \
        create "$family" "$proxy" "$workers"
    # The last of the tests compares with this.
    step "what the nodes have before, noted" note_nodes
    step "image loaded" kind load docker-image "$image" --name "$KIND_CLUSTER_NAME"
    step "deploy/ferrule.yaml applied" k apply --filename deploy/ferrule.yaml
    trap diagnose EXIT
    step "all nodes Ready, all agents too" all_are_ready
    trap - EXIT
    say "$(printf '%5d   s  from kind create to all nodes Ready' "$((SECONDS - start))")"
}

test_cluster() {
    need_tools kubectl docker
    need_rust
    quietly build_tests
    run_tests "$@"
}

down() {
    need_tools kind docker
    docker ps --all --quiet --filter "label=ferrule.cluster=$KIND_CLUSTER_NAME" | xargs --no-run-if-empty docker rm --force >/dev/null
    kind delete cluster --name "$KIND_CLUSTER_NAME"
    docker image rm --force "$image" >/dev/null 2>&1 || true
}

case ${1:-} in
    up) shift && up "$@" ;;
    test) shift && test_cluster "$@" ;;
    down) [ $# -eq 1 ] || usage && down ;;
    *) usage ;;
esac
