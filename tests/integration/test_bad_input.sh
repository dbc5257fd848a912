#!/usr/bin/env bash
# What is wrong is said in one line, with what and where, and a non-zero exit code; nothing published is lost.
. "$(dirname "$0")/lib.sh"
small_data 512

# refused NAME PATTERN COMMAND…: the command fails, and its one line on standard error holds the pattern.
refused() {
    local name=$1 pattern=$2 code=0
    shift 2
    timeout -k 5 60 "$@" >"$work/out" 2>"$work/err" || code=$?
    [ "$code" -ne 0 ] && [ "$code" -ne 124 ] || { cat "$work/out" "$work/err"; fail "$name: exit code $code"; }
    grep -qE -- "$pattern" "$work/err" || { cat "$work/err"; fail "$name: no line with $pattern"; }
    [ "$(grep -c '^paramill' "$work/err")" -eq 1 ] || { cat "$work/err"; fail "$name: more than one line"; }
    echo "refused: $name"
}

small_job "$work/job.yaml" "$work/store" 1 1
sed 's/lanes: 8/lane: 8/' "$work/job.yaml" >"$work/bad.yaml"
refused "a wrong key" 'bad.yaml:[0-9]+: .*lane' "$PARAMILL" train "$work/bad.yaml"
sed 's/units: 32/units: x/' "$work/job.yaml" >"$work/bad.yaml"
refused "a wrong type" 'bad.yaml:[0-9]+: ' "$PARAMILL" train "$work/bad.yaml"
sed 's/kernel: 3/kernel: 99/' "$work/job.yaml" >"$work/bad.yaml"
refused "a shape that does not fit" 'layers\[0\] \(Conv\)' "$PARAMILL" train "$work/bad.yaml"
refused "a missing job" 'none.yaml' "$PARAMILL" train "$work/none.yaml"

head -c 1000 "$work/train-x" >"$work/short-x"
sed "s#$work/train-x#$work/short-x#" "$work/job.yaml" >"$work/bad.yaml"
refused "truncated data" 'short-x: truncated' "$PARAMILL" train "$work/bad.yaml"
sed "s#$work/train-x#$work/job.yaml#" "$work/job.yaml" >"$work/bad.yaml"
refused "data that are no IDX" 'job.yaml: no IDX' "$PARAMILL" train "$work/bad.yaml"
sed "s#$work/train-y#$work/test-y#" "$work/job.yaml" >"$work/bad.yaml"
refused "counts that differ" 'train-x has 512 rows.*test-y has 128' "$PARAMILL" train "$work/bad.yaml"
sed 's/shape: \[1, 28, 28\]/shape: [1, 14, 28]/' "$work/job.yaml" >"$work/bad.yaml"
refused "rows that do not fit the model" 'a row has 784 values' "$PARAMILL" train "$work/bad.yaml"

timeout 60 "$PARAMILL" train "$work/job.yaml" >/dev/null 2>&1 || fail "the good job"
before=$(ls "$work/store/small/versions")
sed 's/learning_rate: 0.003/learning_rate: 3e38/; s/kind: adam/kind: sgd/; s/epochs: 2/epochs: 9/' "$work/job.yaml" >"$work/nan.yaml"
refused "a loss that is no number" 'step [0-9]+' "$PARAMILL" train --resume "$work/nan.yaml"
[ "$(ls "$work/store/small/versions")" = "$before" ] || fail "versions changed after a NaN"
"$PARAMILL" snapshot verify "$work/store" small all >/dev/null || fail "a version does not verify"

refused "an unreachable peer" 'tcp://127.0.0.1:1' "$PARAMILL" status tcp://127.0.0.1:1
if have_mpirun; then
    code=0
    timeout -k 5 60 "${mpirun[@]}" -n 3 "$PARAMILL" train "$work/job.yaml" >"$work/out" 2>&1 || code=$?
    [ "$code" -ne 0 ] && grep -q '3 ranks; the job takes 4' "$work/out" || { cat "$work/out"; fail "too few ranks"; }
    echo "refused: too few ranks"
fi
