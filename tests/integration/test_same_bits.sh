#!/usr/bin/env bash
# The same bulk-synchronous job gives byte-identical weights for any number of workers and servers, embedded, as
# processes and under mpirun, by workers of several threads, and after a resume from any version on another cluster.
. "$(dirname "$0")/lib.sh"
small_data 2048

reference=
agree() { # NAME STORE
    local now
    now=$(weights "$2")
    reference=${reference:-$now}
    [ "$now" = "$reference" ] || fail "$1: $now, the first run gave $reference"
    echo "same bits: $1"
}

servers_tried="1 2 3"
[ -z "${SANITIZE:-}" ] || servers_tried="1 3"
for workers in 1 2 4; do
    for servers in $servers_tried; do
        for how in embedded up mpirun; do
            name=$how-$servers-$workers store=$work/$how-$servers-$workers
            small_job "$work/job.yaml" "$store" "$servers" "$workers"
            case $how in
            embedded) run=("$PARAMILL" train) ;;
            up) run=("$PARAMILL" up) ;;
            mpirun) have_mpirun || { echo "left out, no usable mpirun: $name"; continue; }
                run=("${mpirun[@]}" -n $((2 + servers + workers)) "$PARAMILL" train) ;;
            esac
            timeout -k 5 120 "${run[@]}" "$work/job.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "$name"; }
            agree "$name" "$store"
        done
    done
done

small_job "$work/job.yaml" "$work/shards" 1 2
sed -i "s/workers: 2/workers: 2, shards_per_server: 3/" "$work/job.yaml"
timeout -k 5 120 "$PARAMILL" up "$work/job.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "shards"; }
agree "three shards a server" "$work/shards"

small_job "$work/job.yaml" "$work/sockets" 2 2
timeout -k 5 120 "$PARAMILL" up --no-shared-memory "$work/job.yaml" >"$work/log" 2>&1 ||
    { cat "$work/log"; fail "sockets"; }
agree "all through sockets" "$work/sockets"

for threads in 2 3; do
    small_job "$work/job.yaml" "$work/threads-$threads" 1 1
    sed -i "s/workers: 1/workers: 1, worker_threads: $threads/" "$work/job.yaml"
    grep -q worker_threads "$work/job.yaml" || fail "the job has no worker_threads"
    timeout -k 5 120 "$PARAMILL" train "$work/job.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "threads"; }
    agree "a worker of $threads threads" "$work/threads-$threads"
done

same=$reference
reference=
for workers in 1 2 4; do
    store=$work/bf16-$workers
    small_job "$work/job.yaml" "$store" 2 $workers
    echo "precision: bf16" >>"$work/job.yaml"
    timeout -k 5 120 "$PARAMILL" train "$work/job.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "bf16"; }
    agree "bf16, $workers workers" "$store"
done
[ "$reference" != "$same" ] || fail "bf16 gives the bits of f32"
grep -q '"kernel_set": *"[a-z0-9]*+blis-' "$store/small/versions/"*/manifest.json || fail "no kernel set is recorded"
reference=$same

first=$work/embedded-1-1
for version in $(ls "$first/small/versions" | sort | head -n -1); do
    store=$work/resumed
    rm -rf "$store"
    mkdir -p "$store/small/versions"
    for v in $(ls "$first/small/versions" | sort); do
        cp -r "$first/small/versions/$v" "$store/small/versions/"
        [ "$v" = "$version" ] && break
    done
    small_job "$work/job.yaml" "$store" 3 2
    timeout -k 5 120 "$PARAMILL" train --resume "$work/job.yaml" >"$work/log" 2>&1 ||
        { cat "$work/log"; fail "resume from $version"; }
    agree "resumed from version $version" "$store"
done
"$PARAMILL" snapshot verify "$first" small all >/dev/null || fail "a published version does not verify"
