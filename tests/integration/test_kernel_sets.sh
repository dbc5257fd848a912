#!/usr/bin/env bash
# The tests of the engine pass with every kernel set of this CPU, the plainest included, and a set that does not run here
# is refused by name.
. "$(dirname "$0")/lib.sh"
[ "${SANITIZE:-}" != thread ] || skip "other tests watch threads"
cd "$work"
if PARAMILL_KERNELS=none "$PARAMILL" plan "$SOURCE/examples/fashion-mlp.yaml" >out 2>err; then fail "PARAMILL_KERNELS=none runs"; fi
grep -q "PARAMILL_KERNELS is none, this CPU runs " err || { cat err; fail "wanted the sets that run here"; }
sets=$(sed -E 's/.*this CPU runs //; s/,//g' err)
for kernels in $sets; do
    PARAMILL_KERNELS=$kernels "$PARAMILL" plan "$SOURCE/examples/fashion-mlp.yaml" >out
    grep -q "kernels ${kernels%bf16}+blis-" out || { cat out; fail "wanted kernels $kernels"; }
    sed 's/^batch:/precision: bf16\nbatch:/' "$SOURCE/examples/fashion-mlp.yaml" >bf16.yaml
    PARAMILL_KERNELS=$kernels "$PARAMILL" plan bf16.yaml --training >out
    grep -q "in bf16, .* kernels $kernels+blis-" out || { cat out; fail "wanted kernels $kernels in bf16"; }
    for test in blas conv_channels op_gradients plan program_fuse; do
        PARAMILL_KERNELS=$kernels timeout -k 5 100 "$BUILD/tests/unit_$test" >out 2>&1 ||
            { tail -n 20 out; fail "unit_$test with $kernels"; }
    done
done
