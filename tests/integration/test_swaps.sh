#!/usr/bin/env bash
# A constant stream of requests while versions change, while an infer worker is killed with -9, and while one is asked to
# stop: no request fails. Then: a row's answer has the same bits alone and in a batch.
. "$(dirname "$0")/lib.sh"
BUILD=${BUILD:?the build tree}
load=$BUILD/bench/swap_load
[ -x "$load" ] || fail "$load is not built"
small_data 2048
small_job "$work/job.yaml" "$work/store" 1 1 8
timeout -k 5 120 "$PARAMILL" train "$work/job.yaml" >"$work/train.log" 2>&1 || { cat "$work/train.log"; fail "training"; }
mapfile -t versions < <(ls "$work/store/small/versions" | sort | head -n 11)
[ "${#versions[@]}" -eq 11 ] || fail "${#versions[@]} versions instead of 11"
label() { "$PARAMILL" snapshot label "$work/store" small stable "$((10#$1))" >/dev/null || fail "label $1"; }

# wait_for SECONDS FILE PATTERN
wait_for() {
    for _ in $(seq $(($1 * 20))); do
        grep -q "$3" "$2" 2>/dev/null && return
        sleep 0.05
    done
    cat "$2"
    fail "no $3 within $1 s"
}

start_infer() { # NAME: its process id goes to $infer
    "$PARAMILL" infer --router "$back" --store "$work/store" --model small --version stable 2>"$work/$1.log" &
    infer=$!
    pids+=("$infer")
    wait_for 10 "$work/$1.log" event=serves
}

start_load() { # SECONDS [--until-versions N]
    "$load" --router "$front" --model small --rate 200 --seconds "$@" >"$work/load" 2>&1 &
    sender=$!
    pids+=("$sender")
}

end_load() { # WHAT
    wait "$sender" || { cat "$work/load" "$work"/*.log; fail "requests failed: $1"; }
    sed "s/^/$1: /" "$work/load"
}

label "${versions[0]}"
"$PARAMILL" router --front 'tcp://127.0.0.1:*' --back 'tcp://127.0.0.1:*' 2>"$work/router.log" &
pids+=($!)
wait_for 10 "$work/router.log" event=listening
front=$(sed -n 's/.*front=\([^ ]*\).*/\1/p' "$work/router.log" | head -n 1)
back=$(sed -n 's/.*back=\([^ ]*\).*/\1/p' "$work/router.log" | head -n 1)
start_infer one
first=$infer
start_infer two
second=$infer

start_load 120 --until-versions 11
for version in "${versions[@]:1}"; do
    sleep 0.5
    label "$version"
    wait_for 20 "$work/router.log" "event=worker_serves .*version=$((10#$version)) "
done
end_load "10 swaps"
grep -q "^11 versions answered" "$work/load" || fail "not every version answered"

start_load 5
sleep 2
kill -9 "$first"
end_load "kill -9"
wait_for 5 "$work/router.log" 'event=worker_\(gone\|silent\)'

start_infer three
start_load 4
sleep 1.5
kill -TERM "$second"
wait "$second" || fail "the stopped worker's exit code"
end_load "SIGTERM"
grep -q event=worker_left "$work/router.log" || fail "the stopped worker did not take its leave"

PYTHONPATH=$BUILD/client/python:${PYTHONPATH:-} /usr/bin/python3 - "$front" <<'PY' || fail "bits alone and in batches"
import sys
import numpy as np
from paramill import Client
rows = np.random.default_rng(7).random((24, 1, 28, 28), dtype=np.float32)
with Client([sys.argv[1]], "small") as client:
    together = client.infer(rows)
    for i in range(len(rows)):
        alone = client.infer(rows[i:i + 1])
        assert alone.digest == together.digest and alone.version == together.version
        assert alone.output[0].tobytes() == together.output[i].tobytes(), i
PY
echo "same bits alone and in a batch"
