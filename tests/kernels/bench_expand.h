/* What a tile kernel does before it multiplies, without the tile instructions: for the bench of machines that
 * lack them. */
#pragma once

#include "kernels/kernel_table.h"

/* Whether this CPU has the vector instructions for it. */
bool expand_is_available(void);
/* All inputs of a panel to tiles of bf16, as many at a time as for one row. format: one of the codes. */
void expand_panel(enum weight_format format, const struct tile_args *args);
/* Attention by tiles becomes all of it but the tile instructions, whose results are whatever memory holds. */
void expand_attention(struct kernel_table *table);
