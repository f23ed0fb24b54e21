# Sourced by the scripts: a vault of `canton-keyvault dev` on free ports, in a folder that goes when the script ends.
# shellcheck shell=bash

DEV_DIR=
DEV_PID=

# start_dev BINARY: serves, and waits for the first signature. Sets DEV_DIR (the folder; its log is DEV_DIR/log), DEV_URL and DEV_OPS.
start_dev() {
    local ports
    DEV_DIR=$(mktemp -d)
    : >"$DEV_DIR/out"
    ports=$(python3 -c 'import socket; s = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]; print(*[x.getsockname()[1] for x in s])')
    DEV_URL=https://127.0.0.1:${ports% *}
    DEV_OPS=http://127.0.0.1:${ports#* }
    "$1" dev --dir "$DEV_DIR" --listen "127.0.0.1:${ports% *}" --ops-listen "127.0.0.1:${ports#* }" >"$DEV_DIR/out" 2>"$DEV_DIR/log" &
    DEV_PID=$!
    local tenths
    for tenths in {1..300}; do
        if grep -q 'Stop with' "$DEV_DIR/out"; then return; fi
        if ! kill -0 "$DEV_PID" 2>/dev/null; then break; fi
        sleep 0.1
    done
    cat "$DEV_DIR/out" "$DEV_DIR/log" >&2
    echo "dev did not serve within $((tenths / 10)) s (above: what it said)" >&2
    return 1
}

# SIGTERM, and fails unless it ends in good order.
stop_dev() {
    local status=0
    kill -TERM "$DEV_PID" || status=$?
    wait "$DEV_PID" || status=$?
    DEV_PID=
    if [ "$status" -ne 0 ] || ! grep -q ' stopped$' "$DEV_DIR/log"; then
        cat "$DEV_DIR/out" "$DEV_DIR/log" >&2
        echo "dev ended with $status and not in good order (above: what it said)" >&2
        return 1
    fi
}

# For the exit trap: removes everything in any case.
clean_dev() {
    if [ -n "$DEV_PID" ]; then kill -KILL "$DEV_PID" 2>/dev/null || true; fi
    if [ -n "$DEV_DIR" ]; then rm -rf "$DEV_DIR"; fi
}
