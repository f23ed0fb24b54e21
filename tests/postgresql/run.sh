#!/bin/sh
# Starts the PostgreSQL server of the tests in a folder. `run.sh FOLDER PORT` needs server.pem and server.key there, prints `ready`, and stops
# the server when its own standard input ends. The user is `canton`, the password `secret`, the database `canton`; clients on the network
# need TLS. `run.sh FOLDER PORT PRIMARY PRIMARY_PORT` starts a streaming standby of the server in the folder PRIMARY. `POSTGRESQL_FSYNC=on`
# makes commits durable. Needs PostgreSQL 13 or later (Debian: apt install postgresql).
set -eu
folder=$1
port=$2
primary=${3-}
primary_port=${4-}

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || bin=$(dirname "$(command -v initdb)") || {
    echo 'PostgreSQL is missing: apt-get install postgresql (Debian)' >&2
    exit 1
}

# PostgreSQL refuses to run as root.
run=
if [ "$(id -u)" -eq 0 ]; then
    run='setpriv --reuid=65534 --regid=65534 --clear-groups'
    mkdir "$folder/server"
    cp "$folder/server.pem" "$folder/server.key" "$folder/server/"
    chown -R 65534:65534 "$folder/server"
    chmod 711 "$folder"
else
    mkdir "$folder/server"
    cp "$folder/server.pem" "$folder/server.key" "$folder/server/"
fi
chmod 700 "$folder/server"
chmod 600 "$folder/server/server.key"
cd "$folder/server"
echo secret >password
chmod 644 password
start() {
    $run "$bin/postgres" -D data -p "$port" -c listen_addresses=127.0.0.1 -c "unix_socket_directories=$folder/server" -c "fsync=${POSTGRESQL_FSYNC-off}" \
        -c ssl=on -c "ssl_cert_file=$folder/server/server.pem" -c "ssl_key_file=$folder/server/server.key" </dev/null >server.log 2>&1 &
    server=$!
    trap 'kill -QUIT "$server" 2>/dev/null || :; wait "$server" || :' EXIT
    until "$bin/pg_isready" -q -h "$folder/server" -p "$port"; do
        kill -0 "$server" 2>/dev/null || {
            cat server.log >&2
            exit 1
        }
        sleep 0.05
    done
}
if [ -n "$primary" ]; then
    connection="host=$primary/server port=$primary_port user=canton password=secret"
    $run "$bin/pg_basebackup" --dbname="$connection" --pgdata=data --write-recovery-conf --no-sync --checkpoint=fast >basebackup.log 2>&1 || {
        cat basebackup.log >&2
        exit 1
    }
    start
    echo ready
    cat >/dev/null
    exit 0
fi
$run "$bin/initdb" --pgdata=data --username=canton --pwfile=password --auth=scram-sha-256 --no-sync --encoding=UTF8 --locale=C >initdb.log 2>&1 || {
    cat initdb.log >&2
    exit 1
}
cat >data/pg_hba.conf <<'HBA'
local all all scram-sha-256
local replication all scram-sha-256
hostssl all all 127.0.0.1/32 scram-sha-256
HBA
start
PGPASSWORD=secret "$bin/createdb" -h "$folder/server" -p "$port" -U canton canton
echo ready
cat >/dev/null
