/* The driver: random cases of every kernel, rows alone and among others, and a count of what ran. */
#include "tests/cuda/check_cuda.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/float16.h"

/* AddressSanitizer looks at where a long case reads and writes: contexts are as long in one run as in the
 * next. */
#if defined(__SANITIZE_ADDRESS__)
enum { LONG_CASES_ONCE = 1 };
#else
enum { LONG_CASES_ONCE = 0 };
#endif
enum { ROWS_EVERY_COUNT = 67, LONG_CASE_ROWS = 9 };

/* What check_alloc gave, newest first. */
struct case_block {
    struct case_block *next;
    max_align_t data[];
};
static struct case_block *case_blocks;

void *check_alloc(struct cuda_case *c, size_t bytes)
{
    (void)c;
    struct case_block *block = mem_alloc(sizeof *block + bytes);
    ASSERT(block != NULL);
    block->next = case_blocks;
    case_blocks = block;
    return block->data;
}

static void case_free(void)
{
    while (case_blocks != NULL) {
        struct case_block *next = case_blocks->next;
        mem_free(case_blocks);
        case_blocks = next;
    }
}

void check_fail(struct cuda_case *c, const char *format, ...)
{
    if (c->failure[0] != '\0')
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(c->failure, sizeof c->failure, format, args);
    va_end(args);
}

static size_t row_bytes(const struct cuda_case *c)
{
    return c->row_values * check_type_bytes(c->type);
}

static void run_rows(struct cuda_case *c, const struct cuda_check *check, uint32_t first, uint32_t n,
                     uint8_t *out)
{
    check->run(c, first, n, out);
    if (!device_release())
        check_fail(c, "rows %u..%u: wrote outside its memory", first, first + n - 1);
    c->refused = c->refused || device_refused();
}

/* Largest error of a value that is rounded to bf16 once, relative to it: half of the last of 8 bits. */
#define BF16_ROUNDING 0x1p-8f

static void compare_with_reference(struct cuda_case *c, const struct cuda_check *check, uint32_t row,
                                   const uint8_t *got)
{
    float *want = mem_alloc_array(c->row_values, sizeof(float)), scale = 0;
    uint8_t *bits = mem_alloc(row_bytes(c) + 1);
    ASSERT(want != NULL && bits != NULL);
    check->reference(c, row, c->type == CHECK_BYTES ? (void *)bits : (void *)want, &scale);
    bool exact = c->tolerance == 0;
    if (c->type != CHECK_BYTES)
        values_store(c->type, want, c->row_values, bits);
    bool has_scale = scale != 0;
    for (uint32_t i = 0; !has_scale && c->type != CHECK_BYTES && i < c->row_values; i++)
        scale = fmaxf(scale, fabsf(want[i]));
    for (uint32_t i = 0; i < c->row_values; i++) {
        size_t at = i * check_type_bytes(c->type), n = check_type_bytes(c->type);
        if (memcmp(bits + at, got + at, n) == 0)
            continue;
        if (c->type == CHECK_BYTES) {
            check_fail(c, "row %u, byte %u of %u: %02x, the reference has %02x", row, i, c->row_values,
                       got[at], bits[at]);
            break;
        }
        float have;
        values_load(c->type, got + at, 1, &have);
        float bound = c->tolerance * scale + (c->type == CHECK_BF16 ? BF16_ROUNDING * fabsf(want[i]) : 0);
        if (exact || !(fabsf(have - want[i]) <= bound)) {
            check_fail(c, "row %u, value %u of %u: %.9g, the reference has %.9g (allowed: %.3g)", row, i,
                       c->row_values, (double)have, (double)want[i], exact ? 0.0 : (double)bound);
            break;
        }
    }
    mem_free(want);
    mem_free(bits);
}

static bool wants_count(const struct cuda_case *c, uint32_t n)
{
    if (n == c->n_rows)
        return true;
    if (!c->quick)
        return n <= ROWS_EVERY_COUNT;
    if (LONG_CASES_ONCE && c->is_long)
        return n == LONG_CASE_ROWS;
    return n <= 3 || n == 7 || n == 8 || n == 9 || n == 16 || n == 17 || n == 33 || n == 64;
}

/* Whether row r is looked at alone too. Sanitizers and the finder of races see all there is in the counts of
 * rows and in a few rows: that all of them are right is what the plain build says. */
static bool wants_alone(const struct cuda_case *c, uint32_t r)
{
    if (LONG_CASES_ONCE && c->is_long)
        return r == 0 || r == c->n_rows - 1;
    return !c->sparse || r < 2 || r % 16 == 9 || r == c->n_rows - 1;
}

