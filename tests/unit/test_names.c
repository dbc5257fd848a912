#include "model/names.h"

#include "tests/unit/nets.h"

#include <stdio.h>
#include <string.h>

enum { COUNT = 5000 };

static char texts[COUNT][16];

Test(names, each_name_keeps_its_number)
{
    pm_names *names = pm_names_create();
    cr_assert_eq(pm_names_find(names, "a", 1), PM_NO_NAME);
    for (uint32_t i = 0; i < COUNT; i++) {
        snprintf(texts[i], sizeof texts[i], "value%u", i);
        cr_assert_eq(pm_names_find(names, texts[i], strlen(texts[i])), PM_NO_NAME);
        NETS_OK(pm_names_add(names, texts[i], strlen(texts[i]), 3 * i));
    }
    for (uint32_t i = 0; i < COUNT; i++)
        cr_assert_eq(pm_names_find(names, texts[i], strlen(texts[i])), 3 * i);
    cr_assert_eq(pm_names_find(names, "value", 5), PM_NO_NAME);
    cr_assert_eq(pm_names_find(names, "", 0), PM_NO_NAME);
    pm_names_destroy(&names);
    cr_assert_eq(names, NULL);
    pm_names_destroy(&names);
}
