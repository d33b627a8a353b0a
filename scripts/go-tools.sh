# shellcheck shell=bash
# Programs that read what is in deploy/ and .github/, each built from its Go module in the version that is named here.
# Sourced after debian.sh:
#
#     helm=$(tool helm)                       # the one in PATH, else target/tools/helm; exit status 3 if it cannot be had
#     "$helm" lint deploy/chart/ferrule
#     module=$(go_module k8s.io/kubernetes@v1.34.4)
#
# NO_GO_TOOLS=yes: nothing is built.
declare -A module_of=(
    [actionlint]=github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
    [helm]=helm.sh/helm/v4/cmd/helm@v4.3.1
    [kubeconform]=github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0
    [kustomize]=sigs.k8s.io/kustomize/kustomize/v5@v5.7.1
)

# Exit status 3 if it cannot be had, because Go is missing or the module proxy is.
tool() {
    local tools=$PWD/target/tools
    command -v "$1" && return
    if [ ! -x "$tools/$1" ]; then
        # helm alone takes minutes: whoever counts them builds the tools later.
        [ -z "${NO_GO_TOOLS:-}" ] || { say "no $1, and NO_GO_TOOLS is set"; exit 3; }
        command -v go >/dev/null || { say "no $1, and no Go to build it with"; exit 3; }
        say "building $1"
        GOBIN=$tools GOFLAGS=-trimpath CGO_ENABLED=0 go install -ldflags "-s -w" "${module_of[$1]}" >&2 ||
            { say "$1 cannot be had"; exit 3; }
    fi
    echo "$tools/$1"
}

# Where the sources of a Go module lie; status 1 if they cannot be had.
go_module() {
    [ -z "${NO_GO_TOOLS:-}" ] && command -v go >/dev/null || return 1
    go mod download -json "$1" 2>/dev/null | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p' | grep .
}
