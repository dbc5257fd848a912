#!/usr/bin/env bash
# paramill bench model prints every figure beside its limit, and refuses what it does not know.
. "$(dirname "$0")/lib.sh"
[ -z "${SANITIZE:-}" ] || skip "figures of sanitized builds say nothing"
cd "$work"
timeout -k 5 300 "$PARAMILL" bench model --quick --threads 2 >figures 2>err || { cat err; fail "bench model"; }
expect() { [ "$(grep -cE "$2" figures)" -eq "$1" ] || { cat figures; fail "wanted $1 of $2"; }; }
expect 2 '^limit (multiply-adds|memory): [0-9.]+ G'
expect 5 '^product [0-9x]+: [0-9.]+ us, [0-9.]+ GFLOP/s, [0-9.]+ of multiply-adds$'
expect 15 '^frozen [0-9x]+: [0-9.]+ us, [0-9.]+ GFLOP/s, [0-9.]+ of (multiply-adds|memory)$'
expect 9 '^inference (mlp|cnn|gpt) batch (1|8|32): [0-9.]+ us, [0-9]+ rows/s, .* of multiply-adds$'
expect 8 '^training (mlp|cnn) batch 128 threads [12] (f32|bf16): [0-9.]+ us, [0-9]+ images/s, .* of multiply-adds, [0-9.]+ of f32$'
expect 4 '^training dlrm (sgd|adagrad) batch 2048 threads [12]: [0-9.]+ us, [0-9]+ samples/s, .* of multiply-adds$'
expect 4 '^training gpt batch 12 threads [12] (f32|bf16): [0-9.]+ us, [0-9]+ tokens/s, .* of multiply-adds, [0-9.]+ of f32$'

refused() {
    if "$PARAMILL" "${@:2}" >out 2>err; then fail "${*:2} succeeds"; fi
    grep -q "$1" err || { cat err; fail "${*:2}: wanted \"$1\""; }
}
refused "wanted a power of two" bench model --threads 3
refused "usage" bench nothing
refused "noise is no part of it" bench model noise
timeout -k 5 60 "$PARAMILL" bench model --quick inference >figures 2>err || { cat err; fail "bench model inference"; }
expect 9 '^inference '
expect 0 '^(product|frozen|training) '
