#include "model/blas.h"

#include "model/reference.h"
#include "tests/unit/nets.h"

#include <math.h>
#include <string.h>

enum { MAX = 1 << 20 };
static float a[MAX], b[MAX], c[MAX], d[MAX];

static void fill(void)
{
    for (size_t i = 0; i < MAX; i++) {
        a[i] = nets_number(1, i % 100003);
        b[i] = nets_number(2, i % 99991);
        c[i] = d[i] = nets_number(3, i % 991);
    }
}

Test(blas, the_kernel_set_is_named_and_not_generic_where_avx2_is)
{
    NETS_OK(pm_blas_check());
    cr_assert(strstr(pm_kernel_set(PM_PRECISION_F32), "+blis-"), "%s", pm_kernel_set(PM_PRECISION_F32));
    if (strncmp(pm_kernel_set(PM_PRECISION_F32), "avx", 3) == 0)
        cr_assert(!strstr(pm_kernel_set(PM_PRECISION_F32), "generic"), "%s", pm_kernel_set(PM_PRECISION_F32));
}

Test(blas, products_agree_with_their_twin)
{
    const size_t extents[] = {1, 2, 5, 16, 33, 100};
    fill();
    for (size_t i = 0; i < 6 * 6 * 6 * 8; i++) {
        size_t m = extents[i % 6], n = extents[i / 6 % 6], k = extents[i / 36 % 6], kind = i / 216;
        pm_product p = {.transpose_a = kind & 1,
                        .transpose_b = kind & 2,
                        .accumulate = kind & 4,
                        .m = m,
                        .n = n,
                        .k = k,
                        .a = a,
                        .b = b,
                        .c = c,
                        .c_stride = n + 3};
        p.a_stride = (p.transpose_a ? m : k) + 1;
        p.b_stride = (p.transpose_b ? k : n) + 2;
        pm_blas_run(&p);
        p.c = d;
        pm_reference_product(&p);
        for (size_t e = 0; e < m * (n + 3); e++)
            cr_assert(fabsf(c[e] - d[e]) < 2e-5f, "m %zu n %zu k %zu kind %zu: %g, wanted %g", m, n, k, kind,
                      (double)c[e], (double)d[e]);
        for (size_t e = 0; e < m * (n + 3); e++)
            c[e] = d[e] = nets_number(3, e);
    }
}
