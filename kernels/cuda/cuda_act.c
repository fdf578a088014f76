/* Activations and vectors of the CUDA backend, and the ops that treat each row by itself. */
#include <string.h>
#include "base/alloc.h"
#include "base/float16.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/linear_layout.h"

/* The residual and the logits are f32 in any precision. */
static bool is_f32(const struct cuda_backend *cuda, enum act_role role)
{
    return cuda->f32 || role != ACT_HIDDEN;
}

size_t cuda_act_bytes(const struct backend *backend, enum act_role role, size_t max_rows, size_t width)
{
    size_t element = is_f32(cuda_of_const(backend), role) ? sizeof(float) : sizeof(uint16_t);
    size_t bytes;
    if (!checked_mul(round_up(width, ACT_STRIDE_ELEMENTS) * element, max_rows, &bytes) ||
        !checked_add(bytes, CUDA_ALIGN, &bytes))
        return SIZE_MAX;
    return cuda_bytes(bytes - CUDA_ALIGN, 1);
}

err_t cuda_act_create(struct backend *backend, enum act_role role, size_t max_rows, size_t width,
                      struct act **out)
{
    ASSERT(max_rows > 0 && width > 0 && max_rows <= UINT32_MAX && width <= UINT32_MAX - ACT_STRIDE_ELEMENTS);
    struct cuda_backend *cuda = cuda_of(backend);
    *out = NULL;
    void *data;
    TRY(cuda_take(cuda, cuda_act_bytes(backend, role, max_rows, width), 1, "activations", &data));
    struct act *act = mem_alloc(sizeof *act);
    if (act == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for activations of %zu rows by %zu", max_rows,
                       width);
    *act = (struct act){.cuda = cuda,
                        .role = role,
                        .f32 = is_f32(cuda, role),
                        .max_rows = max_rows,
                        .width = width,
                        .stride = (uint32_t)round_up(width, ACT_STRIDE_ELEMENTS),
                        .data = data};
    *out = act;
    return err_ok();
}

void cuda_act_destroy(struct act *act)
{
    mem_free(act);
}

static uint8_t *act_at(const struct act *act, size_t row)
{
    return (uint8_t *)act->data + row * act->stride * act_element_bytes(act);
}

/* A row at a time through the stages: for tests and pooled outputs. */
void cuda_act_write(struct act *act, size_t first_row, size_t n_rows, const float *values)
{
    ASSERT(first_row <= act->max_rows && n_rows <= act->max_rows - first_row);
    struct cuda_backend *cuda = act->cuda;
    ASSERT(act->width * sizeof(float) <= cuda->stage_bytes);
    cuda_turn_flush(cuda);
    cuda->quantized = NULL;
    for (size_t r = 0; r < n_rows; r++) {
        uint8_t *stage;
        const float *row = values + r * act->width;
        if (!CUDA_STEP(cuda, cuda_stage_begin(cuda, &stage)))
            return;
        if (act->f32)
            memcpy(stage, row, act->width * sizeof(float));
        for (size_t i = 0; i < act->width && !act->f32; i++)
            ((uint16_t *)stage)[i] = bf16_from_f32(row[i]);
        if (CUDA_STEP(cuda, cuda->api->copy_to_device(cuda->device, cuda->stream, act_at(act, first_row + r),
                                                      stage, act->width * act_element_bytes(act))))
            (void)CUDA_STEP(cuda, cuda_stage_end(cuda));
    }
}

