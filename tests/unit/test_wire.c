#include "model/wire.h"

#include "tests/unit/nets.h"

#include <stdlib.h>
#include <string.h>

Test(wire, what_is_written_is_read)
{
    pm_wire_out out = {0};
    pm_wire_put_int(&out, 1, -5);
    size_t mark = pm_wire_begin(&out, 2);
    pm_wire_put_text(&out, 3, "text");
    pm_wire_put_float(&out, 4, 1.5f);
    size_t inner_mark = pm_wire_begin(&out, 900);
    for (int i = 0; i < 100; i++)
        pm_wire_put_int(&out, 5, i);
    pm_wire_end(&out, inner_mark);
    pm_wire_end(&out, mark);
    cr_assert(!out.failed);
    pm_wire wire = pm_wire_open(out.data, out.size), inner;
    pm_wire_field field;
    cr_assert(pm_wire_next(&wire, &field) && field.number == 1 && (int64_t)field.value == -5);
    cr_assert(pm_wire_next(&wire, &field) && field.number == 2 && field.type == PM_WIRE_BYTES);
    inner = pm_wire_inner(&field);
    cr_assert(!pm_wire_next(&wire, &field) && !wire.bad);
    cr_assert(pm_wire_next(&inner, &field) && field.size == 4 && memcmp(field.bytes, "text", 4) == 0);
    cr_assert(pm_wire_next(&inner, &field) && field.type == PM_WIRE_32 && field.value == 0x3FC00000);
    cr_assert(pm_wire_next(&inner, &field) && field.number == 900);
    wire = pm_wire_inner(&field);
    for (uint64_t i = 0; i < 100; i++)
        cr_assert(pm_wire_next(&wire, &field) && field.number == 5 && field.value == i);
    cr_assert(!pm_wire_next(&wire, &field) && !wire.bad);
    free(out.data);
}

Test(wire, malformed_bytes_end_the_message_and_are_reported)
{
    const struct {
        const char *bytes;
        size_t size;
    } cases[] = {{"\x08", 1},                                              // no value
                 {"\x08\xff", 2},                                          // varint without end
                 {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}, // varint too long
                 {"\x12\x05hell", 6},                                      // length beyond the end
                 {"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10},         // huge length
                 {"\x0d\x01\x02", 3},                                      // short fixed32
                 {"\x09\x01", 2},                                          // short fixed64
                 {"\x0b", 1},                                              // group
                 {"\x00\x00", 2}};                                         // field 0
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pm_wire wire = pm_wire_open(cases[i].bytes, cases[i].size);
        pm_wire_field field;
        cr_assert(!pm_wire_next(&wire, &field) && wire.bad, "case %zu", i);
        cr_assert(!pm_wire_next(&wire, &field) && wire.bad, "case %zu", i);
    }
}
