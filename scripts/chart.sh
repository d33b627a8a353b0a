#!/usr/bin/env bash
# The Helm chart, deploy/chart/ferrule, against the manifests that it is made from, and both against the programs that
# read them:
#
#     scripts/chart.sh --write    lays deploy/base and deploy/prometheus into the chart: after each change there
#     scripts/chart.sh            checks: the chart has them as they are; helm finds no fault; what it renders is, object by
#                                 object, what kustomize makes, also with the overlays; every value of values.yaml has
#                                 its effect, and others are refused; all objects are what Kubernetes takes (kubeconform)
#
# helm, kustomize and kubeconform are built from their Go modules where they are not in PATH. Exit status 3 says that they
# cannot be had, so nothing but the first check was made.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/go-tools.sh

chart=deploy/chart/ferrule
# The schemas of its API, and of the Prometheus operator's.
kubernetes=k8s.io/kubernetes@v1.34.4
operator=github.com/prometheus-operator/prometheus-operator@v0.92.1

scratch=$(mktemp --directory "${TMPDIR:-/tmp}/ferrule-chart.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# What the chart has of deploy/: kustomize's own files are for kustomize.
lay() {
    mkdir -p "$1/base" "$1/prometheus"
    find deploy/base -name '*.yaml' ! -name kustomization.yaml -exec cp --target-directory "$1/base" {} +
    cp deploy/prometheus/podmonitor.yaml deploy/prometheus/rules.yaml "$1/prometheus/"
    cp deploy/components/drop-ins/daemonset.yaml "$1/drop-ins.yaml"
    cp deploy/components/flow-control/flow-control.yaml "$1/"
}

case ${1:-} in
    --write) rm -rf "$chart/files" && lay "$chart/files" && exit ;;
    "") ;;
    *) die "usage: scripts/chart.sh [--write]" ;;
esac

lay "$scratch/files"
diff --recursive "$scratch/files" "$chart/files" >&2 || die "deploy/ has changed: run scripts/chart.sh --write"
version=$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)
[ "$(grep --count --fixed-strings --line-regexp -e "version: $version" -e "appVersion: $version" "$chart/Chart.yaml")" = 2 ] ||
    die "$chart/Chart.yaml is not of version $version"

need_packages jq
helm=$(tool helm)
kubeconform=$(tool kubeconform)
if command -v kubectl >/dev/null; then
    kustomize() { kubectl kustomize "$1"; }
else
    kustomize=$(tool kustomize)
    kustomize() { "$kustomize" build "$1"; }
fi

# render [OPTION...]: what the chart makes.
render() { "$helm" template ferrule "$chart" --namespace kube-system "$@"; }

# A chart that prints each document as JSON: whatever reads YAML for helm reads it here.
mkdir -p "$scratch/reader/templates"
printf '%s\n' 'apiVersion: v2' 'name: reader' 'version: 0.0.0' >"$scratch/reader/Chart.yaml"
cat >"$scratch/reader/templates/objects.yaml" <<'TEMPLATE'
{{- range regexSplit "(?m)^---$" (.Files.Get "in.yaml") -1 }}
{{- $object := fromYaml . }}
{{- if $object }}
---
{{ toJson $object }}
{{- end }}
{{- end }}
TEMPLATE

# Manifests on stdin as one list, without the labels that only helm gives, ordered by kind and name.
objects() {
    cat >"$scratch/reader/in.yaml"
    "$helm" template reader "$scratch/reader" | grep '^{' | jq --sort-keys --slurp '
        map(walk(if type == "object" then
            del(.["app.kubernetes.io/instance"], .["app.kubernetes.io/managed-by"], .["helm.sh/chart"])
        else . end)) | sort_by(.kind, .metadata.name)'
}

# same TEXT FILE FILE
same() {
    [ "$(jq length "$2")" -gt 0 ] || die "$1: no object"
    diff --unified=6 "$2" "$3" >&2 || die "$1: kustomize (-) and the chart (+) differ"
    say "the same, $(jq length "$2") objects: $1"
}

"$helm" lint --strict --quiet "$chart" "$chart" --values tests/chart/all.yaml >&2

kustomize deploy >"$scratch/deploy.yaml"
diff "$scratch/deploy.yaml" deploy/ferrule.yaml >&2 || die "run: kubectl kustomize deploy >deploy/ferrule.yaml"
objects <"$scratch/deploy.yaml" >"$scratch/a.json"
render | objects >"$scratch/b.json"
same "deploy/ and no values" "$scratch/a.json" "$scratch/b.json"

snap=/var/snap/microk8s/current
kustomize deploy/microk8s | objects >"$scratch/a.json"
render --set "hostPaths.bin=$snap/opt/cni/bin,hostPaths.conf=$snap/args/cni-network" | objects >"$scratch/b.json"
same "deploy/microk8s and hostPaths" "$scratch/a.json" "$scratch/b.json"

here=$(realpath --relative-to "$scratch" .)
printf '%s\n' "resources: [$here/deploy]" "components: [$here/deploy/components/drop-ins]" >"$scratch/kustomization.yaml"
# The order of a patch's entries is kustomize's own.
by_name='map(if .kind == "DaemonSet" then .spec.template.spec |= (.volumes |= sort_by(.name)
    | .containers[0].env |= sort_by(.name) | .containers[0].volumeMounts |= sort_by(.name)) else . end)'
kustomize "$scratch" | objects | jq "$by_name" >"$scratch/a.json"
render --set dropIns.enabled=true | objects | jq "$by_name" >"$scratch/b.json"
same "deploy/components/drop-ins and dropIns" "$scratch/a.json" "$scratch/b.json"