void cuda_act_read(const struct act *act, size_t first_row, size_t n_rows, float *values)
{
    ASSERT(first_row <= act->max_rows && n_rows <= act->max_rows - first_row);
    struct cuda_backend *cuda = act->cuda;
    cuda_turn_flush(cuda);
    for (size_t r = 0; r < n_rows; r++) {
        uint8_t *stage;
        float *row = values + r * act->width;
        bool is_read = CUDA_STEP(cuda, cuda_stage_begin(cuda, &stage)) &&
                       CUDA_STEP(cuda, cuda->api->copy_to_host(cuda->device, cuda->stream, stage,
                                                               act_at(act, first_row + r),
                                                               act->width * act_element_bytes(act))) &&
                       CUDA_STEP(cuda, cuda_stage_end(cuda)) &&
                       CUDA_STEP(cuda, cuda->api->stream_wait(cuda->device, cuda->stream));
        if (!is_read)
            return;
        if (act->f32)
            memcpy(row, stage, act->width * sizeof(float));
        for (size_t i = 0; i < act->width && !act->f32; i++)
            row[i] = bf16_to_f32(((const uint16_t *)stage)[i]);
    }
}

size_t cuda_vector_bytes(const struct backend *backend, size_t n)
{
    (void)backend;
    return cuda_bytes(n, sizeof(float));
}

