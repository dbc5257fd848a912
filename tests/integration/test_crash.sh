#!/usr/bin/env bash
# kill -9 of each role while `paramill up` runs the job: it is started again, and the final weights are those of an
# undisturbed run.
. "$(dirname "$0")/lib.sh"
small_data 4096

small_job "$work/calm.yaml" "$work/calm" 2 2 6
timeout -k 5 200 "$PARAMILL" train "$work/calm.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "undisturbed run"; }

for role in worker server checkpoint coordinator; do
    store=$work/$role
    small_job "$work/$role.yaml" "$store" 2 2 6
    timeout -k 5 200 "$PARAMILL" up "$work/$role.yaml" >"$work/log" 2>&1 &
    pids+=($!)
    up=$!
    for _ in $(seq 300); do
        [ "$(ls "$store/small/versions" 2>/dev/null | wc -l)" -ge 3 ] && break
        sleep 0.05
    done
    supervisor=$(pgrep -P "$up" -x paramill || true)
    victim=$(pgrep -P "${supervisor:-$up}" -f "paramill $role" | head -n 1)
    [ -n "$victim" ] || { cat "$work/log"; fail "no $role to kill"; }
    kill -9 "$victim"
    wait "$up" || { cat "$work/log"; fail "the job did not survive the loss of a $role"; }
    grep -q "event=died child=$role" "$work/log" || { cat "$work/log"; fail "the $role was not missed"; }
    [ "$(weights "$store")" = "$(weights "$work/calm")" ] || fail "other bits after the loss of a $role"
    echo "same bits after kill -9 of a $role"
done
