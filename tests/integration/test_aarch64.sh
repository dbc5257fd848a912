#!/usr/bin/env bash
# The kernels, cross-compiled for aarch64 and run under emulation, agree with their plain twins: nothing in them is of one
# machine. Needs Debian's gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user.
. "$(dirname "$0")/lib.sh"
[ -z "${SANITIZE:-}" ] || skip "it makes a build of its own"
for tool in aarch64-linux-gnu-gcc qemu-aarch64; do
    command -v $tool >/dev/null || skip "$tool is not installed"
done
cd "$work"
mkdir include
for room in core model; do ln -s "$SOURCE/$room" include/$room; done
flags=(-std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -Wno-format-truncation -ffp-contract=off -Iinclude -I"$SOURCE" -I"$SOURCE/tests/tsan")
compile() { aarch64-linux-gnu-gcc "${flags[@]}" "$@"; }
objects=()
for kernel in block element image norm pairs panel pool probe row tiles update; do
    contract=off
    case $kernel in panel | probe) contract=fast ;; esac
    compile -O3 -ffp-contract=$contract -DPM_VARIANT=plain -c "$SOURCE/model/kernel_$kernel.c" -o $kernel.o
    objects+=($kernel.o)
done
# The one thing of BLIS's that a product may need is its plain twin here.
compile -Dpm_blas_run=pm_reference_product -c "$SOURCE/model/product.c" -o product.o
for test in kernels kernel_tiles kernel_update conv_channels product; do
    compile "$SOURCE/tests/unit/test_$test.c" "$SOURCE/tests/tsan/main.c" "$SOURCE"/model/{kernels,reference,reference_products,reference_updates,conv_channels,conv_direct,conv_tiles,conv_unrolled}.c \
        "$SOURCE"/core/{rng,status}.c product.o "${objects[@]}" -lpthread -lm -o test_$test
    timeout -k 5 300 qemu-aarch64 -L /usr/aarch64-linux-gnu ./test_$test >out 2>&1 || { tail -n 20 out; fail "$test"; }
done
