#include "worker/characters.h"

#include <criterion/criterion.h>
#include <string.h>

Test(characters, numbers_follow_the_order_of_code_points)
{
    static const char text[] = "b\xc3\xa9"
                               "a\xf0\x9f\x98\x80"
                               "b\n\xe2\x82\xac";
    pm_characters c;
    cr_assert_eq(pm_characters_parse(&c, text, sizeof text - 1).code, PM_OK);
    cr_assert_eq(c.count, 7);
    cr_assert_eq(c.size, 6);
    cr_assert_str_eq(c.vocabulary, "\nab\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    cr_assert_eq(memcmp(c.numbers, (const uint16_t[]){2, 3, 1, 5, 2, 0, 4}, 7 * sizeof(uint16_t)), 0);
    pm_characters_free(&c);
}

Test(characters, what_is_no_text_is_refused_with_its_place)
{
    static const struct {
        const char *bytes;
        size_t size;
        const char *says;
    } bad[] = {{"ab\xff", 3, "byte 2"},
               {"a\0", 2, "byte 1"},
               {"", 0, "empty"},
               {"a\xc3", 2, "byte 1"},
               {"\xc0\x80", 2, "byte 0"},
               {"\xed\xa0\x80", 3, "byte 0"},
               {"\xf4\x90\x80\x80", 4, "byte 0"},
               {"x\xe2\x28\xa1", 4, "byte 1"},
               {"\x80", 1, "byte 0"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pm_characters c;
        pm_status status = pm_characters_parse(&c, bad[i].bytes, bad[i].size);
        cr_assert_eq(status.code, PM_INVALID, "text %zu", i);
        cr_assert(strstr(status.message, bad[i].says), "%s", status.message);
        cr_assert_null(c.numbers);
    }
}
