/* Which shapes a library serves: by the table alone unless batch invariance is given up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "kernels/cuda/product_policy.h"

static const struct product_entry entries[] = {
    {"A card", 130100, PRODUCT_BF16, 6144, 4096, 256, 2048},
    {"A card", 130100, PRODUCT_E4M3, 4096, 4096, 512, 8192},
    {.card = NULL},
};
static const struct product_entry empty[] = {{.card = NULL}};

static struct product_policy policy_of(const struct product_entry *table, bool batch_variant)
{
    return (struct product_policy){.batch_variant = batch_variant,
                                   .table = table,
                                   .card = "A card",
                                   .capability = 90,
                                   .library_version = 130100};
}

static void assert_rows(const struct product_policy *policy, enum product_kind kind, uint32_t n_out,
                        uint32_t n_in, uint32_t min, uint32_t max)
{
    struct product_rows rows = product_policy_rows(policy, kind, n_out, n_in, false);
    assert_int_equal(rows.min, min);
    assert_int_equal(rows.max, max);
}

static void an_empty_table_serves_nothing(void **state)
{
    (void)state;
    struct product_policy policy = policy_of(empty, false);
    assert_false(product_policy_wants(&policy));
    assert_rows(&policy, PRODUCT_BF16, 6144, 4096, 0, 0);
    assert_rows(&policy, PRODUCT_E4M3, 4096, 4096, 0, 0);
}

static void the_table_is_of_a_card_a_version_a_kind_and_a_shape(void **state)
{
    (void)state;
    struct product_policy policy = policy_of(entries, false);
    assert_true(product_policy_wants(&policy));
    assert_rows(&policy, PRODUCT_BF16, 6144, 4096, 256, 2048);
    assert_rows(&policy, PRODUCT_E4M3, 4096, 4096, 512, 8192);
    assert_rows(&policy, PRODUCT_E4M3, 6144, 4096, 0, 0);
    assert_rows(&policy, PRODUCT_BF16, 4096, 6144, 0, 0);
    policy.library_version = 130200;
    assert_rows(&policy, PRODUCT_BF16, 6144, 4096, 0, 0);
    policy.library_version = 130100;
    policy.card = "Another card";
    assert_false(product_policy_wants(&policy));
    assert_rows(&policy, PRODUCT_BF16, 6144, 4096, 0, 0);
}

static void without_invariance_every_shape_it_can_take(void **state)
{
    (void)state;
    struct product_policy policy = policy_of(empty, true);
    assert_true(product_policy_wants(&policy));
    assert_rows(&policy, PRODUCT_BF16, 48, 32, PRODUCT_ROWS_MIN_BF16, UINT32_MAX);
    assert_rows(&policy, PRODUCT_E4M3, 48, 32, PRODUCT_ROWS_MIN_E4M3, UINT32_MAX);
    /* On an H200 ours was the faster one at 2,048 rows in e4m3, and the library's in bf16 and at 8,192. */
    assert_true(product_policy_rows(&policy, PRODUCT_E4M3, 4096, 4096, false).min > 2048);
    assert_true(product_policy_rows(&policy, PRODUCT_E4M3, 4096, 4096, false).min <= 8192);
    assert_true(product_policy_rows(&policy, PRODUCT_BF16, 4096, 4096, false).min <= 2048);
    policy.rows_min = 3;
    assert_rows(&policy, PRODUCT_BF16, 48, 32, 3, UINT32_MAX);
    assert_rows(&policy, PRODUCT_BF16, 40, 32, 0, 0); /* rows that are not of 16 bytes in either type */
    assert_rows(&policy, PRODUCT_BF16, 48, 40, 0, 0);
    assert_int_equal(product_policy_rows(&policy, PRODUCT_BF16, 48, 32, true).max, 0); /* a bias */
    policy.capability = 89; /* no scales per row there */
    assert_rows(&policy, PRODUCT_BF16, 48, 32, 3, UINT32_MAX);
    assert_rows(&policy, PRODUCT_E4M3, 48, 32, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_table_serves_nothing),
        cmocka_unit_test(the_table_is_of_a_card_a_version_a_kind_and_a_shape),
        cmocka_unit_test(without_invariance_every_shape_it_can_take),
    };
    return cmocka_run_group_tests_name("product policy", tests, NULL, NULL);
}
