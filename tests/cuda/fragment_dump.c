#include "tests/cuda/fragment_dump.h"

#include <string.h>
#include "tests/cuda/fragment_kernels.h"

const struct fragment_probe fragment_probes[] = {
#define PROBE(name, blocks, threads, accumulators, element_bytes)                                            \
    {#name, blocks, threads, accumulators, element_bytes},
    FRAGMENT_PROBES(PROBE)};
const size_t n_fragment_probes = sizeof fragment_probes / sizeof fragment_probes[0];

static void print_short(FILE *to, const uint32_t *out, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a over words */
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ out[i]) * 0x100000001b3u;
    fprintf(to, " %016llx", (unsigned long long)hash);
}

static void print_long(FILE *to, const struct fragment_probe *probe, const uint32_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (out[i] != 0)
            fprintf(to, " %zu.%zu=%u", i / probe->accumulators, i % probe->accumulators, out[i] - 1);
}

void fragment_print(FILE *to, const struct fragment_probe *probe, const uint32_t *out)
{
    size_t n = (size_t)probe->threads * probe->accumulators;
    for (size_t block = 0; block < probe->blocks; block++, out += n) {
        size_t i = 0;
        while (i < n && out[i] == 0)
            i++;
        if (i == n)
            continue;
        fprintf(to, "%s %zu:", probe->name, block);
        if (strncmp(probe->name, "wgmma", 5) == 0)
            print_short(to, out, n);
        else
            print_long(to, probe, out, n);
        fputc('\n', to);
    }
}