err_t cuda_vector_create(struct backend *backend, const float *values, size_t n, struct vector **out)
{
    struct cuda_backend *cuda = cuda_of(backend);
    *out = NULL;
    if (n > ADD_NORM_WIDTH_MAX)
        return err_new(ERR_UNIMPLEMENTED, "a norm over %zu values exceeds the CUDA backend's %d", n,
                       ADD_NORM_WIDTH_MAX);
    void *memory;
    TRY(cuda_take(cuda, n, sizeof(float), "a vector", &memory));
    TRY(cuda_upload(cuda, memory, values, n * sizeof(float)));
    struct vector *vector = mem_alloc(sizeof *vector);
    if (vector == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a vector of %zu", n);
    *vector = (struct vector){n, memory};
    *out = vector;
    return err_ok();
}

void cuda_vector_destroy(struct vector *vector)
{
    mem_free(vector);
}

/* ---- Ops ---- */

void cuda_embed(struct backend *backend, const struct step *step, const struct sampler *sampler,
                const struct weight *table, uint32_t first_token, float scale, struct act *out)
{
    ASSERT(out->width == table->matrix.n_in && step->n_rows <= out->max_rows && out->f32);
    struct cuda_backend *cuda = cuda_of(backend);
    struct embed_args args = {
        .step = cuda->scratch.step,
        .table = table->matrix,
        .first_token = first_token,
        .one_rank = cuda->n_ranks <= 1,
        .scale = scale,
        .out = out->data,
        .out_stride = out->stride,
    };
    if (sampler != NULL)
        args.slots = sampler->slots;
    CUDA_LAUNCH(cuda, embed, cuda->rows_max, 1, EMBED_THREADS, args);
}

void cuda_add_norm(struct backend *backend, const struct step *step, enum step_rows rows,
                   struct act *residual, const struct act *add, const struct vector *add_weight,
                   const struct vector *weight, float eps, struct act *out)
{
    ASSERT(residual->width == weight->n && out->width == weight->n &&
           (add == NULL || add->width == weight->n));
    struct cuda_backend *cuda = cuda_of(backend);
    const struct cuda_rows covered = cuda_step_rows(cuda, step, rows);
    ASSERT(covered.max <= residual->max_rows && covered.max <= out->max_rows);
    ASSERT(add == NULL || (covered.max <= add->max_rows && add->f32 == out->f32));
    ASSERT(add_weight == NULL || (add != NULL && add_weight->n == weight->n));
    ASSERT(residual->f32);
    struct add_norm_args args = {
        .rows = covered,
        .residual = residual->data,
        .add = add == NULL ? NULL : add->data,
        .add_weight = add_weight == NULL ? NULL : add_weight->values,
        .weight = weight->values,
        .out = out->data,
        .residual_stride = residual->stride,
        .add_stride = add == NULL ? 0 : add->stride,
        .out_stride = out->stride,
        .n = (uint32_t)weight->n,
        .eps = eps,
    };
    bool quantizes = cuda_linear_wants(cuda, out, covered.max, &args.quantized);
    enum cuda_kernel_id kernel = out->f32 ? CUDA_KERNEL_add_norm_f32 : CUDA_KERNEL_add_norm_bf16;
    if (quantizes)
        kernel = out->wanted - 1 == LINEAR_S8 ? CUDA_KERNEL_add_norm_s8 : CUDA_KERNEL_add_norm_e4m3;
    bool is_busy = covered.max > ADD_NORM_BLOCKS * cuda->properties->n_multiprocessors;
    cuda_launch(cuda, kernel, (const uint32_t[3]){covered.max, 1, 1}, add_norm_threads(args.n, is_busy), 0,
                &args, sizeof args);
    cuda->quantized = quantizes ? out : NULL;
    cuda->quantized_plain_bytes = args.quantized.plain_bytes;
}

void cuda_activation_mul(struct backend *backend, const struct step *step, enum step_rows rows,
                         const struct act *gate_up, enum activation_kind kind, struct act *out)
{
    ASSERT(gate_up->width == 2 * out->width && gate_up->f32 == out->f32);
    struct cuda_backend *cuda = cuda_of(backend);
    const struct cuda_rows covered = cuda_step_rows(cuda, step, rows);
    ASSERT(covered.max <= gate_up->max_rows && covered.max <= out->max_rows);
    struct activation_mul_args args = {
        .rows = covered,
        .gate_up = gate_up->data,
        .out = out->data,
        .gate_up_stride = gate_up->stride,
        .out_stride = out->stride,
        .width = (uint32_t)out->width,
        .kind = kind,
    };
    if (cuda_linear_wants(cuda, out, covered.max, &args.quantized)) {
        /* Where rows do not occupy the device, their pieces do. */
        bool whole = out->width <= ACTIVATION_WHOLE_WIDTH_MAX && out->width % 8 == 0 &&
                     covered.max >= cuda->properties->n_multiprocessors;
        args.arrivals = whole ? NULL : cuda_linear_row_arrivals(cuda);
        size_t pieces = whole ? 1 : div_up(out->width, 8 * ACTIVATION_WHOLE_THREADS);
        cuda_launch(cuda,
                    out->wanted - 1 == LINEAR_S8 ? CUDA_KERNEL_activation_mul_s8
                                                 : CUDA_KERNEL_activation_mul_e4m3,
                    (const uint32_t[3]){covered.max, (uint32_t)pieces, 1}, ACTIVATION_WHOLE_THREADS, 0, &args,
                    sizeof args);
        cuda->quantized = out;
        cuda->quantized_plain_bytes = args.quantized.plain_bytes;
        return;
    }
    size_t pieces = div_up(out->width, ACTIVATION_PIECE);
    size_t most = div_up((size_t)cuda->properties->n_multiprocessors * ACTIVATION_BLOCKS, pieces);
    size_t blocks = covered.max < most ? covered.max : most;
    if (out->f32)
        CUDA_LAUNCH(cuda, activation_mul_f32, blocks, pieces, ACTIVATION_THREADS, args);
    else
        CUDA_LAUNCH(cuda, activation_mul_bf16, blocks, pieces, ACTIVATION_THREADS, args);
}

void cuda_gather_outputs(struct backend *backend, const struct step *step, uint32_t first_output, uint32_t n,
                         const struct act *in, struct act *out)
{
    ASSERT(first_output <= step->n_outputs && n <= step->n_outputs - first_output);
    ASSERT(in != out && in->width == out->width && in->f32 == out->f32 && n <= out->max_rows);
    struct cuda_backend *cuda = cuda_of(backend);
    uint32_t element = (uint32_t)act_element_bytes(in);
    struct gather_outputs_args args = {
        .rows = cuda_output_rows(cuda, first_output, n),
        .in = in->data,
        .out = out->data,
        .in_stride_bytes = in->stride * element,
        .out_stride_bytes = out->stride * element,
        .row_bytes = (uint32_t)in->width * element,
    };
    CUDA_LAUNCH(cuda, gather_outputs, args.rows.max, 1, GATHER_THREADS, args);
}
