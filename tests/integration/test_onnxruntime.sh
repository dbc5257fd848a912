#!/usr/bin/env bash
# model.onnx + model.safetensors of a published version open in ONNX Runtime and agree with the trainer's own forward pass.
. "$(dirname "$0")/lib.sh"
[ "${SANITIZE:-}" != thread ] || skip "other tests watch threads"
"$SOURCE/tests/node/install" || exit $?
BUILD=${BUILD:?the build tree}
node_folder=$SOURCE/build/node
cp "$SOURCE/tests/node/onnxruntime.mjs" "$node_folder/"
small_data 1024
/usr/bin/python3 -c "
import numpy
numpy.fromfile('$work/test-x', numpy.uint8)[16:].astype('<f4').__truediv__(numpy.float32(255)).tofile('$work/input.f32')"
rows=256

# agrees NAME JOB: trains the job and compares its newest version.
agrees() {
    timeout -k 5 200 "$PARAMILL" train "$2" >"$work/log" 2>&1 || { cat "$work/log"; fail "training $1"; }
    local folder
    folder=$(ls -d "$work/store-$1"/*/versions/* | sort | tail -n 1)
    "$BUILD/tests/forward" "$2" "$folder/model.safetensors" "$rows" >"$work/output.f32" || fail "forward $1"
    node "$node_folder/onnxruntime.mjs" "$folder/model.onnx" "$work/input.f32" "$work/output.f32" 1e-5 || fail "$1 differs"
}

small_job "$work/small.yaml" "$work/store-small" 1 1
agrees small "$work/small.yaml"
for example in fashion-mlp fashion-cnn fashion-cnn-bn; do
    /usr/bin/python3 - "$SOURCE/examples/$example.yaml" "$work" "$example" <<'PY'
import sys, yaml
path, work, name = sys.argv[1:]
job = yaml.safe_load(open(path))
job.update(epochs=1, batch=64, lanes=8, cluster={"servers": 1, "workers": 1})
job["data"] = {"train": {"features": f"{work}/train-x", "targets": f"{work}/train-y"},
               "validation": {"features": f"{work}/test-x", "targets": f"{work}/test-y"}}
job["checkpoint"] = {"store": f"{work}/store-{name}", "every_steps": 1000, "keep": 1}
yaml.safe_dump(job, open(f"{work}/{name}.yaml", "w"))
PY
    agrees "$example" "$work/$example.yaml"
done
