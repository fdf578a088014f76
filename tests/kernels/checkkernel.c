/* checkkernel: the check and the bench of the kernels; see --help. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/flags.h"
#include "tests/cuda/check_cuda.h"

int main(int argc, char **argv)
{
    struct check_options options = {0};
    int64_t seed, threads;
    bool bench, products, list;
    const char *isa, *device;
    const struct flag flags[] = {
        {"seed", FLAG_INT, &seed, "1", 0, 0, NULL, "N", "first seed; run i uses seed + i", NULL},
        {"runs", FLAG_INT, &options.runs, "60", 1, 1e6, NULL, "N",
         "random shapes for each kernel and variant", NULL},
        {"isa", FLAG_CHOICE, &isa, "auto", 0, 0, "auto|scalar|avx2|avxvnni|avx512|avx512vnni|amx", NULL,
         "highest instruction set to look at", NULL},
        {"device", FLAG_CHOICE, &device, "all", 0, 0, "all|cpu|cuda", NULL,
         "whose kernels; cuda: in the emulator, which needs no GPU", NULL},
        {"filter", FLAG_STRING, &options.filter, "", 0, 0, NULL, "TEXT",
         "only kernels and checks with this in their name", NULL},
        {"quick", FLAG_BOOL, &options.quick, "false", 0, 0, NULL, NULL,
         "fewer shapes through the dispatcher; of the bench, small ones, once (what ctest runs)", NULL},
        {"sparse", FLAG_BOOL, &options.sparse, "false", 0, 0, NULL, NULL,
         "fewer rows of a case, of CUDA's some alone and not all: for builds that look at accesses", NULL},
        {"bench", FLAG_BOOL, &bench, "false", 0, 0, NULL, NULL, "measure instead of checking", NULL},
        {"products", FLAG_BOOL, &products, "false", 0, 0, NULL, NULL,
         "print what the machine does of 8-bit products at this moment, and nothing else", NULL},
        {"threads", FLAG_INT, &threads, "0", 0, THREAD_POOL_MAX, NULL, "N", "of the bench; 0 = one per CPU",
         NULL},
        {"list", FLAG_BOOL, &list, "false", 0, 0, NULL, NULL, "print the kernels and their variants", NULL},
    };
    const struct flag_command command = {
        .name = "checkkernel",
        .summary =
            "holds every kernel against its reference, takes every weight format through the dispatcher, "
            "or measures",
        .flags = flags,
        .n_flags = sizeof flags / sizeof flags[0],
        .examples = "checkkernel --filter int4 --runs 1000\ncheckkernel --bench --filter linear",
    };
    struct flag_result result;
    err_t e = flags_parse(&command, argc - 1, argv + 1, &result);
    if (e.code == ERR_OK && !result.help)
        e = isa_parse(isa, &options.highest);
    if (e.code != ERR_OK) {
        fprintf(stderr, "%s\n", e.message);
        return 2;
    }
    if (result.help)
        return 0;
    options.seed = (uint64_t)seed;
    options.highest = isa_at_most(options.highest);
    if (list && strcmp(device, "cuda") == 0) {
        check_cuda_list();
        return 0;
    }
    if (list) {
        for (size_t i = 0; i < n_variants; i++)
            printf("%s_%s\n", kernel_name(variants[i].kernel), variants[i].suffix);
        return 0;
    }
    if (products)
        return bench_products(&options, (int)threads);
    printf("machine: %s; looking at: %s; seed %" PRIu64 "\n", isa_name(isa_detect()),
           isa_name(options.highest), options.seed);
    if (bench)
        return bench_kernels(&options, (int)threads);
    int failures = 0;
    if (strcmp(device, "cuda") != 0)
        failures += check_variants(&options) + check_dispatch(&options);
    if (strcmp(device, "cpu") != 0)
        failures += check_cuda(&options);
    printf("%s\n", failures == 0 ? "all checks passed" : "FAILED");
    return failures == 0 ? 0 : 1;
}
