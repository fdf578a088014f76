/* Every variant of every kernel against its reference. */
#include <stdio.h>
#include <string.h>
#include "tests/kernels/checkkernel.h"

#if BANTAM_X86
#define V(name, isa, suffix) {KERNEL_##name, isa, #suffix, (generic_fn *)name##_##suffix},
const struct variant variants[] = {KERNEL_VARIANTS(V)};
#undef V
const size_t n_variants = sizeof variants / sizeof variants[0];
#else
const struct variant variants[] = {{0}};
const size_t n_variants = 0;
#endif

generic_fn *reference_of(enum kernel_id id)
{
#define K(name, type, what) (generic_fn *)name##_ref,
    static generic_fn *const references[KERNEL_COUNT] = {KERNEL_LIST(K)};
#undef K
    return references[id];
}

static check_fn *check_of(enum kernel_id id)
{
#define K(name, type, what) check_##type,
    static check_fn *const checks[KERNEL_COUNT] = {KERNEL_LIST(K)};
#undef K
    return checks[id];
}

bool check_selected(const struct check_options *options, const char *name)
{
    return strstr(name, options->filter) != NULL;
}

/* Each run has a seed of its own, so that a failing one replays alone with --seed S --runs 1. */
static bool check_variant(const struct check_options *options, enum kernel_id id, generic_fn *variant,
                          const char *name)
{
    for (int64_t run = 0; run < options->runs; run++) {
        struct rng rng = rng_make(options->seed + (uint64_t)run);
        char failure[FAILURE_MAX] = "";
        if (!check_of(id)(id, reference_of(id), variant, &rng, failure)) {
            printf("%-28s FAILED: %s\n  replay: checkkernel --filter %s --seed %llu --runs 1\n", name,
                   failure, kernel_name(id), (unsigned long long)(options->seed + (uint64_t)run));
            return false;
        }
    }
    return true;
}

int check_variants(const struct check_options *options)
{
    int failures = 0;
    for (int id = 0; id < KERNEL_COUNT; id++) {
        char name[64];
        snprintf(name, sizeof name, "%s_ref", kernel_name(id));
        if (!check_selected(options, name))
            continue;
        /* The reference against itself: that it stays within its memory and gives the same twice. */
        bool ok = check_variant(options, id, reference_of(id), name);
        failures += !ok;
        if (ok)
            printf("%-28s ok   %s\n", name, kernel_summary(id));
    }
    for (size_t i = 0; i < n_variants; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s_%s", kernel_name(variants[i].kernel), variants[i].suffix);
        if (!check_selected(options, name))
            continue;
        if (isa_at_most(variants[i].isa) != variants[i].isa) {
            printf("%-28s --   this CPU cannot run it\n", name);
            continue;
        }
        if (variants[i].isa > options->highest)
            continue;
        bool ok = check_variant(options, variants[i].kernel, variants[i].fn, name);
        failures += !ok;
        if (ok)
            printf("%-28s ok   bit-equal on %lld shapes\n", name, (long long)options->runs);
    }
    return failures;
}
