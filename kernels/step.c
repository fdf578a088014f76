#include "kernels/step.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/checked.h"

/* The parts of a step behind the struct itself, each aligned for any type. */
struct step_layout {
    size_t rows, seqs, outputs, copies, block_tables[STEP_KV_GROUPS_MAX], results;
    size_t total;
};

enum { STEP_ALIGN = 64 };

static bool layout_add(struct step_layout *layout, size_t *offset, size_t count, size_t size_bytes)
{
    size_t bytes, padded;
    *offset = layout->total;
    if (!checked_mul(count, size_bytes, &bytes) || !checked_add(bytes, STEP_ALIGN - 1, &padded))
        return false;
    return checked_add(layout->total, padded / STEP_ALIGN * STEP_ALIGN, &layout->total);
}

static bool layout_make(const struct step_capacity *c, struct step_layout *layout)
{
    ASSERT(c->kv_groups <= STEP_KV_GROUPS_MAX);
    *layout = (struct step_layout){.total = round_up(sizeof(struct step), STEP_ALIGN)};
    size_t table_words;
    bool fits = layout_add(layout, &layout->rows, c->rows, sizeof(struct step_row)) &&
                layout_add(layout, &layout->seqs, c->seqs, sizeof(struct step_seq)) &&
                layout_add(layout, &layout->outputs, c->outputs, sizeof(struct step_output)) &&
                layout_add(layout, &layout->copies, c->copies, sizeof(struct step_copy)) &&
                layout_add(layout, &layout->results, c->outputs, sizeof(struct step_result)) &&
                checked_mul(c->seqs, c->blocks_per_seq, &table_words);
    for (uint32_t g = 0; fits && g < c->kv_groups; g++)
        fits = layout_add(layout, &layout->block_tables[g], table_words, sizeof(uint32_t));
    return fits;
}

size_t step_bytes(const struct step_capacity *capacity)
{
    struct step_layout layout;
    return layout_make(capacity, &layout) ? layout.total : SIZE_MAX;
}

err_t step_create(const struct step_capacity *capacity, struct step **out)
{
    *out = NULL;
    struct step_layout layout;
    char *base = layout_make(capacity, &layout) ? mem_alloc(layout.total) : NULL;
    if (base == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED,
                       "no memory for a step of %u rows, %u sequences and %u blocks each", capacity->rows,
                       capacity->seqs, capacity->blocks_per_seq);
    struct step *step = (struct step *)base;
    *step = (struct step){
        .capacity = *capacity,
        .rows = (struct step_row *)(base + layout.rows),
        .seqs = (struct step_seq *)(base + layout.seqs),
        .outputs = (struct step_output *)(base + layout.outputs),
        .copies = (struct step_copy *)(base + layout.copies),
        .results = (struct step_result *)(base + layout.results),
    };
    for (uint32_t g = 0; g < capacity->kv_groups; g++)
        step->block_tables[g] = (uint32_t *)(base + layout.block_tables[g]);
    *out = step;
    return err_ok();
}

void step_destroy(struct step *step)
{
    mem_free(step);
}

void step_copy_inputs(struct step *to, const struct step *from)
{
    ASSERT(memcmp(&to->capacity, &from->capacity, sizeof to->capacity) == 0);
    to->id = from->id;
    to->n_rows = from->n_rows;
    to->n_seqs = from->n_seqs;
    to->n_outputs = from->n_outputs;
    to->n_copies = from->n_copies;
    memcpy(to->rows, from->rows, from->n_rows * sizeof from->rows[0]);
    memcpy(to->seqs, from->seqs, from->n_seqs * sizeof from->seqs[0]);
    memcpy(to->outputs, from->outputs, from->n_outputs * sizeof from->outputs[0]);
    memcpy(to->copies, from->copies, from->n_copies * sizeof from->copies[0]);
    size_t table_words = (size_t)from->n_seqs * from->capacity.blocks_per_seq;
    for (uint32_t g = 0; g < from->capacity.kv_groups; g++)
        memcpy(to->block_tables[g], from->block_tables[g], table_words * sizeof from->block_tables[g][0]);
}
