/* Packing of weights: rows come from the checkpoint in parallel, panels of them are packed in pinned memory
 * and uploaded while the next are packed. How a panel lies is the layout's. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include "base/alloc.h"
#include "base/float16.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/weight_row.h"

static void check_desc(const struct weight_desc *desc)
{
    ASSERT(desc->n_out > 0 && desc->n_in > 0 && desc->n_out <= UINT32_MAX && desc->n_in <= UINT32_MAX);
    bool int4 = desc->format == WEIGHT_INT4 || desc->format == WEIGHT_UINT4;
    ASSERT((desc->format != WEIGHT_INT8 && !int4) || (desc->group > 0 && desc->n_in % desc->group == 0));
    ASSERT(desc->format != WEIGHT_UINT4 || desc->codes != NULL);
}

static size_t count_panels(const struct cuda_layout *layout, const struct weight_desc *desc)
{
    return div_up(desc->n_out, layout->panel_rows);
}

size_t cuda_weight_bytes(const struct backend *backend, const struct weight_desc *desc)
{
    check_desc(desc);
    const struct cuda_layout *layout = cuda_linear_layout(cuda_of_const(backend), desc);
    size_t codes, scales, n_panels = count_panels(layout, desc), total;
    layout->panel_bytes(desc, &codes, &scales);
    if (!checked_mul(codes + scales, n_panels, &total) || !checked_add(total, 2 * (size_t)CUDA_ALIGN, &total))
        return SIZE_MAX;
    return cuda_bytes(codes, n_panels) + cuda_bytes(scales, n_panels) +
           (desc->bias == NULL ? 0 : cuda_bytes(desc->n_out, sizeof(float)));
}

/* ---- Rows as they are ---- */

static void rows_bytes(const struct weight_desc *desc, size_t *codes, size_t *scales)
{
    *codes = cuda_matrix_row_bytes(desc->format, (uint32_t)desc->n_in);
    *scales = 0;
    if (desc->format == WEIGHT_INT4 || desc->format == WEIGHT_INT8)
        *scales = desc->n_in / desc->group * sizeof(uint16_t);
    if (desc->format == WEIGHT_UINT4)
        *scales = desc->n_in / desc->group * 2 * sizeof(uint16_t);
    if (desc->format == WEIGHT_FP8 || (desc->format == WEIGHT_INT8 && desc->group == desc->n_in))
        *scales = sizeof(float);
}

static void pack_groups(const struct kernel_table *quantize, const struct weight_desc *desc,
                        const float *values, const struct weight_codes *row, uint8_t *codes, uint16_t *scales)
{
    quantize_group_fn *group =
        desc->format == WEIGHT_INT8 ? quantize->quantize_group_int8 : quantize->quantize_group_int4;
    bool has_zeros = desc->format == WEIGHT_UINT4;
    for (size_t g = 0; g < desc->n_in / desc->group; g++) {
        size_t k = g * desc->group;
        uint16_t scale =
            values == NULL ? f16_from_f32(row->scales[g]) : group(values + k, desc->group, row->codes + k);
        scales[has_zeros ? 2 * g : g] = scale;
        if (has_zeros)
            scales[2 * g + 1] = row->zeros[g];
    }
    if (desc->format == WEIGHT_INT8) {
        memcpy(codes, row->codes, desc->n_in);
        return;
    }
    int offset = has_zeros ? 0 : INT4_OFFSET;
    for (size_t k = 0; k < desc->n_in; k++)
        codes[k / 2] |= (uint8_t)((row->codes[k] + offset) << (k % 2 * 4));
}

static void rows_pack(const struct kernel_table *quantize, const struct weight_desc *desc,
                      const float *values, const struct weight_codes *row, uint32_t row_in_panel,
                      uint8_t *codes, uint8_t *scales)
{
    (void)row_in_panel;
    switch (desc->format) {
    case WEIGHT_F32:
        memcpy(codes, values, desc->n_in * sizeof(float));
        return;
    case WEIGHT_BF16:
        for (size_t k = 0; k < desc->n_in; k++)
            ((uint16_t *)codes)[k] = bf16_from_f32(values[k]);
        return;
    case WEIGHT_F16:
        for (size_t k = 0; k < desc->n_in; k++)
            ((uint16_t *)codes)[k] = f16_from_f32(values[k]);
        return;
    case WEIGHT_INT8:
    case WEIGHT_INT4:
    case WEIGHT_UINT4:
        if (desc->format != WEIGHT_INT8 || desc->group < desc->n_in) {
            pack_groups(quantize, desc, values, row, codes, (uint16_t *)scales);
            return;
        }
        break;
    case WEIGHT_FP8:
        break;
    default: /* those of has_block_formats */
        ASSERT(!"a format that the GPU has not");
    }
    if (values != NULL) {
        *(float *)scales = weight_row_quantize(desc->format, values, desc->n_in, (int8_t *)codes);
        return;
    }
    *(float *)scales = row->scales[0];
    memcpy(codes, row->codes, desc->n_in);
}

