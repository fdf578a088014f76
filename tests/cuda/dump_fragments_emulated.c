/* dump_fragments of the emulator: the lines that a card must give as well. */
#include <stdlib.h>
#include "base/assert.h"
#include "tests/cuda/fragments_emulated.h"

int main(void)
{
    printf("# emulator\n");
    for (size_t i = 0; i < n_fragment_probes; i++) {
        uint32_t *out = malloc(fragment_words(&fragment_probes[i]) * sizeof *out);
        ASSERT(out != NULL);
        fragment_run(i, out);
        fragment_print(stdout, &fragment_probes[i], out);
        free(out);
    }
    return 0;
}