printf '%s\n' "components: [$here/deploy/components/flow-control]" >"$scratch/kustomization.yaml"
kustomize "$scratch" | objects >"$scratch/a.json"
render --set flowControl.enabled=true | objects |
    jq 'map(select(.kind | . == "FlowSchema" or . == "PriorityLevelConfiguration"))' >"$scratch/b.json"
same "deploy/components/flow-control and flowControl" "$scratch/a.json" "$scratch/b.json"

kustomize deploy/prometheus | objects >"$scratch/a.json"
render --set podMonitor.enabled=true,prometheusRule.enabled=true | objects |
    jq 'map(select(.kind | . == "PodMonitor" or . == "PrometheusRule"))' >"$scratch/b.json"
same "deploy/prometheus and podMonitor, prometheusRule" "$scratch/a.json" "$scratch/b.json"

# Every value has its effect, and every value is tried.
"$helm" template one "$chart" --namespace networks --values tests/chart/all.yaml >"$scratch/all.yaml"
cp "$scratch/all.yaml" "$scratch/reader/in.yaml"
wrong=$("$helm" template reader "$scratch/reader" | grep '^{' | jq --slurp --raw-output --from-file tests/chart/all.jq)
[ -z "$wrong" ] || die "tests/chart/all.yaml: not as asked for: ${wrong//$'\n'/, }"
while read -r name; do
    grep -q "^ *\"$name\": {" "$chart/values.schema.json" || die "values.schema.json has no $name"
    case $name in
        # What the two below try.
        nameOverride | rbac) ;;
        *) grep -q "^$name:" tests/chart/all.yaml || die "tests/chart/all.yaml has no $name" ;;
    esac
done < <(sed -n 's/^\([a-zA-Z]*\):.*/\1/p' "$chart/values.yaml")
[ "$(render --set rbac.create=false,serviceAccount.create=false | objects | jq -c 'map(.kind)')" = '["DaemonSet"]' ] ||
    die "rbac.create, serviceAccount.create: more than a DaemonSet is left"
[ "$(render --set nameOverride=net | objects | jq -r '.[0].metadata.name')" = ferrule-net ] || die "nameOverride"
for values in imge.tag=1 image.digest=abc settings.MTU=1400 hostPaths.bin=opt podMonitor.interval=often tolerations=all; do
    ! render --set "$values" >/dev/null 2>"$scratch/refused" || die "--set $values is not refused"
    grep -q "${values%%[.=]*}" "$scratch/refused" || die "--set $values is refused for another reason"
done
say "values: all have their effect, and others are refused"

# A schema for each kind that the API has: of that kind's definition, strict, with all that it refers to.
if sources=$(go_module "$kubernetes") && operators=$(go_module "$operator"); then
    strict='walk(if type == "object" and (.properties | type) == "object" and has("additionalProperties") == false
        and .["x-kubernetes-preserve-unknown-fields"] != true then .additionalProperties = false else . end)
        | walk(if type == "object" and .format == "int-or-string" then {type: ["string", "integer"]} else . end)'
    mkdir "$scratch/schemas"
    jq --compact-output ".definitions | $strict | .\"io.k8s.apimachinery.pkg.api.resource.Quantity\".type = [\"string\", \"number\"]" \
        "$sources/api/openapi-spec/swagger.json" >"$scratch/definitions.json"
    cat "$scratch/deploy.yaml" "$scratch/all.yaml" deploy/uninstall.yaml | objects |
        jq --raw-output 'map([.kind, .apiVersion]) | unique[] | "\(.[0]) \(.[1])"' >"$scratch/kinds"
    while read -r kind api; do
        [[ $api != monitoring.coreos.com/* ]] || continue
        group=${api%/*}
        [ "$group" != "$api" ] || group=
        jq --compact-output --arg kind "$kind" --arg group "$group" --arg version "${api##*/}" '
            (to_entries[] | select(any(.value["x-kubernetes-group-version-kind"][]?;
                . == {group: $group, kind: $kind, version: $version})).key) as $name
            | {"$ref": "#/definitions/\($name)", definitions: .}' \
            "$scratch/definitions.json" >"$scratch/schemas/$kind-${api##*/}.json"
    done <"$scratch/kinds"
    for name in podmonitor prometheusrule; do
        file=$operators/jsonnet/prometheus-operator/${name}s-crd.json
        jq --compact-output ".spec.versions[0].schema.openAPIV3Schema | .properties.metadata = {type: \"object\"} | $strict
            | .properties.metadata = {type: \"object\"}" "$file" \
            >"$scratch/schemas/$(jq --raw-output .spec.names.kind "$file")-v1.json"
    done
    check() {
        "$kubeconform" -strict -summary \
            -schema-location "$scratch/schemas/{{.ResourceKind}}-{{.ResourceAPIVersion}}.json" "$@"
    }
    for file in "$scratch"/schemas/*; do
        lower=$(basename "$file")
        mv "$file" "$scratch/schemas/${lower,,}"
    done
    check deploy/ferrule.yaml deploy/uninstall.yaml deploy/components/startup-taint/rbac.yaml deploy/prometheus/podmonitor.yaml deploy/prometheus/rules.yaml "$scratch/all.yaml" >&2
    # That it would say so.
    sed 's/hostNetwork: true/hostNetwrk: true/' deploy/ferrule.yaml >"$scratch/wrong.yaml"
    ! check "$scratch/wrong.yaml" >/dev/null || die "kubeconform takes an unknown field"
else
    say "no $kubernetes or $operator: kubeconform was not asked"
fi
