# Sourced by the scripts: steps with a name and a duration, and what the machine must have.
# shellcheck shell=bash

STEP_NAMES=()
STEP_SECONDS=()
STEP_NOW=

# step NAME COMMAND...: runs it, and says what it was and how long it took. The first that fails ends the script.
step() {
    STEP_NOW=$1
    shift
    printf '\n=== %s\n' "$STEP_NOW"
    local began=$SECONDS
    "$@"
    STEP_NAMES+=("$STEP_NOW")
    STEP_SECONDS+=("$((SECONDS - began))")
    printf '=== %s: ok, %d s\n' "$STEP_NOW" "$((SECONDS - began))"
    STEP_NOW=
}

# To be called at exit: which step failed, or what each took.
steps_end() {
    local status=$?
    if [ -n "$STEP_NOW" ]; then
        printf '\n=== %s: FAILED (%d)\n' "$STEP_NOW" "$status" >&2
    elif [ "$status" -eq 0 ]; then
        printf '\n'
        local i
        for i in "${!STEP_NAMES[@]}"; do
            printf '%5d s  %s\n' "${STEP_SECONDS[$i]}" "${STEP_NAMES[$i]}"
        done
        printf '%5d s  in all\n' "$SECONDS"
    fi
    return "$status"
}

# need WHAT PACKAGES COMMAND...: installs Debian packages if the command fails.
need() {
    local what=$1 packages=$2
    shift 2
    if "$@" >/dev/null 2>&1; then return; fi
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
            printf '%s is missing: install %s (Debian: apt-get install %s), or run this as root\n' "$what" "$packages" "$packages" >&2
            return 1
        fi
        root=(sudo -n)
    fi
    if ! command -v apt-get >/dev/null; then
        printf '%s is missing, and there is no apt-get: install what Debian calls %s\n' "$what" "$packages" >&2
        return 1
    fi
    printf 'installing %s: %s is missing\n' "$packages" "$what"
    "${root[@]}" apt-get update -qq
    # shellcheck disable=SC2086 # several packages
    DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends $packages
    if ! "$@" >/dev/null 2>&1; then
        printf '%s is missing even after %s was installed\n' "$what" "$packages" >&2
        return 1
    fi
}

# A Rust that the manifest accepts, and what its crates and the tests are built and run with.
need_tools() {
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH=$HOME/.cargo/bin:$PATH; fi
    if ! command -v cargo >/dev/null; then
        printf 'cargo is missing: install Rust %s or newer (https://rustup.rs)\n' "$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)" >&2
        return 1
    fi
    need 'a C compiler' 'gcc libc6-dev' compiles_c
    need openssl openssl openssl version
    need 'python3 with venv and pip' 'python3 python3-venv' python3 -c 'import ensurepip, venv'
    need PyYAML python3-yaml python3 -c 'import yaml'
    need PostgreSQL postgresql has_postgresql
    need 'SoftHSM2 and OpenSC' 'softhsm2 opensc' has_softhsm
}

has_softhsm() {
    command -v softhsm2-util && command -v pkcs11-tool
}

has_postgresql() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' || command -v initdb
}

compiles_c() {
    printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | cc -x c -o /dev/null -
}

# has TOOL: whether cargo has it (fmt, clippy).
has() {
    cargo "$1" --version >/dev/null 2>&1
}

formatting() {
    if has fmt; then cargo fmt --check; else echo 'NOT RUN: this machine has no rustfmt (rustup component add rustfmt)'; fi
}
