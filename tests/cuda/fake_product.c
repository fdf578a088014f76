#include "tests/cuda/fake_product.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/float16.h"
#include "base/float8.h"
#include "kernels/cuda/linear_layout.h"
#include "tests/cuda/fake_memory.h"
#include "tests/cuda/wgmma_sum.h"

enum { OPERAND_ALIGN = 16, WORKSPACE_ALIGN = 256, POISONED_BYTES = 64 << 10 };

static size_t element_bytes(enum product_kind kind)
{
    return kind == PRODUCT_BF16 ? sizeof(uint16_t) : 1;
}

bool fake_product_has(const struct product_shape *s)
{
    size_t element = element_bytes(s->kind);
    return s->weight_stride * element % OPERAND_ALIGN == 0 && s->x_stride * element % OPERAND_ALIGN == 0 &&
           s->out_stride * sizeof(uint16_t) % OPERAND_ALIGN == 0 &&
           (s->kind == PRODUCT_BF16 || (s->n_out % 16 == 0 && s->n_in % 16 == 0));
}

static void check_memory(const void *at, size_t bytes, size_t align, const char *what)
{
    fake_memory_check(FAKE_MEMORY_DEVICE, at, bytes, what);
    if ((uintptr_t)at % align == 0)
        return;
    (void)fprintf(stderr, "fake device: %s, at %p, is not aligned to %zu\n", what, at, align);
    abort();
}

void fake_product_check(const struct product_shape *s, const struct product_call *call)
{
    size_t element = element_bytes(s->kind), rows = call->rows;
    ASSERT(rows >= s->rows_min && rows <= s->rows_max);
    check_memory(call->weight, (size_t)s->n_out * s->weight_stride * element, OPERAND_ALIGN,
                 "a product's weight");
    check_memory(call->x, rows * s->x_stride * element, OPERAND_ALIGN, "a product's activations");
    check_memory(call->out, rows * s->out_stride * sizeof(uint16_t), OPERAND_ALIGN, "a product's result");
    check_memory(call->workspace, s->workspace_bytes, WORKSPACE_ALIGN, "a product's workspace");
    if (s->kind == PRODUCT_BF16)
        return;
    check_memory(call->weight_scale, s->n_out * sizeof(float), OPERAND_ALIGN, "the scales of its outputs");
    check_memory(call->x_scale, rows * sizeof(float), OPERAND_ALIGN, "the scales of its rows");
}

static bool is_mode(const char *mode)
{
    const char *how = getenv("BANTAM_FAKE_PRODUCT");
    return how != NULL && strcmp(how, mode) == 0;
}

/* How sums are made. */
struct order {
    uint32_t chunk; /* inputs of which sums are made on their own, and added in ascending order */
    uint32_t chain; /* of a chunk, likewise: one chain of additions */
    bool by_wgmma;  /* as our kernel of e4m3 adds */
    bool coarse;    /* with 15 bits, as a tensor core may keep them while it adds: rows then differ soon */
};

static struct order order_of(const struct product_shape *s, uint32_t rows)
{
    enum linear_layout layout = s->kind == PRODUCT_BF16 ? LINEAR_BF16 : LINEAR_E4M3_WGMMA;
    if (is_mode("chain") || (is_mode("rows") && rows >= FAKE_PRODUCT_SPLIT_ROWS))
        return (struct order){.chunk = s->n_in, .chain = s->n_in, .coarse = true};
    uint32_t chunk = linear_chunk_inputs(layout, s->n_out, s->n_in);
    bool by_wgmma = s->kind == PRODUCT_E4M3;
    return (struct order){
        .chunk = chunk, .chain = by_wgmma ? linear_chain_inputs(chunk) : chunk, .by_wgmma = by_wgmma};
}

static void widen(const struct product_shape *s, const void *rows, size_t row, uint32_t stride, float *out)
{
    for (uint32_t k = 0; k < s->n_in; k++)
        out[k] = s->kind == PRODUCT_BF16 ? bf16_to_f32(((const uint16_t *)rows)[row * stride + k])
                                         : f8_e4m3_to_f32(((const uint8_t *)rows)[row * stride + k]);
}

/* Rows side by side: each has its own chain of additions, and the next one of a chain waits for the last. */
enum { LANES = 16 };
typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef uint32_t lane_bits __attribute__((vector_size(LANES * sizeof(uint32_t))));

