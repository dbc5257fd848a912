#!/usr/bin/env bash
# The ONNX backend suite (Debian's libonnx-testdata): as many cases pass as the engine claims, and none is wrong: what
# is not passed is refused by name.
. "$(dirname "$0")/lib.sh"

data=/usr/share/libonnx-testdata/data
[ -d "$data" ] || skip "libonnx-testdata is not installed"

# suite, cases that must pass
claims=(node 770 pytorch-converted 82 pytorch-operator 35 simple 7)
failed=0
for ((i = 0; i < ${#claims[@]}; i += 2)); do
    suite=${claims[i]} least=${claims[i + 1]}
    report=$("$PARAMILL" conformance "$data/$suite") || { echo "$report" | grep -E '^(WRONG|CRASHED)'; failed=1; }
    total=$(echo "$report" | tail -n 1)
    passed=$(echo "$total" | sed -E 's/.* ([0-9]+) passed.*/\1/')
    echo "$suite: $total"
    [ "$passed" -ge "$least" ] || { echo "$suite: $passed cases pass, $least must"; failed=1; }
done

# Every refusal says why.
if "$PARAMILL" conformance "$data/node" --list --only 'test_loop*' | grep -E '^unsupported [^:]*$'; then
    echo "a case is refused without a reason"
    failed=1
fi
exit $failed
