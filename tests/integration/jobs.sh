# Small data and jobs for the integration tests. Wants: work (a folder), fashion (the data set).

# small_data ROWS: the first rows of Fashion-MNIST as plain IDX files train-x, train-y, test-x, test-y in $work.
small_data() {
    [ -e "$fashion/train-images-idx3-ubyte.gz" ] || skip "the package dataset-fashion-mnist is not installed"
    python3 - "$fashion" "$work" "$1" <<'PY'
import gzip, struct, sys
source, target, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
for kind, name in (("train", "train"), ("t10k", "test")):
    n = rows if kind == "train" else max(100, rows // 4)
    for suffix, head, row, out in (("images-idx3", 16, 784, "x"), ("labels-idx1", 8, 1, "y")):
        data = gzip.open(f"{source}/{kind}-{suffix}-ubyte.gz").read(head + n * row)
        with open(f"{target}/{name}-{out}", "wb") as f:
            f.write(data[:4] + struct.pack(">I", n) + data[8:])
PY
}

# small_job FILE STORE SERVERS WORKERS [EPOCHS]: a small model with every kind of layer that matters to the bits.
small_job() {
    cat >"$1" <<YAML
name: small
seed: 5
model:
  input: {name: image, shape: [1, 28, 28]}
  layers:
    - {op: Conv, channels: 4, kernel: 3, pad: 1, stride: 2, no_bias: true}
    - {op: BatchNormalization}
    - {op: Relu}
    - {op: MaxPool, kernel: 2}
    - {op: Flatten}
    - {op: Dropout, ratio: 0.25}
    - {op: Gemm, units: 32}
    - {op: Tanh}
    - {op: Gemm, units: 10}
data:
  train: {features: $work/train-x, targets: $work/train-y}
  validation: {features: $work/test-x, targets: $work/test-y}
  augment: [{op: shift, pixels: 2}, {op: rotate, degrees: 10}, {op: noise, deviation: 0.05}, {op: cutout, pixels: 4}, {op: mixup, alpha: 0.2}]
loss: softmax_cross_entropy
label_smoothing: 0.05
metrics: [accuracy, top_5, f1]
class_weights: [1, 1, 1.5, 1, 1, 1, 2, 1, 1, 1]
optimizer: {kind: adam, learning_rate: 0.003, learning_rates: [{match: "gemm1.*", factor: 0.5}]}
batch: 64
lanes: 8
epochs: ${5:-2}
cluster: {servers: $3, workers: $4}
checkpoint: {store: $2, every_steps: 10, keep: 100}
YAML
}

# weights STORE [VERSION]: the SHA-256 of a version's model.safetensors, of the newest by default.
weights() {
    local folder
    folder=$1/small/versions/${2:-$(ls "$1/small/versions" | sort | tail -n 1)}
    sha256sum "$folder/model.safetensors" | cut -d ' ' -f 1
}

# click_data ROWS: rows of four numbers and three categories, skewed, and whether each was clicked, as IDX files clicks-x,
# clicks-y in $work.
click_data() {
    python3 - "$work" "$1" <<'PY'
import random, struct, sys
work, rows = sys.argv[1], int(sys.argv[2])
draw = random.Random(3)
x, y = [], []
for _ in range(rows):
    numbers = [draw.gauss(0, 1) for _ in range(4)]
    ids = [int(40000 * draw.random() ** power) for power in (1, 3, 8)]
    x += numbers + ids
    y.append(float(numbers[0] + 0.5 * (ids[2] % 3) - 0.7 + draw.gauss(0, 0.5) > 0))
for name, shape, values in ("x", (rows, 7), x), ("y", (rows, 1), y):
    with open(f"{work}/clicks-{name}", "wb") as f:
        f.write(struct.pack(f">I{len(shape)}I", 0x0D00 + len(shape), *shape) + struct.pack(f">{len(values)}f", *values))
PY
}

# click_job FILE STORE SERVERS WORKERS OPTIMIZER SPARSE [EPOCHS]: a small DLRM whose tables have three slices each.
click_job() {
    cat >"$1" <<YAML
name: small
seed: 5
model:
  input: {name: x, shape: [7]}
  layers:
    - {op: DotInteraction, numbers: 4, vocabulary: 40000, units: 16, sparse: $6, layers: [{op: Gemm, units: 16}, {op: Relu}]}
    - {op: Gemm, units: 16}
    - {op: Relu}
    - {op: Gemm, units: 1}
data:
  train: {features: $work/clicks-x, targets: $work/clicks-y}
  validation_split: 0.1
loss: binary_cross_entropy
metrics: [accuracy, auc]
optimizer: $5
batch: 64
lanes: 8
epochs: ${7:-2}
cluster: {servers: $3, workers: $4}
checkpoint: {store: $2, every_steps: 10, keep: 100}
YAML
}

# Runs the job, kills a process of the role in its midst, and holds the weights against those of the undisturbed run.
survive_kill() { # ROLE JOB STORE CALM_STORE
    local role=$1 up supervisor victim
    timeout -k 5 200 "$PARAMILL" up "$2" >"$work/log" 2>&1 &
    pids+=($!)
    up=$!
    for _ in $(seq 300); do
        [ "$(ls "$3/small/versions" 2>/dev/null | wc -l)" -ge 3 ] && break
        sleep 0.05
    done
    supervisor=$(pgrep -P "$up" -x paramill || true)
    victim=$(pgrep -P "${supervisor:-$up}" -f "paramill $role" | head -n 1 || true)
    [ -n "$victim" ] || { cat "$work/log"; fail "no $role to kill"; }
    kill -9 "$victim"
    wait "$up" || { cat "$work/log"; fail "the job did not survive the loss of a $role"; }
    grep -q "event=died child=$role" "$work/log" || { cat "$work/log"; fail "the $role was not missed"; }
    [ "$(weights "$3")" = "$(weights "$4")" ] || fail "other bits after the loss of a $role"
    echo "same bits after kill -9 of a $role"
}