/* Each row alone, against the reference; then together, against each alone. */
static void check_case(struct cuda_case *c, const struct cuda_check *check)
{
    size_t bytes = row_bytes(c);
    uint8_t *alone = mem_alloc(c->n_rows * bytes + 1), *together = mem_alloc(c->n_rows * bytes + 1);
    ASSERT(alone != NULL && together != NULL);
    for (uint32_t r = 0; r < c->n_rows && c->failure[0] == '\0' && !c->refused; r++) {
        if (!wants_alone(c, r))
            continue;
        run_rows(c, check, r, 1, alone + r * bytes);
        if (!c->refused)
            compare_with_reference(c, check, r, alone + r * bytes);
    }
    for (uint32_t n = 2; n <= c->n_rows && c->failure[0] == '\0' && !c->refused; n++) {
        if (!wants_count(c, n))
            continue;
        uint32_t first = rng_below(&c->rng, c->n_rows - n + 1);
        run_rows(c, check, first, n, together);
        for (uint32_t r = 0; r < n; r++) {
            if (wants_alone(c, first + r) &&
                memcmp(together + r * bytes, alone + (first + r) * bytes, bytes) != 0)
                check_fail(c, "row %u among %u differs from the row alone", first + r, n);
        }
    }
    mem_free(alone);
    mem_free(together);
}

struct cuda_check_entry {
    const char *name;
    enum cuda_kernel_id kernel;
    const struct cuda_check *check;
    int variant;
};

enum outcome { PASSED, FAILED, REFUSED };

static enum outcome check_kernel(const struct check_options *options, const struct cuda_check_entry *entry)
{
    /* The first case has all counts of rows; the others draw shapes. */
    int64_t n_cases = options->quick ? 3 : 3 + options->runs / 10;
    for (int64_t i = 0; i < n_cases; i++) {
        uint64_t seed = options->seed + (uint64_t)i;
        struct cuda_case c = {.rng = rng_make(seed), .kernel = entry->kernel, .variant = entry->variant};
        c.quick = options->quick || i > 0;
        c.sparse = options->sparse;
        c.index = (uint32_t)i;
        c.n_rows = i == 0 ? CHECK_ROWS_MAX : rng_between(&c.rng, 1, 20);
        entry->check->make(&c);
        check_case(&c, entry->check);
        case_free();
        if (c.failure[0] != '\0') {
            printf("%-28s FAILED: %s: %s\n  replay: checkkernel --device cuda --filter %s --seed %llu\n",
                   entry->name, c.note, c.failure, entry->name, (unsigned long long)seed);
            return FAILED;
        }
        if (c.refused)
            return REFUSED;
    }
    return PASSED;
}

static const struct cuda_check_entry check_entries[] = {
#define X(kernel, check, variant) {"cuda_" #kernel, CUDA_KERNEL_##kernel, &check, variant},
    CUDA_CHECKS(X)
#undef X
};
enum { ENTRIES = sizeof check_entries / sizeof check_entries[0] };

void check_cuda_list(void)
{
    for (size_t i = 0; i < ENTRIES; i++)
        printf("%s\n", check_entries[i].name);
}

int check_cuda(const struct check_options *options)
{
    static const char *const summaries[] = {
#define K(name, args, what) what,
        CUDA_KERNEL_LIST(K)
#undef K
    };
    static const char *const names[] = {
#define K(name, args, what) #name,
        CUDA_KERNEL_LIST(K)
#undef K
    };
    printf("CUDA kernels on: %s\n", device_description());
    bool refused[CUDA_KERNEL_COUNT] = {false};
    int failures = 0;
    for (size_t i = 0; i < ENTRIES; i++) {
        if (!check_selected(options, check_entries[i].name))
            continue;
        enum outcome outcome = check_kernel(options, &check_entries[i]);
        failures += outcome == FAILED;
        refused[check_entries[i].kernel] = outcome == REFUSED;
        if (outcome != FAILED)
            printf("%-28s %s   %s\n", check_entries[i].name, outcome == PASSED ? "ok" : "--",
                   outcome == PASSED ? summaries[check_entries[i].kernel] : "not for this device");
    }
    for (int k = 0; options->filter[0] == '\0' && k < CUDA_KERNEL_COUNT; k++) {
        if (device_launches((enum cuda_kernel_id)k) == 0 && !refused[k]) {
            printf("cuda_%s FAILED: never run\n", names[k]);
            failures++;
        }
    }
    return failures;
}
