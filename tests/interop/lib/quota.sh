# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# A share of a core for a process, by cgroup v1 or v2: what it does is then the same on an idle
# machine and on a busy one.  For a script in a sandbox.

QUOTA_PERIOD_US=10000 # a pause of half of it fits into the rx rings
QUOTA_GROUP=

# throttle PID: half a core for that process, before all others that want that core: with the usual
# weight it would share the half with them.  The group's name is the sandbox's, which nobody else
# has; pids are those of the sandbox, and so are the control files'.
throttle() {
    QUOTA_PID=$1
    local root=/sys/fs/cgroup
    if [[ -d $root/cpu ]]; then
        QUOTA_GROUP=$root/cpu/$(basename "$SANDBOX")
        mkdir "$QUOTA_GROUP"
        echo 262144 >"$QUOTA_GROUP/cpu.shares"
        echo "$QUOTA_PERIOD_US" >"$QUOTA_GROUP/cpu.cfs_period_us"
        echo $((QUOTA_PERIOD_US / 2)) >"$QUOTA_GROUP/cpu.cfs_quota_us"
    else
        QUOTA_GROUP=$root/$(basename "$SANDBOX")
        mkdir "$QUOTA_GROUP"
        echo 10000 >"$QUOTA_GROUP/cpu.weight"
        echo "$((QUOTA_PERIOD_US / 2)) $QUOTA_PERIOD_US" >"$QUOTA_GROUP/cpu.max"
    fi
    trap unthrottle EXIT
    echo "$QUOTA_PID" >"$QUOTA_GROUP/cgroup.procs"
}

# unthrottle: the process ends; the group goes.
unthrottle() {
    [[ -n $QUOTA_GROUP ]] || return 0
    kill -KILL "$QUOTA_PID" 2>/dev/null || true
    wait "$QUOTA_PID" 2>/dev/null || true
    local i
    for ((i = 0; i < 50; ++i)); do
        ! rmdir "$QUOTA_GROUP" 2>/dev/null || break
        sleep 0.1
    done
    QUOTA_GROUP=
}

# daemon_pid NODE: of its esplaned; the shell's own child is `ip netns exec`'s successor.
daemon_pid() {
    esplane "$1" status --json | /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])'
}

# resident PID: KiB.
resident() {
    awk '/^VmRSS/ {print $2}' "/proc/$1/status"
}
