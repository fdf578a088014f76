#include "server/file_budget.h"
#include "tests/base/cmocka_base.h"

static void test_what_fits_stays(void **state)
{
    (void)state;
    uint32_t grpc = 4096, http = 1024;
    assert_false(file_budget_fit(UINT64_MAX, &grpc, &http));
    assert_false(file_budget_fit(4096 + 1024 + FILES_FOR_ANSWERS + FILES_RESERVED, &grpc, &http));
    assert_int_equal(grpc, 4096);
    assert_int_equal(http, 1024);
    assert_true(file_budget_fit(4096 + 1024 + FILES_FOR_ANSWERS + FILES_RESERVED - 1, &grpc, &http));
    assert_true(grpc < 4096 && http <= 1024);
}

static void test_all_limits_leave_room(void **state)
{
    (void)state;
    for (uint64_t max_files = 8; max_files < 8192; max_files += 7) {
        uint32_t grpc = 4096, http = 1024;
        uint64_t reserved = max_files / 4 < FILES_RESERVED ? max_files / 4 : FILES_RESERVED;
        (void)file_budget_fit(max_files, &grpc, &http);
        assert_true(grpc >= 1 && http >= 1);
        assert_true(max_files < 64 || grpc + http <= max_files - reserved);
        assert_true(max_files < 64 || grpc >= 3 * http); /* in proportion */
    }
}

static void test_no_http(void **state)
{
    (void)state;
    uint32_t grpc = 1 << 20, http = 0;
    assert_true(file_budget_fit(1024, &grpc, &http));
    assert_int_equal(http, 0);
    assert_in_range(grpc, 700, 768);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_fits_stays),
        cmocka_unit_test(test_all_limits_leave_room),
        cmocka_unit_test(test_no_http),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
