#!/usr/bin/env bash
# A model that came in as an ONNX file, branches and all, is trained further: it gets better, with the same bits on any
# cluster, goes back out as ONNX, is served, and a file that changed is refused.
. "$(dirname "$0")/lib.sh"
BUILD=${BUILD:?the build tree}
/usr/bin/python3 -c 'import onnx' 2>/dev/null || skip "python3-onnx is not installed"
small_data 1024

# A small residual network with weights inside the file, as an exporter would write it.
/usr/bin/python3 - "$work/start.onnx" <<'PY'
import sys
import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper
rng = np.random.default_rng(3)
weights = {}
def weight(name, *shape):
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
    weights[name] = (rng.standard_normal(shape) * np.sqrt(2 / fan_in) if len(shape) > 1 else np.zeros(shape)).astype("f4")
    return name
def norm(name, channels):
    for role, value in (("scale", 1), ("bias", 0), ("mean", 0), ("var", 1)):
        weights[f"{name}.{role}"] = np.full(channels, value, "f4")
    return [f"{name}.{role}" for role in ("scale", "bias", "mean", "var")]
n = helper.make_node
nodes = [
    n("Conv", ["image", weight("stem.weight", 8, 1, 3, 3)], ["a"], name="stem", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    n("BatchNormalization", ["a", *norm("bn1", 8)], ["b"], name="bn1", epsilon=1e-5),
    n("Relu", ["b"], ["c"], name="relu1"),
    n("Conv", ["c", weight("block.weight", 8, 8, 3, 3), weight("block.bias", 8)], ["d"], name="block", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    n("Add", ["c", "d"], ["e"], name="join"),
    n("Relu", ["e"], ["f"], name="relu2"),
    n("MaxPool", ["f"], ["g"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
    n("Flatten", ["g"], ["h"], name="flatten"),
    n("Gemm", ["h", weight("head.weight", 10, 392), weight("head.bias", 10)], ["logits"], name="head", transB=1),
]
graph = helper.make_graph(nodes, "start", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 28, 28])],
                          [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
                          [numpy_helper.from_array(v, k) for k, v in weights.items()])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
model.ir_version = 8
checker.check_model(model)
open(sys.argv[1], "wb").write(model.SerializeToString())
PY

# job FILE STORE SERVERS WORKERS
job() {
    small_job "$1" "$2" "$3" "$4" 3
    sed -i -e '/^  augment: /d; /^label_smoothing/d; /^class_weights/d; /^  input: /d' -e '/^    - {op: /d' -e "s#^  layers:#  onnx: $work/start.onnx#" -e 's/learning_rates: .*}]/learning_rates: [{match: "stem.*", factor: 0}]/' "$1"
}
job "$work/one.yaml" "$work/one" 1 1
timeout -k 5 200 "$PARAMILL" train "$work/one.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "training from ONNX"; }
grep '^validation' "$work/log" | sed -n '1p;$p'
first=$(sed -n 's/^validation.*accuracy \([0-9.]*\).*/\1/p' "$work/log" | head -n 1)
last=$(sed -n 's/^validation.*accuracy \([0-9.]*\).*/\1/p' "$work/log" | tail -n 1)
python3 -c "import sys; sys.exit(not $first < $last > 0.55)" || fail "accuracy $first to $last"
job "$work/more.yaml" "$work/more" 2 4
timeout -k 5 200 "$PARAMILL" up "$work/more.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "training from ONNX under up"; }
[ "$(weights "$work/one")" = "$(weights "$work/more")" ] || fail "other bits on another cluster"

folder=$(ls -d "$work"/one/small/versions/* | tail -n 1)
/usr/bin/python3 - "$work/start.onnx" "$folder" <<'PY' || fail "what came out"
import json, struct, sys
import numpy as np
import onnx
from onnx import numpy_helper
before = {t.name: numpy_helper.to_array(t) for t in onnx.load(sys.argv[1]).graph.initializer}
onnx.checker.check_model(sys.argv[2] + "/model.onnx")
data = open(sys.argv[2] + "/model.safetensors", "rb").read()
length, = struct.unpack("<Q", data[:8])
header = json.loads(data[8:8 + length])
header.pop("__metadata__", None)
assert set(header) == set(before), (set(header), set(before))
for name, t in header.items():
    begin, end = t["data_offsets"]
    after = np.frombuffer(data[8 + length + begin:8 + length + end], "<f4").reshape(t["shape"])
    assert after.shape == before[name].shape, name
    assert (after == before[name]).all() == name.startswith("stem."), name
PY

"$PARAMILL" serve --store "$work/one" --model small --front "ipc://$work/front" >"$work/serve.log" 2>&1 &
pids+=($!)
"$BUILD/tests/forward" "$work/one.yaml" "$folder/model.safetensors" 64 >"$work/expected" || fail "forward"
PYTHONPATH=$BUILD/client/python timeout 60 /usr/bin/python3 - "$work" <<'PY' || { cat "$work/serve.log"; fail "served bits"; }
import sys, numpy, paramill
work = sys.argv[1]
x = numpy.fromfile(f"{work}/test-x", numpy.uint8)[16:].reshape(-1, 1, 28, 28)[:64].astype("f4") / 255
with paramill.Client(f"ipc://{work}/front", "small", timeout=30) as client:
    assert client.infer(x).output.tobytes() == open(f"{work}/expected", "rb").read()
PY

# A fresh last layer of 12 outputs on a frozen network: nothing else moves, not even the statistics.
job "$work/head.yaml" "$work/head" 1 2
sed -i -e "s#^  onnx: .*#  onnx: $work/start.onnx\n  replace_last: {units: 12}#" \
    -e 's/learning_rates: .*}]/learning_rates: [{match: "[sb]*", factor: 0}]/' "$work/head.yaml"
timeout -k 5 200 "$PARAMILL" train "$work/head.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "a fresh last layer"; }
/usr/bin/python3 - "$work/start.onnx" "$(ls -d "$work"/head/small/versions/* | tail -n 1)" <<'PY' || fail "what a fresh last layer came to"
import sys
import onnx
from onnx import numpy_helper
before = {t.name: numpy_helper.to_array(t) for t in onnx.load(sys.argv[1]).graph.initializer}
model = onnx.load(sys.argv[2] + "/model.onnx")
onnx.checker.check_model(sys.argv[2] + "/model.onnx")
assert model.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 12
for t in model.graph.initializer:
    after = numpy_helper.to_array(t, sys.argv[2])
    if t.name.startswith("head."):
        assert after.shape[0] == 12 and (after != 0).any(), t.name
    else:
        assert (after == before[t.name]).all(), t.name
PY
last=$(sed -n 's/^validation.*accuracy \([0-9.]*\).*/\1/p' "$work/log" | tail -n 1)
python3 -c "import sys; sys.exit(not $last > 0.5)" || { cat "$work/log"; fail "a fresh last layer learns to $last"; }

head -c 2000 "$work/start.onnx" >"$work/short.onnx"
sed "s#start.onnx#short.onnx#" "$work/one.yaml" >"$work/bad.yaml"
if "$PARAMILL" train "$work/bad.yaml" >"$work/log" 2>&1; then fail "a truncated model"; fi
grep -q 'short.onnx: ' "$work/log" || { cat "$work/log"; fail "a truncated model is not named"; }
echo "trained from ONNX, from $first to $last, with the same bits on another cluster"
