/* Linear layers and logits: panels of outputs over threads, rows in chunks that stay in a core's cache. */
#include "kernels/cpu_backend.h"

/* Bytes of activations that a thread walks for each panel; about half of a core's second-level cache. */
enum { ROW_CHUNK_BYTES = 1 << 20 };

struct linear_job {
    struct cpu_backend *cpu;
    const struct panels *sections; /* [n_sections] */
    uint32_t n_sections;
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
        if (in->form == ACT_BF16)
            table->round_row(x, in->width, act_row_bf16(in, r));
        else if (in->form == ACT_WIDE)
            table->quantize_wide_row(x, in->width, in->q + r * in->q_stride,
                                     in->q_scale + r * in->q_block_stride);
        else
            table->quantize_row(x, in->width, in->blocks + quant_row_offset(r, in->tile_stride),
                                QUANT_TILE_ROWS);
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

static linear_fn *choose_kernel(const struct cpu_backend *cpu, enum weight_format format, enum kernel_id *id)
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
    case WEIGHT_INT5:
        *id = KERNEL_linear_int5;
        return cpu->table.linear_int5;
    case WEIGHT_K4:
        *id = KERNEL_linear_k4;
        return cpu->table.linear_k4;
    case WEIGHT_K5:
        *id = KERNEL_linear_k5;
        return cpu->table.linear_k5;
    case WEIGHT_K6:
        *id = KERNEL_linear_k6;
        return cpu->table.linear_k6;
    case WEIGHT_FP8: /* packed as bf16 */
    case WEIGHT_FORMATS:
        break;
    }
    ASSERT(false && "unknown weight format");
    return NULL;
}

/* This thread's panels of one section. */
static void section_panels(const struct linear_job *job, const struct panels *panels, int thread_index,
                           int n_threads)
{
    const struct act *in = job->in;
    struct act *out = job->out;
    size_t begin, end;
    enum kernel_id id;
    linear_fn *kernel = choose_kernel(job->cpu, panels->format, &id);
    thread_split(panels->n_panels, 1, thread_index, n_threads, &begin, &end);
    bool quantized = weight_is_quantized(panels->format);
    size_t row_bytes =
        quantized ? panels->n_in / QUANT_BLOCK * sizeof(struct quant_block) : panels->n_in * sizeof(float);
    size_t chunk = ROW_CHUNK_BYTES / row_bytes;
    chunk = chunk < 3 * QUANT_TILE_ROWS ? 3 * QUANT_TILE_ROWS : chunk / QUANT_TILE_ROWS * QUANT_TILE_ROWS;
    for (size_t row = 0; row < job->n_rows; row += chunk) {
        size_t n_rows = job->n_rows - row < chunk ? job->n_rows - row : chunk;
        for (size_t p = begin; p < end; p++) {
            size_t first_out = p * PANEL_OUTPUTS;
            size_t n_out = panels->n_out - first_out;
            struct linear_args args = {
                .panel = panels->data + p * panels->panel_bytes,
                .n_in = panels->n_in,
                .group = panels->group,
                .n_rows = n_rows,
                .x = act_row(in, row),
                .x_stride = in->stride,
                .scale = panels->scale == NULL ? NULL : panels->scale + first_out,
                .bias = panels->bias == NULL ? NULL : panels->bias + first_out,
                .out = act_row(out, row) + panels->first_out + first_out,
                .out_stride = out->stride,
                .n_out = n_out < PANEL_OUTPUTS ? n_out : PANEL_OUTPUTS,
            };
            if (quantized) {
                args.q = in->blocks + quant_row_offset(row, in->tile_stride);
                args.q_tile_stride = in->tile_stride;
            }
            kernel(&args);
        }
    }
}

static void linear_panels(void *context, int thread_index, int n_threads)
{
    const struct linear_job *job = context;
    for (uint32_t i = 0; i < job->n_sections; i++)
        section_panels(job, &job->sections[i], thread_index, n_threads);
}

/* Sections from `first` on that one walk of the threads serves: plain ones together, one of tiles alone.
 * form: what they take of the rows. */
static uint32_t sections_together(const struct cpu_backend *cpu, const struct weight *weight, uint32_t first,
                                  enum act_form *form)
{
    *form = cpu_panels_form(cpu, &weight->sections[first]);
    if (*form == ACT_BF16 || *form == ACT_WIDE)
        return 1;
    uint32_t n = 1;
    for (; first + n < weight->n_sections; n++) {
        enum act_form next = cpu_panels_form(cpu, &weight->sections[first + n]);
        if (next == ACT_BF16 || next == ACT_WIDE)
            break;
        *form = next == ACT_INT8 ? ACT_INT8 : *form;
    }
    return n;
}

static void linear_rows(struct cpu_backend *cpu, struct act *in, size_t n_rows, const struct weight *weight,
                        struct act *out)
{
    ASSERT(in->width == weight->n_in && out->width == weight->n_out && in != out);
    ASSERT(n_rows <= in->max_rows && n_rows <= out->max_rows);
    out->n_quantized = 0;
    if (n_rows == 0)
        return;
    for (uint32_t i = 0, n; i < weight->n_sections; i += n) {
        enum act_form form;
        n = sections_together(cpu, weight, i, &form);
        take_form(cpu, in, form, n_rows);
        if (form == ACT_BF16 || form == ACT_WIDE) {
            cpu_tile_linear(cpu, in, n_rows, &weight->sections[i], out);
            continue;
        }
        struct linear_job job = {.cpu = cpu,
                                 .sections = &weight->sections[i],
                                 .n_sections = n,
                                 .in = in,
                                 .n_rows = n_rows,
                                 .out = out};
        cpu_run(cpu, weight->n_in * weight->n_out * n_rows >= CPU_PARALLEL_MIN_MACS, linear_panels, &job);
        for (uint32_t k = i; k < i + n; k++) {
            enum kernel_id id;
            (void)choose_kernel(cpu, weight->sections[k].format, &id);
            cpu->dispatches[id]++;
        }
    }
}

void cpu_linear(struct backend *backend, const struct step *step, enum step_rows rows, struct act *in,
                const struct weight *weight, struct act *out)
{
    linear_rows(cpu_of(backend), in, step_row_count(step, rows), weight, out);
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
