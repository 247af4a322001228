# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# A sandbox: private pid, mount and network namespaces that a script runs itself in.
#
#   sandbox_enter "$0" "$@"
#
# Outside, this starts the script again inside a sandbox, waits for it and exits with its status;
# inside, it returns.  Whatever the script makes there (processes, network namespaces, mounts,
# files below $SANDBOX) dies with it, also when it is interrupted or killed: there is nothing to
# tear down, and several scripts may run side by side with the same names.

sandbox_enter() {
    if [[ -n ${SANDBOX:-} ]]; then
        sandbox_mounts
        return
    fi
    sandbox_run "$@"
    exit "$SANDBOX_STATUS"
}

# Runs COMMAND in a new sandbox, with SANDBOX naming its directory; sets SANDBOX_STATUS.
sandbox_run() {
    local directory child
    directory=$(mktemp -d "${TMPDIR:-/tmp}/esplane.XXXXXX")
    SANDBOX=$directory setpriv --pdeathsig KILL \
        unshare --mount --net --pid --fork --kill-child --mount-proc -- "$@" &
    child=$!
    SANDBOX_STATUS=
    trap 'SANDBOX_STATUS=130' INT
    trap 'SANDBOX_STATUS=143' TERM HUP
    wait "$child" || true
    if [[ -n $SANDBOX_STATUS ]]; then
        kill -KILL "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    else
        SANDBOX_STATUS=0
        wait "$child" || SANDBOX_STATUS=$?
    fi
    trap - INT TERM HUP
    rmdir "$directory"
}

# Files go to memory; /run is the sandbox's own, so `ip netns` keeps its names there.
sandbox_mounts() {
    mount -t tmpfs -o mode=0755 tmpfs "$SANDBOX"
    mount -t tmpfs -o mode=0755 tmpfs /run
    ip link set lo up
}
