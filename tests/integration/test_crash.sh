#!/usr/bin/env bash
# kill -9 of each role while `paramill up` runs the job: it is started again, and the final weights are those of an
# undisturbed run.
. "$(dirname "$0")/lib.sh"
small_data 4096
epochs=12 # so that the job still runs when its process is found
[ -z "${SANITIZE:-}" ] || epochs=6

small_job "$work/calm.yaml" "$work/calm" 2 2 $epochs
timeout -k 5 200 "$PARAMILL" train "$work/calm.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "undisturbed run"; }

for role in worker server checkpoint coordinator; do
    store=$work/$role
    small_job "$work/$role.yaml" "$store" 2 2 $epochs
    survive_kill "$role" "$work/$role.yaml" "$store" "$work/calm"
done
