/* Linear layers in the arithmetic of tiles.h: which form a weight has, and its panels over threads. */
#include "kernels/cpu_backend.h"

enum {
    /* A panel is expanded once for so many rows. */
    TILE_CHUNK_ROWS = 512,
    /* Bytes of activations that a thread walks for each panel; about half of a core's second-level cache.
       Where the rows are more, their inputs go in slices, and sums wait in the output. */
    TILE_SLICE_BYTES = 1 << 20,
};

enum act_form cpu_panels_form(const struct cpu_backend *cpu, const struct panels *panels)
{
    enum act_form plain = weight_is_quantized(panels->format) ? ACT_INT8 : ACT_FLOAT;
    if (cpu->table.arithmetic != ARITHMETIC_TILES)
        return plain;
    switch (panels->format) {
    case WEIGHT_BF16:
        return ACT_BF16;
    case WEIGHT_INT8:
    case WEIGHT_INT4:
    case WEIGHT_UINT4:
        return panels->group % WIDE_BLOCK == 0 ? ACT_WIDE : ACT_BF16;
    case WEIGHT_INT5: /* scales of 16 or 32 inputs, whatever the group */
    case WEIGHT_K4:
    case WEIGHT_K5:
    case WEIGHT_K6:
        return ACT_BF16;
    default:
        return plain;
    }
}

static tile_fn *choose_kernel(const struct cpu_backend *cpu, const struct panels *panels, enum kernel_id *id)
{
    const struct kernel_table *table = &cpu->table;
    bool wide = cpu_panels_form(cpu, panels) == ACT_WIDE;
    switch (panels->format) {
    case WEIGHT_BF16:
        *id = KERNEL_linear_tile_bf16;
        return table->linear_tile_bf16;
    case WEIGHT_INT8:
        *id = wide ? KERNEL_linear_wide_int8 : KERNEL_linear_tile_int8;
        return wide ? table->linear_wide_int8 : table->linear_tile_int8;
    case WEIGHT_INT4:
        *id = wide ? KERNEL_linear_wide_int4 : KERNEL_linear_tile_int4;
        return wide ? table->linear_wide_int4 : table->linear_tile_int4;
    case WEIGHT_UINT4:
        *id = wide ? KERNEL_linear_wide_uint4 : KERNEL_linear_tile_uint4;
        return wide ? table->linear_wide_uint4 : table->linear_tile_uint4;
    case WEIGHT_INT5:
        *id = KERNEL_linear_tile_int5;
        return table->linear_tile_int5;
    case WEIGHT_K4:
        *id = KERNEL_linear_tile_k4;
        return table->linear_tile_k4;
    case WEIGHT_K5:
        *id = KERNEL_linear_tile_k5;
        return table->linear_tile_k5;
    case WEIGHT_K6:
        *id = KERNEL_linear_tile_k6;
        return table->linear_tile_k6;
    default:
        ASSERT(false && "a format without tiles");
        return NULL;
    }
}

struct tile_job {
    struct cpu_backend *cpu;
    const struct panels *panels;
    tile_fn *kernel;
    const struct act *in;
    size_t n_rows;
    struct act *out;
};

/* Inputs [first_in, last_in) of the rows from `row` on, in one panel. */
static struct tile_args panel_args(const struct tile_job *job, size_t panel, size_t row, size_t n_rows,
                                   size_t first_in, size_t last_in)
{
    const struct panels *panels = job->panels;
    const struct act *in = job->in;
    size_t first_out = panel * PANEL_OUTPUTS, n_out = panels->n_out - first_out;
    bool last = last_in == panels->n_in;
    return (struct tile_args){
        .panel = panels->data + panel * panels->panel_bytes,
        .n_in = panels->n_in,
        .group = panels->group,
        .first_in = first_in,
        .last_in = last_in,
        .n_rows = n_rows,
        .x = act_row_bf16(in, row),
        .x_stride = in->q_stride / sizeof(uint16_t),
        .scale = last && panels->scale != NULL ? panels->scale + first_out : NULL,
        .q = in->q + row * in->q_stride,
        .q_stride = in->q_stride,
        .q_scale = in->q_scale + row * in->q_block_stride,
        .q_block_stride = in->q_block_stride,
        .bias = last && panels->bias != NULL ? panels->bias + first_out : NULL,
        .out = act_row(job->out, row) + panels->first_out + first_out,
        .out_stride = job->out->stride,
        .n_out = n_out < PANEL_OUTPUTS ? n_out : PANEL_OUTPUTS,
    };
}

static void tile_panels(void *context, int thread_index, int n_threads)
{
    const struct tile_job *job = context;
    const size_t n_in = job->panels->n_in, input_bytes = job->in->form == ACT_BF16 ? 2 : 1;
    size_t begin, end;
    thread_split(job->panels->n_panels, 1, thread_index, n_threads, &begin, &end);
    for (size_t row = 0, n_rows; row < job->n_rows; row += n_rows) {
        n_rows = job->n_rows - row < TILE_CHUNK_ROWS ? job->n_rows - row : TILE_CHUNK_ROWS;
        size_t slice = TILE_SLICE_BYTES / (n_rows * input_bytes) / EXPAND_INPUTS * EXPAND_INPUTS;
        slice = slice < EXPAND_INPUTS ? EXPAND_INPUTS : slice;
        for (size_t first = 0; first < n_in; first += slice) {
            size_t last = n_in - first < slice ? n_in : first + slice;
            for (size_t p = begin; p < end; p++) {
                struct tile_args args = panel_args(job, p, row, n_rows, first, last);
                args.scratch = job->cpu->tile_scratch[thread_index];
                job->kernel(&args);
            }
        }
    }
}

void cpu_tile_linear(struct cpu_backend *cpu, const struct act *in, size_t n_rows,
                     const struct panels *panels, struct act *out)
{
    enum kernel_id id;
    struct tile_job job = {cpu, panels, choose_kernel(cpu, panels, &id), in, n_rows, out};
    cpu_run(cpu, panels->n_in * panels->n_out * n_rows >= CPU_PARALLEL_MIN_MACS, tile_panels, &job);
    cpu->dispatches[id]++;
}
