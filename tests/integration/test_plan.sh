#!/usr/bin/env bash
# paramill plan shows every example, for inference and training, as text and as a picture that is XML.
. "$(dirname "$0")/lib.sh"
cd "$work"
for job in "$SOURCE"/examples/*.yaml; do
    for how in "" --training; do
        timeout -k 5 100 "$PARAMILL" plan "$job" --rows 16 $how --profile --svg picture.svg >out 2>err ||
            { cat err; fail "plan $job $how"; }
        grep -q "^total .*MFLOP" out || fail "no totals of $job $how"
        grep -q "^time .*GFLOP/s" out || fail "no times of $job $how"
        grep -Eq "^peak   [0-9]+ bytes" out || fail "no peak of $job $how"
        python3 -c 'import sys, xml.dom.minidom as d; r = d.parse("picture.svg").documentElement; sys.exit(r.tagName != "svg" or len(r.getElementsByTagName("rect")) < 10)' ||
            fail "the picture of $job $how"
    done
done

refused() {
    local wanted=$1
    shift
    if timeout -k 5 100 "$PARAMILL" plan "$@" >out 2>err; then fail "plan $* succeeds"; fi
    grep -q "$wanted" err || { cat err; fail "plan $*: wanted \"$wanted\""; }
}
refused "none.onnx" none.onnx
echo "this is no model" >bad.onnx
refused "not an ONNX model" bad.onnx
refused "wanted 1 to" "$SOURCE/examples/fashion-mlp.yaml" --rows 0
refused "usage" "$SOURCE/examples/fashion-mlp.yaml" extra
refused "divisible by the job's" "$SOURCE/examples/fashion-mlp.yaml" --rows 3 --training
