#!/usr/bin/env bash
# A kind cluster with kind's own network, kindnet (ptp, host-local and portmap), that moves to ferrule under its running pods
# by `kubectl ferrule migrate`:
#
#     scripts/migrate.sh [--family ipv4|ipv6|dual] [--keep]
#
# The cluster is made for it and removed afterwards, unless --keep says otherwise; its name is ferrule-migrate, or
# KIND_CLUSTER_NAME. Needs kind, kubectl and docker in PATH, and Rust. KIND_NODE_IMAGE names the node image; SKIP_BUILD=yes
# takes the image and kubectl-ferrule as they were built before. PEER_CNI names a program for node images without kindnet: it
# gets the cluster's name, and gives the nodes a network of that kind by itself, without a DaemonSet.
#
# What must hold: every pod of before has its address, its uid and no restart, and is reached all the time; no node is
# NotReady for a moment; new pods come by ferrule on every node, reach the old ones and are reached by them, with addresses
# that nobody has; the same command again has nothing to do; and the old pods go as pods do, with kindnet's DaemonSet gone.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/workspace.sh

usage() { die "usage: scripts/migrate.sh [--family ipv4|ipv6|dual] [--keep]"; }

export KIND_CLUSTER_NAME=${KIND_CLUSTER_NAME:-ferrule-migrate}
image=ferrule:$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)
agnhost=registry.k8s.io/e2e-test-images/agnhost:2.53
family=dual keep=

while (($#)); do
    case $1 in
        --family) family=${2:-} && shift ;;
        --keep) keep=yes ;;
        *) usage ;;
    esac
    shift || usage
done
[[ $family =~ ^(ipv4|ipv6|dual)$ ]] || usage
for tool in kind kubectl docker jq; do
    command -v "$tool" >/dev/null || die "needs $tool in PATH"
done
need_rust

scratch=$(mktemp --directory "${TMPDIR:-/tmp}/ferrule-migrate.XXXXXX")
export KUBECONFIG=$scratch/kubeconfig
watchers=()

leave() {
    local status=$?
    for watcher in "${watchers[@]}"; do kill "$watcher" 2>/dev/null || true; done
    if [ $status != 0 ]; then
        say "== nodes, pods, and what the agents say"
        kubectl get nodes,pods --all-namespaces --output wide >&2 || true
        kubectl --namespace kube-system logs --selector app.kubernetes.io/name=ferrule --prefix --tail 20 >&2 || true
    fi
    [ -n "$keep" ] || kind delete cluster --name "$KIND_CLUSTER_NAME" >/dev/null 2>&1 || true
    [ -n "$keep" ] || rm -rf "$scratch"
}
trap leave EXIT

if [ "${SKIP_BUILD:-}" != yes ]; then
    quietly scripts/build.sh dist
    quietly docker build --tag "$image" --file deploy/Containerfile dist
    quietly cargo build --locked --package ferrule --features "$features" --bin kubectl-ferrule
fi
program=$(target_directory)/debug/kubectl-ferrule

say "a cluster with ${PEER_CNI:-kindnet} ($family)"
replaced=kube-system/kindnet without_default=false
[ -z "${PEER_CNI:-}" ] || replaced=none without_default=true
cat >"$scratch/kind.yaml" <<EOF
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: { ipFamily: $family, disableDefaultCNI: $without_default }
nodes: [{ role: control-plane }, { role: worker }, { role: worker }]
EOF
quietly kind create cluster --name "$KIND_CLUSTER_NAME" --config "$scratch/kind.yaml" \
    ${KIND_NODE_IMAGE:+--image "$KIND_NODE_IMAGE"}
[ -z "${PEER_CNI:-}" ] || quietly "$PEER_CNI" "$KIND_CLUSTER_NAME"
quietly kubectl wait --for=condition=Ready nodes --all --timeout=180s
network=$(docker exec "$KIND_CLUSTER_NAME-worker" sh -c 'cat /etc/cni/net.d/10-*.conflist' | jq --raw-output .name)
quietly kind load docker-image "$image" --name "$KIND_CLUSTER_NAME"
# What the nodes have, or may pull.
found=$(kubectl get nodes --output json | jq -r '[.items[].status.images[].names[] | select(contains("/agnhost:") and (contains("@") | not))][0] // empty')
agnhost=${found:-$agnhost}

# servers NAME PORT: a pod on every node that says its name, at that port of the node as well; 0: at none.
servers() {
    local host_port=
    [ "$2" = 0 ] || host_port=", hostPort: $2"
    kubectl apply --filename - <<EOF >&2
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: $1 }
spec:
  selector: { matchLabels: { app: $1 } }
  template:
    metadata: { labels: { app: $1 } }
    spec:
      tolerations: [{ operator: Exists }]
      terminationGracePeriodSeconds: 1
      containers:
      - name: server
        image: $agnhost
        imagePullPolicy: IfNotPresent
        args: [netexec, --http-port=8080]
        ports: [{ containerPort: 8080$host_port }]
EOF
    kubectl rollout status "daemonset/$1" --timeout=180s >&2
}

# Every pod as it is to stay: uid, addresses, restarts.
identities() {
    kubectl get pods --selector app=old --output json | jq -r '.items | sort_by(.metadata.name)[] |
        [.metadata.name, .metadata.uid, ([.status.podIPs[].ip] | join(",")), .status.containerStatuses[0].restartCount] | @tsv'
}

