#!/bin/sh
# Starts the OpenBao server of the tests in a folder, out of a virtual environment that is made when it is missing or outdated.
# `run.sh FOLDER` needs server.hcl there, prints the process id, and kills the server when its own standard input ends. `--install` alone
# makes the environment and starts nothing. Needs python3 with venv (Debian: apt install python3-venv) and, the first time, a package index.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${OPENBAO_VENV:-$here/../../target/openbao-venv}
stamp=$venv/installed.txt

if ! cmp -s "$here/requirements.txt" "$stamp"; then
    mkdir -p "$venv"
    (
        # One at a time: tests run in parallel processes.
        flock 9
        if ! cmp -s "$here/requirements.txt" "$stamp"; then
            python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
                -r "$here/requirements.txt" && cp "$here/requirements.txt" "$stamp"
        fi
    ) 9>"$venv/lock" >&2 || {
        echo "OpenBao needs python3 with venv and pip: install python3-venv (Debian), and see $here/requirements.txt" >&2
        exit 1
    }
fi
[ "${1-}" = --install ] && exit
bao=$(cd "$venv" && pwd)/bin/bao
cd "$1"
"$bao" server -config=server.hcl </dev/null >server.log 2>&1 &
server=$!
trap 'kill -KILL "$server" 2>/dev/null || :' EXIT
echo "$server"
cat >/dev/null
