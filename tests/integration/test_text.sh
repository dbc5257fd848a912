#!/usr/bin/env bash
# A small GPT learns a text: the same bits on any cluster, its characters in the manifest, an ONNX file that others open,
# and an answer to whole numbers.
. "$(dirname "$0")/lib.sh"
python3 - "$work/text" <<'PY'
import sys
words = ["the", "crème", "of", "a", "mill", "turns", "and", "grinds"]
state, out = 7, []
for _ in range(3000):
    state = state * 1103515245 + 12345 & 0x7fffffff
    out.append(words[(state >> 16) % len(words)])
open(sys.argv[1], "w", encoding="utf-8").write(" ".join(out))
PY

# job FILE STORE SERVERS WORKERS
job() {
    cat >"$1" <<YAML
name: small
seed: 5
model:
  input: {name: tokens, shape: [16]}
  layers:
    - {op: Embedding, vocabulary: 20, units: 32}
    - {op: PositionEmbedding}
    - {op: Transformer, heads: 4, ratio: 0.05}
    - {op: Transformer, heads: 2, no_bias: true}
    - {op: LayerNormalization}
    - {op: MatMul, units: 20, no_bias: true}
data: {type: text, path: $work/text, context: 16}
loss: softmax_cross_entropy
optimizer: {kind: adamw, learning_rate: 0.003, min_learning_rate: 0.0003, schedule: cosine, warmup_steps: 10,
            weight_decay: 0.1, decay: matrices, beta2: 0.99}
batch: 16
lanes: 4
epochs: 3
steps_per_epoch: 50
cluster: {servers: $3, workers: $4}
checkpoint: {store: $2}
YAML
}
job "$work/one.yaml" "$work/one" 1 1
timeout -k 5 200 "$PARAMILL" train "$work/one.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "training on a text"; }
loss=$(sed -n 's/^validation.*loss \([0-9.]*\).*/\1/p' "$work/log" | tail -n 1)
python3 -c "import sys; sys.exit(not $loss < 1.6)" || { cat "$work/log"; fail "loss $loss"; }
job "$work/more.yaml" "$work/more" 2 4
timeout -k 5 200 "$PARAMILL" up "$work/more.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "under up"; }
[ "$(weights "$work/one")" = "$(weights "$work/more")" ] || fail "other bits on another cluster"

folder=$(ls -d "$work"/more/small/versions/* | tail -n 1)
python3 - "$folder/manifest.json" "$work/text" <<'PY' || fail "the manifest"
import json, sys
manifest = json.load(open(sys.argv[1]))
assert manifest["vocabulary"] == "".join(sorted(set(open(sys.argv[2], encoding="utf-8").read()))), manifest["vocabulary"]
PY
if /usr/bin/python3 -c 'import onnx' 2>/dev/null; then
    /usr/bin/python3 -c 'import onnx, sys; onnx.checker.check_model(sys.argv[1])' "$folder/model.onnx" || fail "its ONNX"
fi

"$PARAMILL" serve --store "$work/more" --model small --front "ipc://$work/front" >"$work/serve.log" 2>&1 &
pids+=($!)
# "grinds the mill o": what follows is "f".
python3 - "$folder/manifest.json" "$work" <<'PY'
import json, sys
vocabulary = json.load(open(sys.argv[1]))["vocabulary"]
text = "grinds the mill o"[-16:]
json.dump([[vocabulary.index(c) for c in text]], open(f"{sys.argv[2]}/ask.json", "w"))
json.dump([[1.5] * 16], open(f"{sys.argv[2]}/bad.json", "w"))
print(vocabulary.index("f"), file=open(f"{sys.argv[2]}/wanted", "w"))
PY
for _ in $(seq 100); do
    "$PARAMILL" query --router "ipc://$work/front" --model small --top 1 "$work/ask.json" >"$work/answer" 2>"$work/error" && break
    sleep 0.1
done
grep -q "^class $(cat "$work/wanted") " "$work/answer" || { cat "$work/answer" "$work/error"; fail "what follows"; }
if "$PARAMILL" query --router "ipc://$work/front" --model small "$work/bad.json" 2>"$work/error"; then fail "fractions"; fi
grep -q 'whole numbers' "$work/error" || { cat "$work/error"; fail "fractions are not named"; }
head -c 1000 "$work/text" >"$work/short"
printf '\377' >>"$work/short"
sed "s#path: $work/text#path: $work/short#" "$work/one.yaml" >"$work/bad.yaml"
if "$PARAMILL" train "$work/bad.yaml" >"$work/log" 2>&1; then fail "a text that is none"; fi
grep -q 'short: byte [0-9]* is not UTF-8 text' "$work/log" || { cat "$work/log"; fail "it is not named"; }
echo "a text learned to a loss of $loss, with the same bits on another cluster"
