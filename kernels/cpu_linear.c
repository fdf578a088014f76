/* Linear layers and logits: panels of outputs over threads, rows in chunks that stay in a core's cache. */
#include "kernels/cpu_backend.h"

/* Bytes of activations that a thread walks for each panel; about half of a core's second-level cache. */
enum { ROW_CHUNK_BYTES = 1 << 20 };

struct linear_job {
    struct cpu_backend *cpu;
    const struct weight *weight;
    linear_fn *kernel;
    struct act *in;
    size_t first_row, n_rows; /* quantisation: rows that still need it */
    struct act *out;
    float soft_cap;
};

static void quantize_rows(void *context, int thread_index, int n_threads)
{
    const struct linear_job *job = context;
    const struct kernel_table *table = &job->cpu->table;
    struct act *in = job->in;
    size_t begin, end;
    thread_split(job->n_rows - job->first_row, 1, thread_index, n_threads, &begin, &end);
    for (size_t r = job->first_row + begin; r < job->first_row + end; r++) {
        const float *x = act_row(in, r);
        int8_t *q = in->q + r * in->q_stride;
        float *scale = in->q_scale + r * in->q_block_stride;
        if (in->form == ACT_BF16)
            table->round_row(x, in->width, act_row_bf16(in, r));
        else if (in->form == ACT_WIDE)
            table->quantize_wide_row(x, in->width, q, scale);
        else
            table->quantize_row(x, in->width, q, scale, in->q_sum + r * in->q_block_stride);
    }
}

/* Makes the first n_rows of `in` what a weight of that form takes, where they are not yet. */
static void take_form(struct cpu_backend *cpu, struct act *in, enum act_form form, size_t n_rows)
{
    if (form == ACT_FLOAT || (in->form == form && in->n_quantized >= n_rows))
        return;
    if (in->form != form)
        in->n_quantized = 0;
    in->form = form;
    struct linear_job job = {.cpu = cpu, .in = in, .first_row = in->n_quantized, .n_rows = n_rows};
    cpu_run(cpu, (n_rows - job.first_row) * in->width >= CPU_PARALLEL_MIN_ELEMENTS && n_rows > 1,
            quantize_rows, &job);
    in->n_quantized = n_rows;
    cpu->dispatches[form == ACT_BF16   ? KERNEL_round_row
                    : form == ACT_WIDE ? KERNEL_quantize_wide_row
                                       : KERNEL_quantize_row]++;
}

static void linear_panels(void *context, int thread_index, int n_threads)
{
    const struct linear_job *job = context;
    const struct weight *weight = job->weight;
    const struct act *in = job->in;
    struct act *out = job->out;
    size_t begin, end;
    thread_split(weight->n_panels, 1, thread_index, n_threads, &begin, &end);
    bool quantized = weight_is_quantized(weight->format);
    size_t row_bytes = weight->n_in * (quantized ? 1 : sizeof(float));
    size_t chunk = ROW_CHUNK_BYTES / row_bytes;
    chunk = chunk < 32 ? 32 : chunk;
    for (size_t row = 0; row < job->n_rows; row += chunk) {
        size_t n_rows = job->n_rows - row < chunk ? job->n_rows - row : chunk;
        for (size_t p = begin; p < end; p++) {
            size_t first_out = p * PANEL_OUTPUTS;
            size_t n_out = weight->n_out - first_out;
            struct linear_args args = {
                .panel = weight->panels + p * weight->panel_bytes,
                .n_in = weight->n_in,
                .group = weight->group,
                .n_rows = n_rows,
                .x = act_row(in, row),
                .x_stride = in->stride,
                .scale = weight->scale == NULL ? NULL : weight->scale + first_out,
                .bias = weight->bias == NULL ? NULL : weight->bias + first_out,
                .out = act_row(out, row) + first_out,
                .out_stride = out->stride,
                .n_out = n_out < PANEL_OUTPUTS ? n_out : PANEL_OUTPUTS,
            };
            if (quantized) {
                args.q = in->q + row * in->q_stride;
                args.q_stride = in->q_stride;
                args.q_scale = in->q_scale + row * in->q_block_stride;
                args.q_sum = in->q_sum + row * in->q_block_stride;
                args.q_block_stride = in->q_block_stride;
            }
            job->kernel(&args);
        }
    }
}

static linear_fn *choose_kernel(struct cpu_backend *cpu, enum weight_format format, enum kernel_id *id)
{
    switch (format) {
    case WEIGHT_F32:
        *id = KERNEL_linear_f32;
        return cpu->table.linear_f32;
    case WEIGHT_BF16:
        *id = KERNEL_linear_bf16;
        return cpu->table.linear_bf16;
    case WEIGHT_F16:
        *id = KERNEL_linear_f16;
        return cpu->table.linear_f16;
    case WEIGHT_INT8:
        *id = KERNEL_linear_int8;
        return cpu->table.linear_int8;
    case WEIGHT_INT4:
        *id = KERNEL_linear_int4;
        return cpu->table.linear_int4;
    case WEIGHT_UINT4:
        *id = KERNEL_linear_uint4;
        return cpu->table.linear_uint4;
    case WEIGHT_FP8: /* packed as bf16 */
        break;
    }
    ASSERT(false && "unknown weight format");
    return NULL;
}

static void linear_rows(struct cpu_backend *cpu, struct act *in, size_t n_rows, const struct weight *weight,
                        struct act *out)
{
    ASSERT(in->width == weight->n_in && out->width == weight->n_out && in != out);
    ASSERT(n_rows <= in->max_rows && n_rows <= out->max_rows);
    out->n_quantized = 0;
    if (n_rows == 0)
        return;
    enum act_form form = cpu_weight_form(cpu, weight);
    take_form(cpu, in, form, n_rows);
    if (form == ACT_BF16 || form == ACT_WIDE) {
        cpu_tile_linear(cpu, in, n_rows, weight, out);
        return;
    }
    enum kernel_id id;
    struct linear_job job = {.cpu = cpu,
                             .weight = weight,
                             .kernel = choose_kernel(cpu, weight->format, &id),
                             .in = in,
                             .n_rows = n_rows,
                             .out = out};
    cpu_run(cpu, weight->n_in * weight->n_out * n_rows >= CPU_PARALLEL_MIN_MACS, linear_panels, &job);
    cpu->dispatches[id]++;
}

void cpu_linear(struct backend *backend, const struct step *step, struct act *in, const struct weight *weight,
                struct act *out)
{
    linear_rows(cpu_of(backend), in, step->n_rows, weight, out);
}

static void cap_rows(void *context, int thread_index, int n_threads)
{
    const struct linear_job *job = context;
    size_t begin, end;
    thread_split(job->n_rows, 1, thread_index, n_threads, &begin, &end);
    for (size_t r = begin; r < end; r++)
        job->cpu->table.soft_cap_row(act_row(job->out, r), job->out->width, job->soft_cap);
}

void cpu_logits(struct backend *backend, const struct step *step, uint32_t first_output, uint32_t n,
                struct act *hidden, const struct weight *weight, float soft_cap, struct act *logits)
{
    (void)step, (void)first_output;
    struct cpu_backend *cpu = cpu_of(backend);
    linear_rows(cpu, hidden, n, weight, logits);
    if (soft_cap > 0 && n > 0) {
        struct linear_job job = {.cpu = cpu, .n_rows = n, .out = logits, .soft_cap = soft_cap};
        cpu_run(cpu, n > 1, cap_rows, &job);
        cpu->dispatches[KERNEL_soft_cap_row]++;
    }
}
