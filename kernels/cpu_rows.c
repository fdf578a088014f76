/* Ops that treat each row by itself: embedding, norm, activation, gathering of outputs. */
#include <string.h>
#include "kernels/cpu_backend.h"

struct rows_job {
    struct cpu_backend *cpu;
    const struct step *step;
    size_t n_rows;
    const struct sampler *sampler;
    const struct weight *table;
    uint32_t first_token;
    float scale;
    struct act *residual;
    const struct act *in;
    const struct vector *add_weight, *weight;
    float eps;
    activation_row_fn *activation;
    struct act *out;
};

static void embed_rows(void *context, int thread_index, int n_threads)
{
    const struct rows_job *job = context;
    const struct step *step = job->step;
    size_t begin, end;
    thread_split(step->n_rows, 1, thread_index, n_threads, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        const struct step_row *row = &step->rows[r];
        uint32_t token = row->token;
        if (row->flags & STEP_ROW_TOKEN_FROM_SLOT)
            token = cpu_slot_last_token(job->sampler, step->seqs[row->seq].sampling_slot);
        bool is_here = token >= job->first_token && token - job->first_token < job->table->n_out;
        ASSERT(is_here || job->cpu->group != NULL);
        if (is_here)
            cpu_weight_read_row(job->table, token - job->first_token, job->scale, act_row(job->out, r));
        else
            memset(act_row(job->out, r), 0, job->out->width * sizeof(float));
    }
}

void cpu_embed(struct backend *backend, const struct step *step, const struct sampler *sampler,
               const struct weight *table, uint32_t first_token, float scale, struct act *out)
{
    ASSERT(out->width == table->n_in && step->n_rows <= out->max_rows);
    struct rows_job job = {.cpu = cpu_of(backend),
                           .step = step,
                           .sampler = sampler,
                           .table = table,
                           .first_token = first_token,
                           .scale = scale,
                           .out = out};
    out->n_quantized = 0;
    cpu_run(cpu_of(backend), step->n_rows > 1, embed_rows, &job);
}

static void norm_rows(void *context, int thread_index, int n_threads)
{
    const struct rows_job *job = context;
    size_t begin, end;
    thread_split(job->n_rows, 1, thread_index, n_threads, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        struct norm_args args = {
            .residual = act_row(job->residual, r),
            .add = job->in == NULL ? NULL : act_row(job->in, r),
            .add_weight = job->add_weight == NULL ? NULL : job->add_weight->values,
            .weight = job->weight->values,
            .n = job->residual->width,
            .eps = job->eps,
            .out = act_row(job->out, r),
        };
        job->cpu->table.norm_row(&args);
    }
}

void cpu_add_norm(struct backend *backend, const struct step *step, enum step_rows rows, struct act *residual,
                  const struct act *add, const struct vector *add_weight, const struct vector *weight,
                  float eps, struct act *out)
{
    const size_t n_rows = step_row_count(step, rows);
    ASSERT(residual->width == weight->n && out->width == weight->n &&
           (add == NULL || add->width == weight->n));
    ASSERT(n_rows <= residual->max_rows && n_rows <= out->max_rows);
    ASSERT(add == NULL || n_rows <= add->max_rows);
    ASSERT(add_weight == NULL || (add != NULL && add_weight->n == weight->n));
    struct cpu_backend *cpu = cpu_of(backend);
    struct rows_job job = {.cpu = cpu,
                           .n_rows = n_rows,
                           .residual = residual,
                           .in = add,
                           .add_weight = add_weight,
                           .weight = weight,
                           .eps = eps,
                           .out = out};
    if (add != NULL)
        residual->n_quantized = 0;
    out->n_quantized = 0;
    cpu_run(cpu, n_rows > 1 && n_rows * weight->n >= CPU_PARALLEL_MIN_ELEMENTS, norm_rows, &job);
    cpu->dispatches[KERNEL_norm_row]++;
}

static void activation_rows(void *context, int thread_index, int n_threads)
{
    const struct rows_job *job = context;
    size_t begin, end, width = job->out->width;
    thread_split(job->n_rows, 1, thread_index, n_threads, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        const float *gate = act_row(job->in, r);
        job->activation(gate, gate + width, width, act_row(job->out, r));
    }
}

void cpu_activation_mul(struct backend *backend, const struct step *step, enum step_rows rows,
                        const struct act *gate_up, enum activation_kind kind, struct act *out)
{
    const size_t n_rows = step_row_count(step, rows);
    ASSERT(gate_up->width == 2 * out->width);
    ASSERT(n_rows <= gate_up->max_rows && n_rows <= out->max_rows);
    struct cpu_backend *cpu = cpu_of(backend);
    bool silu = kind == ACTIVATION_SILU;
    struct rows_job job = {.cpu = cpu,
                           .n_rows = n_rows,
                           .in = gate_up,
                           .activation = silu ? cpu->table.silu_mul_row : cpu->table.gelu_mul_row,
                           .out = out};
    out->n_quantized = 0;
    cpu_run(cpu, n_rows > 1 && n_rows * out->width >= CPU_PARALLEL_MIN_ELEMENTS, activation_rows, &job);
    cpu->dispatches[silu ? KERNEL_silu_mul_row : KERNEL_gelu_mul_row]++;
}

void cpu_gather_outputs(struct backend *backend, const struct step *step, uint32_t first_output, uint32_t n,
                        const struct act *in, struct act *out)
{
    (void)backend;
    ASSERT(first_output <= step->n_outputs && n <= step->n_outputs - first_output);
    ASSERT(in != out && in->width == out->width && n <= out->max_rows);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t row = step->outputs[first_output + i].row;
        ASSERT(row < step->n_rows && row < in->max_rows);
        memcpy(act_row(out, i), act_row(in, row), in->width * sizeof(float));
    }
    out->n_quantized = 0;
}