# all_reach_all: each pod of each server reaches each address of all of them.
all_reach_all() {
    local pods from to address
    pods=$(kubectl get pods --selector 'app in (old, new)' --output json)
    mapfile -t addresses < <(jq -r '.items[].status.podIPs[].ip' <<<"$pods")
    for from in $(jq -r '.items[].metadata.name' <<<"$pods"); do
        for address in "${addresses[@]}"; do
            to=$address:8080
            [[ $address != *:* ]] || to=[$address]:8080
            kubectl exec "$from" -- /agnhost connect "$to" --timeout=3s --protocol=tcp >/dev/null ||
                die "$from does not reach $to"
        done
    done
    [ "$(printf '%s\n' "${addresses[@]}" | sort | uniq --repeated)" = "" ] || die "an address twice: ${addresses[*]}"
}

say "pods of before"
servers old 8090
before=$(identities)
all_reach_all

say "ferrule, its agents kept off all nodes"
kubectl --namespace kube-system create configmap ferrule --from-literal=FERRULE_NETWORK="$network" >&2
mkdir "$scratch/overlay"
# kustomize takes no absolute paths.
up=$(realpath --relative-to "$scratch/overlay" .)
printf '%s\n' "resources: [$up/deploy]" "components: [$up/deploy/components/migration]" >"$scratch/overlay/kustomization.yaml"
kubectl apply --kustomize "$scratch/overlay" >&2
kubectl --namespace kube-system rollout status daemonset/ferrule --timeout=60s >&2
agents=$(kubectl --namespace kube-system get daemonset ferrule --output jsonpath='{.status.desiredNumberScheduled}')
[ "${agents:-0}" = 0 ] || die "$agents agents are on nodes that have not moved"

say "what would be done"
"$program" migrate --replaces "$replaced" --dry-run
[ "$(identities)" = "$before" ] || die "a dry run changed a pod"

# A connection a second from a pod to every other, and what the nodes say of themselves.
kubectl get nodes --watch --output json | jq --unbuffered -r '.metadata.name as $n | .status.conditions[]
    | select(.type == "Ready") | "\($n) \(.status)"' >"$scratch/nodes" &
watchers+=($!)
from=$(cut -f 1 <<<"$before" | head -1)
for address in $(cut -f 3 <<<"$before" | tr , ' '); do
    to=$address:8080
    [[ $address != *:* ]] || to=[$address]:8080
    while sleep 1; do
        kubectl exec "$from" -- /agnhost connect "$to" --timeout=3s --protocol=tcp >/dev/null 2>&1 || echo "$to" >>"$scratch/missed"
    done &
    watchers+=($!)
done

say "moving"
"$program" migrate --replaces "$replaced" --yes
sleep 5
for watcher in "${watchers[@]}"; do kill "$watcher" 2>/dev/null || true; done
watchers=()
! grep -v ' True$' "$scratch/nodes" >&2 || die "a node was not Ready"
[ ! -s "$scratch/missed" ] || die "connections that failed: $(sort "$scratch/missed" | uniq --count | tr '\n' ' ')"
[ "$(identities)" = "$before" ] || die "a pod is not as it was: $(diff <(echo "$before") <(identities))"
[ -z "$(kubectl --namespace kube-system get pods --selector app.kubernetes.io/name=ferrule-migrate --output name)" ] ||
    die "a pod of the move is left"

say "new pods"
servers new 8091
all_reach_all
"$program" inspect >&2
[ "$("$program" inspect --output json | jq '[.. | objects | select(has("importedFrom") and .importedFrom != null)] | length')" -gt 0 ] ||
    die "no pod is imported"
node=$(kubectl get nodes --output json | jq -r '.items[0].status.addresses[] | select(.type == "InternalIP") | .address' | head -1)
[[ $node != *:* ]] || node=[$node]
for port in 8090 8091; do
    docker exec "$KIND_CLUSTER_NAME-worker" curl --fail --silent --max-time 5 "http://$node:$port/hostname" >/dev/null ||
        die "port $port of a node leads to no pod"
done

say "again"
"$program" migrate --replaces "$replaced" --yes --output json >"$scratch/again.json"
jq --exit-status '[.nodes[].state] | all(. == "already")' "$scratch/again.json" >/dev/null || die "$(cat "$scratch/again.json")"

say "without the plugin of before, and without the old pods"
[ "$replaced" = none ] || kubectl --namespace kube-system delete daemonset kindnet >&2
kubectl delete daemonset old --wait >&2
kubectl wait --for=delete pod --selector app=old --timeout=120s >&2 ||
    [ -z "$(kubectl get pods --selector app=old --output name)" ] || die "old pods do not go"
all_reach_all
for node in $(kind get nodes --name "$KIND_CLUSTER_NAME"); do
    left=$(docker exec "$node" sh -c 'iptables-save -t nat; ip6tables-save -t nat' | grep -c -- '--dport 8090' || true)
    [ "$left" = 0 ] || die "$node has rules for the host port of a pod that is gone"
done
# What the plugin of before left on the nodes it may name; for people to read.
"$program" doctor >&2 || true
say "moved"
