# Sourced by scripts/test-kubernetes: a control plane of Kubernetes on loopback, with a folder and processes that go when the script ends.
# shellcheck shell=bash

CLUSTER_DIR=
CLUSTER_PIDS=()

# go_program FOLDER NAME PACKAGE [ARGUMENT...]: builds a program of the module in FOLDER into target/tools.
go_program() {
    local folder=$1 name=$2 package=$3
    shift 3
    if [ "$TOOLS/$name" -nt "$folder/go.sum" ]; then return; fi
    go build -C "$folder" -p 2 -o "$TOOLS/$name" "$@" "$package"
}

# build_control_plane: the programs that go.mod names as tools. Kubernetes takes its version from the linker.
build_control_plane() {
    local folder=tests/kubernetes symbols=k8s.io/component-base/version version program
    version=$(cd "$folder" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
    for program in kube-apiserver kube-controller-manager kube-scheduler kubectl; do
        go_program "$folder" "$program" "k8s.io/kubernetes/cmd/$program" \
            -ldflags "-s -w -X $symbols.gitVersion=$version -X $symbols.gitMajor=1 -X $symbols.gitMinor=$(cut -d. -f2 <<<"$version")"
    done
    go_program "$folder" etcd go.etcd.io/etcd/server/v3 -ldflags '-s -w'
}

# background NAME COMMAND...: its log is CLUSTER_DIR/NAME.log.
background() {
    local name=$1
    shift
    "$@" >"$CLUSTER_DIR/$name.log" 2>&1 &
    CLUSTER_PIDS+=($!)
}

# kubeconfig USER TOKEN: prints the credentials of a user.
kubeconfig() {
    cat <<END
apiVersion: v1
kind: Config
clusters: [{ name: test, cluster: { server: "$CLUSTER_URL", certificate-authority: "$CLUSTER_DIR/pki/apiserver.crt" } }]
users: [{ name: "$1", user: { token: "$2" } }]
contexts: [{ name: test, context: { cluster: test, user: "$1" } }]
current-context: test
END
}

# start_control_plane: etcd, the API server, the controllers and the scheduler, then nodes.py in place of kubelets. Sets CLUSTER_DIR and exports KUBECONFIG, of an administrator.
start_control_plane() {
    local ports user token
    CLUSTER_DIR=$(mktemp -d)
    read -r -a ports < <(python3 -c 'import socket; s = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]; print(*[x.getsockname()[1] for x in s])')
    CLUSTER_URL=https://127.0.0.1:${ports[2]}
    mkdir "$CLUSTER_DIR/pki"
    openssl genrsa -out "$CLUSTER_DIR/pki/accounts.key" 2048 2>/dev/null
    for user in admin system:kube-controller-manager system:kube-scheduler; do
        token=$(openssl rand -hex 16)
        echo "$token,$user,$user,$(if [ "$user" = admin ]; then echo system:masters; fi)" >>"$CLUSTER_DIR/pki/tokens"
        kubeconfig "$user" "$token" >"$CLUSTER_DIR/${user#system:}.conf"
    done
    background etcd "$TOOLS/etcd" --data-dir "$CLUSTER_DIR/etcd" --unsafe-no-fsync \
        --listen-client-urls "http://127.0.0.1:${ports[0]}" --advertise-client-urls "http://127.0.0.1:${ports[0]}" \
        --listen-peer-urls "http://127.0.0.1:${ports[1]}" --initial-advertise-peer-urls "http://127.0.0.1:${ports[1]}" \
        --initial-cluster "default=http://127.0.0.1:${ports[1]}"
    # All admission plugins that are on by default are on, Pod Security among them.
    background apiserver "$TOOLS/kube-apiserver" --etcd-servers "http://127.0.0.1:${ports[0]}" --bind-address 127.0.0.1 --secure-port "${ports[2]}" \
        --advertise-address 192.0.2.1 --endpoint-reconciler-type none --cert-dir "$CLUSTER_DIR/pki" --token-auth-file "$CLUSTER_DIR/pki/tokens" \
        --authorization-mode Node,RBAC --service-cluster-ip-range 10.96.0.0/16 --service-account-issuer https://kubernetes.default.svc \
        --service-account-key-file "$CLUSTER_DIR/pki/accounts.key" --service-account-signing-key-file "$CLUSTER_DIR/pki/accounts.key"
    export KUBECONFIG=$CLUSTER_DIR/admin.conf
    until_ready
    # The API server has made itself a certificate, followed by that of its CA.
    awk '/BEGIN/ { count++ } count == 2' "$CLUSTER_DIR/pki/apiserver.crt" >"$CLUSTER_DIR/pki/ca.crt"
    # No kubelet renews its lease: nodes stay ready for a day.
    background controllers "$TOOLS/kube-controller-manager" --kubeconfig "$CLUSTER_DIR/kube-controller-manager.conf" --leader-elect=false --secure-port 0 \
        --use-service-account-credentials --service-account-private-key-file "$CLUSTER_DIR/pki/accounts.key" --root-ca-file "$CLUSTER_DIR/pki/ca.crt" \
        --node-monitor-grace-period 24h
    background scheduler "$TOOLS/kube-scheduler" --kubeconfig "$CLUSTER_DIR/kube-scheduler.conf" --leader-elect=false --secure-port 0
    kubectl version
    kubectl create -f tests/kubernetes/cluster.yaml
    background nodes python3 tests/kubernetes/nodes.py
}

until_ready() {
    local tenths
    for tenths in {1..1200}; do
        if kubectl get --raw /readyz >/dev/null 2>&1; then return; fi
        if ! kill -0 "${CLUSTER_PIDS[@]}" 2>/dev/null; then break; fi
        sleep 0.1
    done
    tail -n 20 "$CLUSTER_DIR"/*.log >&2
    echo "the API server was not ready within $((tenths / 10)) s (above: what it said)" >&2
    return 1
}

# For the exit trap: shows the end of the logs after a failure, and removes everything in any case.
clean_control_plane() {
    if [ -z "$CLUSTER_DIR" ]; then return; fi
    if [ -n "${STEP_NOW-}" ]; then tail -n 15 "$CLUSTER_DIR"/*.log >&2; fi
    kill -KILL "${CLUSTER_PIDS[@]}" 2>/dev/null || true
    wait "${CLUSTER_PIDS[@]}" 2>/dev/null || true
    rm -rf "$CLUSTER_DIR"
}
