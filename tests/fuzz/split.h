#pragma once
// Cuts a fuzzer's input into messages: a control byte, two bytes of length, then the header's bytes.
#include "proto/message.h"

#include <stddef.h>
#include <stdint.h>

enum { PM_FUZZ_FRAME = 12 };

typedef struct pm_fuzz_input {
    const uint8_t *data;
    size_t size;
} pm_fuzz_input;

// Takes the next message that decodes, with control % 4 frames of 12 zero bytes; 0 at the end. To be cleared.
static inline int pm_fuzz_next(pm_fuzz_input *in, uint8_t *control, pm_message *message)
{
    while (in->size >= 3) {
        size_t length = in->data[1] | (size_t)in->data[2] << 8;
        *control = in->data[0];
        in->data += 3;
        in->size -= 3;
        length = length < in->size ? length : in->size;
        pm_status status = pm_message_decode(message, in->data, length);
        in->data += length;
        in->size -= length;
        if (status.code != PM_OK)
            continue;
        static const uint8_t zeros[PM_FUZZ_FRAME];
        for (int i = 0; i < *control % 4 && status.code == PM_OK; i++)
            status = pm_message_add(message, pm_buffer_copy(zeros, sizeof zeros));
        return 1;
    }
    return 0;
}
