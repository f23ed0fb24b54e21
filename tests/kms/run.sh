#!/bin/sh
# Starts the KMS double of the tests, in a virtual environment that is made when it is missing or outdated.
# Arguments go to server.py; `--install` alone makes the environment and starts nothing. Needs python3 with venv (Debian: apt install python3-venv) and, the first time, a package index.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${KMS_VENV:-$here/../../target/kms-venv}
stamp=$venv/installed.txt

if ! cmp -s "$here/requirements.txt" "$stamp"; then
    mkdir -p "$venv"
    (
        # One at a time: tests run in parallel processes.
        flock 9
        if ! cmp -s "$here/requirements.txt" "$stamp"; then
            python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" &&
                cp "$here/requirements.txt" "$stamp"
        fi
    ) 9>"$venv/lock" >&2 || {
        echo "the KMS double needs python3 with venv and pip: install python3-venv (Debian), and see $here/requirements.txt" >&2
        exit 1
    }
fi
[ "${1-}" = --install ] && exit
exec "$venv/bin/python" "$here/server.py" "$@"
