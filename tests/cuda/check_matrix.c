#include "tests/cuda/check_matrix.h"

#include <math.h>
#include "base/float16.h"

static uint32_t draw_inputs(struct cuda_case *c, struct check_matrix *m, uint32_t max_in)
{
    uint32_t step = 1u << rng_below(&c->rng, 6);
    m->group = 1;
    if (m->format == WEIGHT_INT4 || m->format == WEIGHT_UINT4 || m->format == WEIGHT_INT8) {
        m->group = 32u << rng_below(&c->rng, 3);
        step = m->group;
    }
    uint32_t n_in = step * rng_between(&c->rng, 1, max_in / step > 0 ? max_in / step : 1);
    bool is_int4 = m->format == WEIGHT_INT4 || m->format == WEIGHT_UINT4;
    if (m->format == WEIGHT_FP8 || (m->format == WEIGHT_INT8 && rng_below(&c->rng, 2)) ||
        (is_int4 && rng_below(&c->rng, 4) == 0)) /* as "group_size": -1 has it */
        m->group = n_in;
    return n_in;
}

/* Code k of row o, and its value. */
static float draw_code(struct cuda_case *c, struct check_matrix *m, uint32_t o, uint32_t k)
{
    uint8_t *row = m->codes + (size_t)o * m->row_bytes;
    float value = rng_normal(&c->rng);
    size_t group = (size_t)o * (m->n_in / m->group) + k / m->group;
    switch (m->format) {
    case WEIGHT_F32:
        return ((float *)row)[k] = value;
    case WEIGHT_BF16:
        return bf16_to_f32(((uint16_t *)row)[k] = bf16_from_f32(value));
    case WEIGHT_F16:
        return f16_to_f32(((uint16_t *)row)[k] = f16_from_f32(value));
    case WEIGHT_INT8: {
        int8_t code = ((int8_t *)row)[k] = (int8_t)((int)rng_below(&c->rng, 256) - 128);
        return (float)code *
               (m->group == m->n_in ? ((float *)m->scales)[o] : f16_to_f32(((uint16_t *)m->scales)[group]));
    }
    case WEIGHT_INT4: {
        uint32_t code = rng_below(&c->rng, 16);
        row[k / 2] |= (uint8_t)(code << k % 2 * 4);
        return (float)((int)code - 8) * f16_to_f32(((uint16_t *)m->scales)[group]);
    }
    case WEIGHT_UINT4: {
        uint32_t code = rng_below(&c->rng, 16);
        const uint16_t *pair = (const uint16_t *)m->scales + 2 * group;
        row[k / 2] |= (uint8_t)(code << k % 2 * 4);
        return (float)((int)code - pair[1]) * f16_to_f32(pair[0]);
    }
    case WEIGHT_FP8:
        row[k] = e4m3_from_f32(value * 100);
        return e4m3_to_f32(row[k]) * ((float *)m->scales)[o];
    default:
        break;
    }
    ASSERT(!"unknown weight format");
    return 0;
}

void matrix_make(struct cuda_case *c, struct check_matrix *m, enum weight_format format, uint32_t n_out,
                 uint32_t max_in)
{
    *m = (struct check_matrix){.format = format, .n_out = n_out};
    m->n_in = draw_inputs(c, m, max_in);
    m->row_bytes = cuda_matrix_row_bytes(format, m->n_in);
    m->codes = check_alloc(c, (size_t)n_out * m->row_bytes);
    m->values = check_alloc(c, (size_t)n_out * m->n_in * sizeof(float));
    if (format >= WEIGHT_INT8) {
        bool int4 = format == WEIGHT_INT4 || format == WEIGHT_UINT4, channel = m->group == m->n_in && !int4;
        size_t n_scales = (size_t)n_out * (m->n_in / m->group);
        m->scales_bytes = n_scales * (channel || format == WEIGHT_UINT4 ? 4 : 2);
        m->scales = check_alloc(c, m->scales_bytes);
        for (size_t i = 0; i < n_scales; i++) {
            float scale = ldexpf(1.0f + rng_uniform(&c->rng), -7);
            if (channel) {
                ((float *)m->scales)[i] = scale;
                continue;
            }
            bool has_zeros = format == WEIGHT_UINT4;
            ((uint16_t *)m->scales)[has_zeros ? 2 * i : i] = f16_from_f32(scale);
            if (has_zeros)
                ((uint16_t *)m->scales)[2 * i + 1] = (uint16_t)rng_below(&c->rng, 16);
        }
    }
    for (uint32_t o = 0; o < n_out; o++) {
        for (uint32_t k = 0; k < m->n_in; k++)
            m->values[(size_t)o * m->n_in + k] = draw_code(c, m, o, k);
    }
    if (rng_below(&c->rng, 2)) {
        m->bias = check_alloc(c, n_out * sizeof(float));
        fill_normal(&c->rng, m->bias, n_out);
    }
}

struct cuda_matrix matrix_upload(const struct check_matrix *m)
{
    return (struct cuda_matrix){
        .codes = device_upload(m->codes, (size_t)m->n_out * m->row_bytes),
        .scales = m->scales == NULL ? NULL : device_upload(m->scales, m->scales_bytes),
        .bias = m->bias == NULL ? NULL : device_upload(m->bias, m->n_out * sizeof(float)),
        .n_out = m->n_out,
        .n_in = m->n_in,
        .group = m->group,
        .format = m->format,
        .row_bytes = m->row_bytes,
    };
}
