#!/usr/bin/env bash
# Losses beside cross-entropy, against floats and classes: each learns what it is for, with the same bits on any cluster.
. "$(dirname "$0")/lib.sh"
python3 - "$work" <<'PY'
import struct, sys
state = 1
def draw():
    global state
    state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
    return (state >> 33) / 2**30 - 1
rows = 600
x = [[draw() for _ in range(4)] for _ in range(rows)]
y = [[0.5 * r[0] - r[1], r[2] * 2 + 0.25] for r in x]
def write(path, data):
    with open(path, "wb") as f:
        f.write(bytes([0, 0, 0x0D, 2]) + struct.pack(">II", len(data), len(data[0])))
        for row in data:
            f.write(struct.pack(f">{len(row)}f", *row))
write(f"{sys.argv[1]}/x", x)
write(f"{sys.argv[1]}/values", y)
write(f"{sys.argv[1]}/sides", [[float(v > 0) for v in row] for row in y])
with open(f"{sys.argv[1]}/chosen", "wb") as f:
    f.write(bytes([0, 0, 8, 1]) + struct.pack(">I", rows) + bytes(row[1] > row[0] for row in y))
PY

# metrics STORE: those of the newest version.
metrics() {
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["metrics"])' "$(ls -d "$1"/small/versions/* | tail -n 1)/manifest.json"
}

# job FILE STORE LOSS TARGETS WORKERS
job() {
    cat >"$1" <<YAML
name: small
seed: 5
model:
  input: {name: x, shape: [4]}
  layers: [{op: Gemm, units: 2}]
data: {train: {features: $work/x, targets: $work/$4}, validation_split: 0.2}
loss: $3
$(case $3 in mean*) echo "metrics: [rmse]" ;; binary*) echo "metrics: [accuracy, f1, log_loss]" ;; esac)
optimizer: {kind: adam, learning_rate: 0.1, schedule: cosine}
batch: 32
lanes: 4
epochs: 20
cluster: {servers: 1, workers: $5}
checkpoint: {store: $2}
YAML
}
for loss in mean_squared_error l1 binary_cross_entropy bpr; do
    case $loss in binary*) targets=sides most=0.25 ;; bpr) targets=chosen most=0.25 ;; *) targets=values most=0.05 ;; esac
    job "$work/$loss.yaml" "$work/$loss" $loss $targets 1
    timeout -k 5 100 "$PARAMILL" train "$work/$loss.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "$loss"; }
    case $loss in mean* | l1) ! grep -q accuracy "$work/log" || fail "$loss has an accuracy" ;; esac
    got=$(sed -n 's/^validation.*loss \([0-9.]*\).*/\1/p' "$work/log" | tail -n 1)
    python3 -c "import sys; sys.exit(not $got < $most)" || { cat "$work/log"; fail "$loss is $got"; }
    job "$work/$loss.yaml" "$work/$loss-2" $loss $targets 4
    timeout -k 5 100 "$PARAMILL" train "$work/$loss.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "$loss with 4"; }
    [ "$(weights "$work/$loss")" = "$(weights "$work/$loss-2")" ] || fail "$loss: other bits with 4 workers"
    [ "$(metrics "$work/$loss")" = "$(metrics "$work/$loss-2")" ] || fail "$loss: other metrics with 4 workers"
done
python3 - "$(metrics "$work/mean_squared_error")" "$(metrics "$work/binary_cross_entropy")" "$(metrics "$work/bpr")" <<'PY' || fail "metrics"
import ast, sys
values, sides, ranks = map(ast.literal_eval, sys.argv[1:])
assert "validation_accuracy" not in values and "train_accuracy" not in values, values
assert ranks["validation_accuracy"] > 0.9, ranks
assert abs(values["validation_rmse"] ** 2 - values["validation_loss"]) < 1e-12, values
assert sides["validation_log_loss"] == sides["validation_loss"], sides
assert sides["validation_accuracy"] <= sides["validation_f1"] and sides["validation_f1"] > 0.9, sides
PY
job "$work/bad.yaml" "$work/bad" softmax_cross_entropy values 1
if "$PARAMILL" train "$work/bad.yaml" >"$work/log" 2>&1; then fail "classes that are floats"; fi
grep -q 'softmax_cross_entropy takes one unsigned byte a row' "$work/log" || { cat "$work/log"; fail "floats are not named"; }
echo "mean squared error, l1, binary cross-entropy and ranking learn"
