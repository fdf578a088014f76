/* Layouts of fragments as text: the same from a card and from the emulator. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fragment_probe {
    const char *name;
    uint32_t blocks, threads, accumulators, element_bytes;
};
extern const struct fragment_probe fragment_probes[];
extern const size_t n_fragment_probes;

static inline size_t fragment_words(const struct fragment_probe *probe)
{
    return (size_t)probe->blocks * probe->threads * probe->accumulators;
}

/* One line an element of a that met any of b: "name a: thread.accumulator=b ...", numbers as in
 * fragment_kernels.h; of wgmma a hash of what would follow "a:", since it has a thousand of them. */
void fragment_print(FILE *to, const struct fragment_probe *probe, const uint32_t *out);

#ifdef __cplusplus
}
#endif
