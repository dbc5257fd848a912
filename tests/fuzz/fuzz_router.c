// What clients and infer workers may send to a router, in any order: it answers, and holds nothing at the
// end.
#include "infer/router.h"
#include "tests/fuzz/split.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const pm_router_options options = {.log = pm_log_make("router", -1, "off")};
    pm_router *router = NULL;
    pm_mailbox out = {0};
    pm_fuzz_input in = {data, size};
    pm_message message = {0};
    uint8_t control;
    int64_t now_us = 1000000;
    if (pm_router_create(&router, &options).code != PM_OK)
        return 0;
    while (pm_fuzz_next(&in, &control, &message)) {
        pm_peer from = {.size = 1, .id = {(uint8_t)(1 + (control >> 2) % 2)}};
        if (control & 0x80)
            pm_router_back(router, &from, &message, now_us, &out);
        else
            pm_router_front(router, &from, &message, now_us, &out);
        pm_message_clear(&message);
        pm_router_dispatch(router, now_us, &out);
        now_us += control & 0x40 ? 100000 : 100;
        pm_router_tick(router, now_us, &out);
        pm_mailbox_clear(&out);
    }
    pm_router_give_up(router, &out);
    if (pm_router_held(router) != 0)
        abort();
    pm_mailbox_free(&out);
    pm_router_destroy(&router);
    return 0;
}