const struct cuda_layout cuda_layout_rows = {
    .name = "rows",
    .panel_rows = 1,
    .panel_bytes = rows_bytes,
    .pack_row = rows_pack,
};

/* ---- Packing ---- */

struct pack_job {
    const struct cuda_backend *cuda;
    const struct weight_desc *desc;
    const struct cuda_layout *layout;
    size_t first_panel, n_panels; /* of this chunk */
    size_t codes_bytes, scales_bytes;
    uint8_t *codes, *scales; /* of the chunk */
    float *rows;             /* [threads][2 * n_in]: values, scales */
    int8_t *buffers;         /* [threads][2 * n_in]: codes, zero points */
    atomic_size_t bad_row;   /* lowest row that cannot be represented; SIZE_MAX = none */
};

/* f16 and codes cannot hold everything that f32 can; f32 and bf16 take what comes. */
static bool row_fits(enum weight_format format, const float *row, size_t n)
{
    if (format == WEIGHT_F32 || format == WEIGHT_BF16)
        return true;
    return weight_row_greatest(row, n) <= (format == WEIGHT_F16 ? F16_MAX : 3e38f); /* false for NaN */
}

/* The values of a row, or its codes; false: it cannot be represented. */
static bool take_row(const struct weight_desc *desc, size_t row, float *values,
                     const struct weight_codes *codes)
{
    if (desc->codes == NULL) {
        desc->row(desc->row_context, row, values);
        return row_fits(desc->format, values, desc->n_in);
    }
    desc->codes(desc->row_context, row, 1, codes);
    bool by_output = desc->format == WEIGHT_FP8 || (desc->format == WEIGHT_INT8 && desc->group == desc->n_in);
    bool fits = true;
    for (size_t g = 0; !by_output && g < desc->n_in / desc->group; g++)
        fits &= fabsf(codes->scales[g]) <= 65504.0f; /* f16 */
    return fits;
}

static void pack_panel(struct pack_job *job, size_t panel, float *values, const struct weight_codes *row)
{
    const struct weight_desc *desc = job->desc;
    size_t first = (job->first_panel + panel) * job->layout->panel_rows;
    for (uint32_t r = 0; r < job->layout->panel_rows && first + r < desc->n_out; r++) {
        if (!take_row(desc, first + r, values, row)) {
            size_t lowest = atomic_load(&job->bad_row);
            while (first + r < lowest && !atomic_compare_exchange_weak(&job->bad_row, &lowest, first + r)) {
            }
            continue;
        }
        job->layout->pack_row(&job->cuda->table, desc, desc->codes == NULL ? values : NULL, row, r,
                              job->codes + panel * job->codes_bytes, job->scales + panel * job->scales_bytes);
    }
}

static void pack_panels(void *context, int thread_index, int n_threads)
{
    struct pack_job *job = context;
    size_t begin, end, n_in = job->desc->n_in;
    thread_split(job->n_panels, 1, thread_index, n_threads, &begin, &end);
    float *values = job->rows + (size_t)thread_index * 2 * n_in;
    int8_t *buffer = job->buffers + (size_t)thread_index * 2 * n_in;
    struct weight_codes row = {.codes = buffer, .scales = values + n_in, .zeros = (uint8_t *)buffer + n_in};
    for (size_t p = begin; p < end; p++)
        pack_panel(job, p, values, &row);
}

