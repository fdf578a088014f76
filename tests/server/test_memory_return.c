#include <stdlib.h>
#include <string.h>
#include "base/process_usage.h"
#include "server/memory_return.h"
#include "tests/base/cmocka_base.h"

enum { PIECE_BYTES = 16 << 10, N_PIECES = 3 * MEMORY_RETURN_BYTES / PIECE_BYTES };

static uint64_t resident_bytes(void)
{
    struct process_usage usage;
    process_usage_read(&usage);
    return usage.resident_bytes;
}

/* As a flood leaves it: freed, but for a piece at the end that keeps malloc from giving it back. */
static void test_freed_memory_goes_back(void **state)
{
    (void)state;
    static char *pieces[N_PIECES];
    const int64_t interval_ns = MEMORY_RETURN_INTERVAL_MS * INT64_C(1000000);
    struct memory_return memory = {0};
    assert_false(memory_return_check(&memory, 10 * interval_ns));
    for (int i = 0; i < N_PIECES; i++) {
        pieces[i] = malloc(PIECE_BYTES);
        assert_non_null(pieces[i]);
        memset(pieces[i], 1, PIECE_BYTES);
    }
    assert_false(memory_return_check(&memory, 11 * interval_ns)); /* it is in use */
    for (int i = 0; i < N_PIECES - 1; i++)
        free(pieces[i]);
    uint64_t before = resident_bytes();
    assert_false(memory_return_check(&memory, 12 * interval_ns - 1)); /* too soon */
    assert_true(memory_return_check(&memory, 12 * interval_ns));
    assert_true(resident_bytes() + 2 * (uint64_t)MEMORY_RETURN_BYTES < before);
    assert_false(memory_return_check(&memory, 13 * interval_ns)); /* there is no more of it */
    free(pieces[N_PIECES - 1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_freed_memory_goes_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
