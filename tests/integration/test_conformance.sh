#!/usr/bin/env bash
# The ONNX backend suite: none wrong, every case that is not passed is refused by name, and no fewer passed than before.
. "$(dirname "$0")/lib.sh"
data=/usr/share/libonnx-testdata/data
[ -d "$data/node" ] || skip "libonnx-testdata is not installed"

# at_least SUITE PASSED
at_least() {
    "$PARAMILL" conformance --list "$data/$1" >"$work/list" || { grep -v '^passed' "$work/list"; fail "$1: a case is wrong"; }
    local total passed
    total=$(tail -n 1 "$work/list")
    passed=$(sed -E 's/.* ([0-9]+) passed.*/\1/' <<<"$total")
    [ "$passed" -ge "$2" ] || fail "$1: $total"
    if grep '^unsupported' "$work/list" | grep -vE ': .+'; then fail "$1: refused without a reason"; fi
    echo "$1: $total"
}
at_least node 810
at_least pytorch-converted 82
at_least pytorch-operator 35
at_least simple 7
