#!/usr/bin/env bash
# A worker that may not keep all activations makes some again, and the job's bits stay.
. "$(dirname "$0")/lib.sh"
small_data 256

# job FILE STORE [MIB]: several layers of 4 MB each, the last of them small.
job() {
    small_job "$1" "$2" 1 2 1
    sed -i -e 's/{op: Conv, channels: 4, kernel: 3, pad: 1, stride: 2, no_bias: true}/{op: Conv, channels: 16, kernel: 3, pad: 1}/' \
        -e 's/^    - {op: Relu}/&\n    - {op: Conv, channels: 16, kernel: 3, pad: 1}\n    - {op: Tanh}\n    - {op: Sigmoid}\n    - {op: Tanh}/' "$1"
    [ -z "${3:-}" ] || sed -i "s/workers: 2/workers: 2, worker_memory_mib: $3/" "$1"
}
peak() { "$PARAMILL" plan "$1" --training | sed -n 's/^peak   \([0-9]*\) .*/\1/p'; }

job "$work/whole.yaml" "$work/whole"
all=$(peak "$work/whole.yaml")
less=$((all * 7 / 8 >> 20))
job "$work/less.yaml" "$work/less" "$less"
[ "$(peak "$work/less.yaml")" -le $((less << 20)) ] || fail "the plan takes more than $less MiB"
for which in whole less; do
    timeout -k 5 200 "$PARAMILL" train "$work/$which.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "$which"; }
done
[ "$(weights "$work/whole")" = "$(weights "$work/less")" ] || fail "other bits with less memory"

job "$work/none.yaml" "$work/none" 1
if timeout -k 5 200 "$PARAMILL" train "$work/none.yaml" >"$work/log" 2>&1; then fail "a job in 1 MiB succeeds"; fi
grep -q "may have 1048576" "$work/log" || { cat "$work/log"; fail "no word of the memory"; }
echo "$all bytes, and the same bits within $less MiB"