/* n inputs of e4m3 by wgmma. */
static float chain_e4m3(const float *a, const float *b, uint32_t n)
{
    double sum = 0;
    for (uint32_t k = 0; k < n; k += WGMMA_E4M3_INPUTS) {
        float a_step[WGMMA_E4M3_INPUTS] = {0}, b_step[WGMMA_E4M3_INPUTS] = {0};
        size_t bytes = (n - k < WGMMA_E4M3_INPUTS ? n - k : WGMMA_E4M3_INPUTS) * sizeof *a;
        memcpy(a_step, a + k, bytes);
        memcpy(b_step, b + k, bytes);
        sum = wgmma_e4m3_add(sum, a_step, b_step);
    }
    return (float)sum;
}

/* One row's sum. */
static float dot_e4m3(const float *a, const float *b, uint32_t n, const struct order *order)
{
    float total = 0;
    for (uint32_t begin = 0; begin < n; begin += order->chunk) {
        uint32_t end = n - begin < order->chunk ? n : begin + order->chunk;
        float sum = 0;
        for (uint32_t k = begin; k < end; k += order->chain)
            sum += chain_e4m3(a + k, b + k, end - k < order->chain ? end - k : order->chain);
        total += sum;
    }
    return total;
}

/* The same of LANES rows; x: [n], input by input. */
static void dot_lanes(const float *weight, const lanes *x, uint32_t n, const struct order *order, float *out)
{
    lanes total = {0};
    for (uint32_t begin = 0; begin < n; begin += order->chunk) {
        uint32_t end = n - begin < order->chunk ? n : begin + order->chunk;
        lanes sum = {0};
        for (uint32_t k = begin; k < end; k += order->chain) {
            uint32_t chain_end = end - k < order->chain ? end : k + order->chain;
            lanes chain = {0};
            for (uint32_t i = k; i < chain_end; i++) {
                chain += weight[i] * x[i];
                if (order->coarse)
                    chain = (lanes)(((lane_bits)chain + 0x100) & ~0x1ffu); /* 15 bits of the fraction */
            }
            sum += chain;
        }
        total += sum;
    }
    memcpy(out, &total, sizeof total);
}

/* Of one output and all rows: by_row [rows][n_in], by_lane [rows / LANES, rounded up][n_in]. */
static void dot_rows(const float *weight, const float *by_row, const lanes *by_lane, uint32_t rows,
                     uint32_t n_in, const struct order *order, float *sums)
{
    for (uint32_t r = 0; order->by_wgmma && r < rows; r++)
        sums[r] = dot_e4m3(weight, by_row + (size_t)r * n_in, n_in, order);
    for (uint32_t r = 0; !order->by_wgmma && r < rows; r += LANES)
        dot_lanes(weight, by_lane + (size_t)r / LANES * n_in, n_in, order, sums + r);
}

void fake_product_run(const struct product_shape *s, const struct product_call *call)
{
    struct order order = order_of(s, call->rows);
    bool wrong = is_mode("wrong");
    size_t n_in = s->n_in, rows_padded = ((size_t)call->rows + LANES - 1) / LANES * LANES;
    float *x = mem_alloc_array(call->rows * n_in, sizeof *x);
    float *weight = mem_alloc_array(n_in, sizeof *weight), *sums = mem_alloc_array(rows_padded, sizeof *sums);
    lanes *by_lane = aligned_alloc(sizeof *by_lane, rows_padded * n_in * sizeof(float));
    ASSERT(x != NULL && weight != NULL && sums != NULL && by_lane != NULL);
    /* Whoever keeps something in the workspace loses it. */
    memset(call->workspace, 0xa5, s->workspace_bytes < POISONED_BYTES ? s->workspace_bytes : POISONED_BYTES);
    memset(by_lane, 0, rows_padded * n_in * sizeof(float));
    for (uint32_t r = 0; r < call->rows; r++) {
        widen(s, call->x, r, s->x_stride, x + r * n_in);
        for (size_t k = 0; k < n_in; k++)
            by_lane[r / LANES * n_in + k][r % LANES] = x[r * n_in + k];
    }
    for (uint32_t o = 0; o < s->n_out; o++) {
        widen(s, call->weight, o, s->weight_stride, weight);
        dot_rows(weight, x, by_lane, call->rows, s->n_in, &order, sums);
        for (uint32_t r = 0; r < call->rows; r++) {
            if (s->kind == PRODUCT_E4M3)
                sums[r] *= call->x_scale[wrong ? 0 : r] * call->weight_scale[o];
            else if (wrong)
                sums[r] *= 1.25f;
            ((uint16_t *)call->out)[(size_t)r * s->out_stride + o] = bf16_from_f32(sums[r]);
        }
    }
    mem_free(x);
    mem_free(weight);
    mem_free(sums);
    free(by_lane);
}
