#!/usr/bin/env bash
# paramill plan shows every example, for inference and training, as text and as a picture that is XML.
. "$(dirname "$0")/lib.sh"
[ "${SANITIZE:-}" != thread ] || skip "other tests watch threads"
cd "$work"
for job in "$SOURCE"/examples/*.yaml; do
    profile=--profile
    [ -z "${SANITIZE:-}" ] || [ "${job##*/}" = demo.yaml ] || profile= # the large ones take minutes there
    for how in "" --training; do
        timeout -k 5 100 "$PARAMILL" plan "$job" --rows 16 $how $profile --svg picture.svg >out 2>err ||
            { cat err; fail "plan $job $how"; }
        grep -q "^total .*MFLOP" out || fail "no totals of $job $how"
        [ -z "$profile" ] || grep -q "^time .*GFLOP/s" out || fail "no times of $job $how"
        grep -Eq "^peak   [0-9]+ bytes" out || fail "no peak of $job $how"
        python3 -c 'import sys, xml.dom.minidom as d; r = d.parse("picture.svg").documentElement; sys.exit(r.tagName != "svg" or len(r.getElementsByTagName("rect")) < 10)' ||
            fail "the picture of $job $how"
    done
done

job=$SOURCE/examples/fashion-resnet.yaml
timeout -k 5 100 "$PARAMILL" plan "$job" --training --memory 80 >out 2>err || { cat err; fail "a step within 80 MiB"; }
grep -q "made in [2-9] segments" out || fail "a step within 80 MiB makes nothing again"
[ "$(sed -n 's/^peak   \([0-9]*\) .*/\1/p' out)" -le $((80 << 20)) ] || fail "a step within 80 MiB takes more"

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
refused "needs [0-9]* bytes even where" "$job" --training --memory 50
refused "wanted 1 to" "$job" --training --memory 1e9
refused "is for --training" "$job" --memory 50
