#include "tests/unit/kernels.h"

typedef void (*rule_kernel)(const pm_update_rule *rule, const pm_update *update);

static float moments[2][2][MAX]; // of the kernel and of its twin

static void has_the_twins_bits(const pm_kernels *fast, rule_kernel run, rule_kernel twin, size_t n,
                               const pm_update_rule *rule)
{
    fill(x, MAX, 21, 1);
    fill(y, MAX, 22, 1);
    fill(z, MAX, 23, 1);
    for (size_t i = 0; i < MAX; i++)
        z[i] = fabsf(z[i]); // as sums of squares are
    for (int side = 0; side < 2; side++) {
        memcpy(moments[side][0], z, sizeof z);
        memcpy(moments[side][1], z, sizeof z);
        float *to = side ? wanted : got;
        memset(to, 0, sizeof got);
        (side ? twin : run)(rule, &(pm_update){.count = n,
                                               .gradient = x,
                                               .from = y,
                                               .to = to,
                                               .moments = {moments[side][0], moments[side][1]}});
    }
    cr_assert(memcmp(got, wanted, sizeof got) == 0, "%s, %zu", fast->name, n);
    cr_assert(memcmp(moments[0], moments[1], sizeof moments[0]) == 0, "%s, %zu", fast->name, n);
}

Test(kernel_update, rules_have_the_bits_of_their_twins)
{
    const pm_update_rule rules[] = {{.rate = 0.1f,
                                     .decay = 0.01f,
                                     .momentum = 0.9f,
                                     .epsilon = 1e-8f,
                                     .beta1 = 0.9f,
                                     .rest1 = 0.1f,
                                     .beta2 = 0.999f,
                                     .rest2 = 0.001f,
                                     .root = 0.3f,
                                     .scale = 0.999f},
                                    {.rate = 0.5f, .scale = 1, .root = 1, .epsilon = 1e-3f}};
    EACH_TABLE(fast)
    {
        EACH_LENGTH(n)
        {
            for (size_t r = 0; r < sizeof rules / sizeof *rules; r++) {
                has_the_twins_bits(fast, fast->sgd, plain->sgd, n, &rules[r]);
                has_the_twins_bits(fast, fast->momentum, plain->momentum, n, &rules[r]);
                has_the_twins_bits(fast, fast->adagrad, plain->adagrad, n, &rules[r]);
                has_the_twins_bits(fast, fast->adam, plain->adam, n, &rules[r]);
            }
        }
    }
}

Test(kernel_update, sums_and_copies_have_the_bits_of_their_twins)
{
    EACH_TABLE(fast)
    {
        EACH_LENGTH(n)
        {
            fill(x, MAX, 25, 1);
            fill(y, MAX, 26, 1);
            memset(got, 0, sizeof got);
            memset(wanted, 0, sizeof wanted);
            fast->sum(x, y, got, n);
            plain->sum(x, y, wanted, n);
            cr_assert(memcmp(got, wanted, sizeof got) == 0, "%s, %zu", fast->name, n);
            fast->copy(x, got, n);
            plain->copy(x, wanted, n);
            cr_assert(memcmp(got, wanted, sizeof got) == 0, "a copy: %s, %zu", fast->name, n);
        }
    }
}
