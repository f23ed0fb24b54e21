# Sourced by the scripts that test the Helm chart: the chart, versions of the tools, and how they are built into target/tools.
# shellcheck shell=bash
# shellcheck disable=SC2034 # used by the scripts that source this

CHART=deploy/helm/canton-keyvault
TOOLS=$PWD/target/tools
HELM=v3.22.0
CERT_MANAGER=github.com/cert-manager/cert-manager@v1.21.2
PROMETHEUS_OPERATOR=github.com/prometheus-operator/prometheus-operator@v0.92.1
# Below the folder of the module of the Prometheus operator.
MONITORING=example/prometheus-operator-crd/monitoring.coreos.com

# go_tool NAME PACKAGE@VERSION
go_tool() {
    if [ -x "$TOOLS/$1" ]; then return; fi
    GOFLAGS=-p=1 GOBIN=$TOOLS go install "$2"
}

# module MODULE@VERSION: prints the folder with its files.
module() {
    (cd / && go mod download -json "$1") | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])'
}

# Helm tells about the links to the alerts and the dashboard, which are meant.
helm() {
    "$TOOLS/helm" "$@" 2> >(grep -v 'found symbolic link' >&2)
}
