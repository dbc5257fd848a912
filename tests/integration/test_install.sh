#!/usr/bin/env bash
# An installed tree stands alone: a C program built with pkg-config alone asks an installed paramill.
. "$(dirname "$0")/lib.sh"
BUILD=${BUILD:?the build tree}
command -v pkg-config >/dev/null || skip "pkg-config is not installed"
small_data 512
small_job "$work/job.yaml" "$work/store" 1 1 1
cmake --install "$BUILD" --prefix "$work/usr" >/dev/null || fail "cmake --install"
PARAMILL=$work/usr/bin/paramill
timeout -k 5 100 "$PARAMILL" train "$work/job.yaml" >"$work/log" 2>&1 || { cat "$work/log"; fail "training"; }

cat >"$work/ask.c" <<'C'
#include <paramill/client.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    static float zeros[784];
    char message[PM_CLIENT_MESSAGE] = "";
    pm_client *client = NULL;
    pm_client_options options = {.routers = argc > 1 ? argv[1] : "", .model = "small", .timeout_ms = 20000};
    pm_client_input input = {.data = zeros, .shape = {1, 1, 28, 28}, .rank = 4};
    pm_client_result result = {0};
    int ok = pm_client_create(&client, &options, message) == PM_CLIENT_OK &&
             pm_client_infer(client, &input, &result) == PM_CLIENT_OK;
    if (ok)
        printf("%zu outputs of version %llu\n", result.count, (unsigned long long)result.version);
    else
        printf("failed: %s%s\n", message, result.message);
    pm_client_result_free(&result);
    pm_client_destroy(&client);
    return !ok;
}
C
export PKG_CONFIG_PATH
PKG_CONFIG_PATH=$(dirname "$(find "$work/usr" -name paramill-client.pc)")
flags=()
[ -n "${SANITIZE:-}" ] && flags=("-fsanitize=$SANITIZE")
read -ra client < <(pkg-config --cflags --libs paramill-client)
"${CC:-cc}" -Wall -Werror "${flags[@]}" "$work/ask.c" -o "$work/ask" "${client[@]}" || fail "a program with pkg-config alone"

"$PARAMILL" serve --store "$work/store" --model small --front "ipc://$work/front" >"$work/serve.log" 2>&1 &
pids+=($!)
LD_LIBRARY_PATH=$(dirname "$(find "$work/usr" -name libparamill-client.so)") timeout 60 "$work/ask" "ipc://$work/front" |
    tee "$work/out"
grep -q '^10 outputs of version [1-9]' "$work/out" || { cat "$work/serve.log"; fail "no answer"; }
PYTHONPATH=$(dirname "$(dirname "$(find "$work/usr" -path '*/paramill/client.py')")") timeout 60 /usr/bin/python3 -c "
import numpy, paramill
with paramill.Client('ipc://$work/front', 'small') as client:
    print('Python:', client.infer(numpy.zeros((2, 1, 28, 28), 'f4')).output.shape)" | tee "$work/out"
grep -q '^Python: (2, 10)' "$work/out" || fail "the Python client"
nm -D --defined-only "$(find "$work/usr" -name 'libparamill-client.so')" | grep ' [TDB] ' | grep -v ' pm_client_' &&
    fail "the library shows more than its interface"
exit 0