/* Panels in chunks that fill a stage. */
static err_t pack_chunks(struct cuda_backend *cuda, struct pack_job *job, const struct weight *weight)
{
    const struct device_api *api = cuda->api;
    size_t n_panels = count_panels(job->layout, job->desc);
    size_t panel_bytes = job->codes_bytes + job->scales_bytes;
    size_t chunk = (cuda->stage_bytes - CUDA_ALIGN) / panel_bytes;
    ASSERT(chunk > 0);
    for (job->first_panel = 0; job->first_panel < n_panels; job->first_panel += job->n_panels) {
        size_t left = n_panels - job->first_panel;
        job->n_panels = left < chunk ? left : chunk;
        size_t codes_bytes = job->n_panels * job->codes_bytes, scales_at = cuda_bytes(codes_bytes, 1);
        size_t scales_bytes = job->n_panels * job->scales_bytes;
        TRY(cuda_stage_begin(cuda, &job->codes));
        job->scales = job->codes + scales_at;
        memset(job->codes, 0, scales_at + scales_bytes);
        thread_pool_run(cuda->pool, pack_panels, job);
        TRY(api->copy_to_device(cuda->device, cuda->stream,
                                (uint8_t *)weight->matrix.codes + job->first_panel * job->codes_bytes,
                                job->codes, codes_bytes));
        if (scales_bytes > 0)
            TRY(api->copy_to_device(cuda->device, cuda->stream,
                                    (uint8_t *)weight->matrix.scales + job->first_panel * job->scales_bytes,
                                    job->scales, scales_bytes));
        TRY(cuda_stage_end(cuda));
    }
    size_t bad_row = atomic_load(&job->bad_row);
    if (bad_row != SIZE_MAX)
        return err_new(ERR_DATA_LOSS,
                       "weight %s: row %zu holds NaN, infinity or a value beyond the range of %s",
                       job->desc->name, bad_row, job->desc->format == WEIGHT_F16 ? "f16" : "quantisation");
    return err_ok();
}

static err_t weight_take(struct cuda_backend *cuda, const struct weight_desc *desc, struct weight *weight)
{
    void *codes, *scales = NULL, *bias = NULL;
    size_t codes_bytes, scales_bytes, n_panels = count_panels(weight->layout, desc);
    weight->layout->panel_bytes(desc, &codes_bytes, &scales_bytes);
    TRY(cuda_take(cuda, n_panels, codes_bytes, desc->name, &codes));
    if (scales_bytes > 0)
        TRY(cuda_take(cuda, n_panels, scales_bytes, desc->name, &scales));
    if (desc->bias != NULL) {
        TRY(cuda_take(cuda, desc->n_out, sizeof(float), desc->name, &bias));
        TRY(cuda_upload(cuda, bias, desc->bias, desc->n_out * sizeof(float)));
    }
    weight->matrix = (struct cuda_matrix){
        .codes = codes,
        .scales = scales,
        .bias = bias,
        .n_out = (uint32_t)desc->n_out,
        .n_in = (uint32_t)desc->n_in,
        .group = desc->group,
        .format = desc->format,
        .row_bytes = cuda_matrix_row_bytes(desc->format, (uint32_t)desc->n_in),
        .packed = weight->layout->packed,
    };
    return err_ok();
}

static err_t pack(struct cuda_backend *cuda, const struct weight_desc *desc, struct weight *weight)
{
    TRY(weight_take(cuda, desc, weight));
    size_t n_threads = (size_t)thread_pool_size(cuda->pool);
    struct pack_job job = {.cuda = cuda, .desc = desc, .layout = weight->layout, .bad_row = SIZE_MAX};
    weight->layout->panel_bytes(desc, &job.codes_bytes, &job.scales_bytes);
    float *buffers = mem_alloc_array(n_threads * 2 * desc->n_in, sizeof(float) + 1);
    if (buffers == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory to pack weight %s", desc->name);
    job.rows = buffers;
    job.buffers = (int8_t *)(buffers + n_threads * 2 * desc->n_in);
    err_t e = pack_chunks(cuda, &job, weight);
    mem_free(buffers);
    return e;
}

err_t cuda_weight_pack(struct backend *backend, const struct weight_desc *desc, struct weight **out)
{
    check_desc(desc);
    *out = NULL;
    struct cuda_backend *cuda = cuda_of(backend);
    struct weight *weight = mem_alloc(sizeof *weight);
    if (weight == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for weight %s", desc->name);
    weight->layout = cuda_linear_layout(cuda, desc);
    err_t e = pack(cuda, desc, weight);
    if (e.code == ERR_OK && !desc->is_table)
        e = cuda_product_plan(cuda, &weight->matrix, &weight->product);
    if (e.code != ERR_OK) {
        mem_free(weight);
        return e;
    }
    *out = weight;
    return e;
}

void cuda_weight_destroy(struct weight *weight)
{
    mem_free(weight);
}
