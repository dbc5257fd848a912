#!/usr/bin/env bash
# Tables of which a step pulls and pushes only the rows that its data name: the same bits for any number of workers and
# servers, after a resume and after the loss of a worker or a server, and what a job with dense tables learns.
. "$(dirname "$0")/lib.sh"
click_data 1500
sgd='{kind: sgd, learning_rate: 0.1}'
adagrad='{kind: adagrad, learning_rate: 0.05, initial_accumulator: 0.1}'

run() { # NAME HOW SERVERS WORKERS OPTIMIZER SPARSE
    click_job "$work/$1.yaml" "$work/$1" "$3" "$4" "$5" "$6"
    timeout -k 5 120 "$PARAMILL" "$2" "$work/$1.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "$1"; }
}

for servers in 1 2; do
    for workers in 1 2 4; do
        name=train-$servers-$workers
        run "$name" train "$servers" "$workers" "$adagrad" true
        [ "$(weights "$work/$name")" = "$(weights "$work/train-1-1")" ] || fail "other bits: $name"
    done
done
run up up 2 3 "$adagrad" true
[ "$(weights "$work/up")" = "$(weights "$work/train-1-1")" ] || fail "other bits under up"
echo "same bits on every cluster"

versions=$(ls "$work/train-1-1/small/versions" | sort)
store=$work/resumed
mkdir -p "$store/small/versions"
for v in $(head -n 2 <<<"$versions"); do
    cp -r "$work/train-1-1/small/versions/$v" "$store/small/versions/"
done
click_job "$work/resumed.yaml" "$store" 2 2 "$adagrad" true
timeout -k 5 120 "$PARAMILL" train --resume "$work/resumed.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "resume"; }
[ "$(weights "$store")" = "$(weights "$work/train-1-1")" ] || fail "other bits after a resume"
echo "same bits after a resume"

run sparse train 2 2 "$sgd" true
run dense train 1 2 "$sgd" false
python3 - "$work"/{sparse,dense}/small/versions/"$(ls "$work/dense/small/versions" | sort | tail -n 1)"/model.safetensors <<'PY'
import array, json, struct, sys

def read(path):
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    return {name: array.array("f", data[8 + size + t["data_offsets"][0]:8 + size + t["data_offsets"][1]])
            for name, t in header.items()}

sparse, dense = read(sys.argv[1]), read(sys.argv[2])
assert sparse.keys() == dense.keys()
worst = max(abs(a - b) for name in dense for a, b in zip(sparse[name], dense[name]))
assert worst <= 1e-6, worst
print(f"sgd on sparse tables is sgd on dense ones: the largest difference is {worst:g}")
PY

epochs=18 # so that the job still runs when its process is found
[ -z "${SANITIZE:-}" ] || epochs=6
click_job "$work/calm.yaml" "$work/calm" 2 2 "$adagrad" true $epochs
timeout -k 5 200 "$PARAMILL" train "$work/calm.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "undisturbed run"; }
for role in worker server; do
    store=$work/$role
    click_job "$work/$role.yaml" "$store" 2 2 "$adagrad" true $epochs
    survive_kill "$role" "$work/$role.yaml" "$store" "$work/calm"
done
