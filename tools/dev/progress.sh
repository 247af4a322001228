# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Progress in short lines with the time since the start; what the steps themselves say goes to
# $PROGRESS_LOG, whose end is shown when one fails.

PROGRESS_START=$SECONDS

# say WORDS...: one line.
say() {
    printf '[%3ds] %s\n' $((SECONDS - PROGRESS_START)) "$*"
}

# step WHAT COMMAND...: runs COMMAND into the log, with a line of ninja's or apt's every 10 s.
step() {
    local what=$1 status=0 said
    shift
    say "$what"
    printf '\n=== %s\n' "$what" >>"$PROGRESS_LOG"
    said=$(stat -c %s "$PROGRESS_LOG")
    set -m
    step_watch "$said" &
    STEP_WATCH_PID=$!
    set +m
    in_group "$@" >>"$PROGRESS_LOG" 2>&1 || status=$?
    step_interrupt
    if [[ $status != 0 ]]; then
        say "failed: $what; the end of $PROGRESS_LOG:"
        tail -n 25 "$PROGRESS_LOG" | sed 's/^/        /'
    fi
    return "$status"
}

# in_group COMMAND...: waits for COMMAND, which has a process group of its own in the background: a
# signal to this shell is acted on at once, and step_interrupt ends all that COMMAND started.
in_group() {
    local status=0
    set -m
    "$@" </dev/null &
    STEP_PID=$!
    set +m
    wait "$STEP_PID" || status=$?
    STEP_PID=
    return "$status"
}

# step_watch BYTES: shows what the log says after its first BYTES.
step_watch() {
    local line shown=
    while sleep 10; do
        line=$(tail -c "+$(($1 + 1))" "$PROGRESS_LOG" |
            grep -aoE '^\[[0-9]+/[0-9]+\]|^(Unpacking|Setting up) [^ ]+' | tail -n 1) || continue
        [[ $line == "$shown" ]] || say "    $line"
        shown=$line
    done
}

# step_interrupt: ends what runs.
step_interrupt() {
    local pid
    for pid in ${STEP_PID:-} ${STEP_WATCH_PID:-}; do
        kill -TERM -- "-$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    STEP_PID=
    STEP_WATCH_PID=
}
