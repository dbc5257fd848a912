// What members may say to the coordinator, in any order: it stays in order, and tells everybody to stop at
// the end.
#include "cluster/roster.h"
#include "tests/fuzz/split.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const pm_job job = {.batch = 4,
                               .lanes = 4,
                               .epochs = 1,
                               .optimizer = {.kind = PM_OPTIMIZER_SGD, .learning_rate = 0.1},
                               .cluster = {.servers = 1, .workers = 1},
                               .checkpoint = {.every_steps = 2}};
    const pm_roster_options options = {.job = &job, .train_rows = 40, .first_epoch = 1};
    pm_roster *roster = NULL;
    pm_fuzz_input in = {data, size};
    pm_message message = {0};
    uint8_t control;
    int64_t now_ms = 1000;
    if (pm_roster_create(&roster, &options, now_ms).code != PM_OK)
        return 0;
    while (pm_fuzz_next(&in, &control, &message)) {
        pm_peer from = {.size = 1, .id = {(uint8_t)(1 + (control >> 2) % 4)}};
        pm_roster_handle(roster, &from, &message, now_ms);
        pm_message_clear(&message);
        now_ms += control & 0x80 ? 5000 : 10;
        pm_roster_tick(roster, now_ms);
    }
    pm_roster_stop(roster, pm_fail(PM_CANCELLED, "the end"), now_ms);
    if (!pm_roster_is_over(roster, now_ms + 3600000))
        abort();
    pm_roster_destroy(&roster);
    return 0;
}
