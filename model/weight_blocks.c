#include "model/weight_blocks.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/gguf.h"
#include "model/block_formats.h"

bool blocks_format(const struct checkpoint_tensor *tensor, enum weight_format *format, uint32_t *group)
{
    static const struct {
        enum block_type type;
        enum weight_format format;
    } holds[] = {
        {BLOCK_Q4_0, WEIGHT_INT4}, {BLOCK_Q8_0, WEIGHT_INT8}, {BLOCK_Q5_0, WEIGHT_INT5},
        {BLOCK_Q4_1, WEIGHT_K4},   {BLOCK_Q4_K, WEIGHT_K4},   {BLOCK_Q5_1, WEIGHT_K5},
        {BLOCK_Q5_K, WEIGHT_K5},   {BLOCK_Q6_K, WEIGHT_K6},
    };
    if (!tensor || tensor->info->dtype < TENSOR_GGUF)
        return false;
    uint32_t type = (uint32_t)(tensor->info->dtype - TENSOR_GGUF);
    for (size_t i = 0; i < sizeof holds / sizeof holds[0]; i++) {
        if ((uint32_t)holds[i].type == type) {
            *format = holds[i].format;
            *group = gguf_tensor_format(type)->block_values;
            return true;
        }
    }
    return false;
}

bool blocks_are_whole(const struct checkpoint_tensor *tensor)
{
    return tensor && tensor->info->dtype == TENSOR_GGUF + BLOCK_Q4_0;
}

/* Blocks that a range of a row lies in. */
static size_t range_blocks(const struct blocks_range *range, size_t block_values)
{
    return (range->first + range->n - 1) / block_values - range->first / block_values + 1;
}

/* Values [from, to) of a block, which are inputs [at, at + to - from) of the row. */
static void put_codes(const struct block_codes *block, size_t from, size_t to, size_t at, uint32_t group,
                      enum weight_format format, const struct weight_codes *out)
{
    memcpy(out->codes + at, block->codes + from, to - from);
    for (size_t i = 0; i < to - from; i += group) {
        out->scales[(at + i) / group] = block->scale;
        if (format == WEIGHT_K4 || format == WEIGHT_K5)
            out->minimums[(at + i) / group] = block->minimum;
    }
    if (format == WEIGHT_K6) {
        memcpy(out->block_scales + at / WEIGHT_HALF_GROUP, block->scales + from / WEIGHT_HALF_GROUP,
               (to - from) / WEIGHT_HALF_GROUP);
    } else if (format == WEIGHT_K4 || format == WEIGHT_K5) {
        size_t n = (to - from) / WEIGHT_GROUP;
        memcpy(out->block_scales + at / WEIGHT_GROUP, block->scales + from / WEIGHT_GROUP, n);
        memcpy(out->block_minimums + at / WEIGHT_GROUP, block->minimums + from / WEIGHT_GROUP, n);
    }
}

/* Groups that are not the blocks: parts of those, as a rank has them at its ends. */
static void read_parts(uint32_t type, const uint8_t *bytes, size_t first, size_t n, uint32_t group,
                       enum weight_format format, const struct weight_codes *out)
{
    const struct gguf_tensor_format *blocks = gguf_tensor_format(type);
    size_t values = blocks->block_values, first_block = first / values;
    for (size_t done = 0; done < n;) {
        size_t block = (first + done) / values, from = (first + done) % values;
        size_t to = values < from + n - done ? values : from + n - done;
        int8_t codes[BLOCK_VALUES_MAX];
        struct block_codes split = {.codes = codes};
        block_split(type, bytes + (block - first_block) * blocks->block_bytes, &split);
        put_codes(&split, from, to, done, group, format, out);
        done += to - from;
    }
}

static bool all_finite(const float *values, size_t n)
{
    uint32_t wrong = 0;
    for (size_t i = 0; i < n; i++)
        wrong |= (uint32_t) !(fabsf(values[i]) <= FLT_MAX);
    return wrong == 0;
}

static bool is_finite_f16(const uint8_t *bytes)
{
    return (bytes[1] & 0x7c) != 0x7c;
}

static err_t bad_scale(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                       size_t row)
{
    return err_new(ERR_DATA_LOSS, "%s: tensor \"%s\": a scale of row %zu is NaN or infinity",
                   checkpoint_file(checkpoint, tensor), tensor->info->name, row);
}

/* Blocks as they stand in the file; rows side by side as in read_rows. */
static err_t read_whole_blocks(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                               const struct blocks_range *range, size_t row, size_t n_rows, uint8_t *blocks)
{
    size_t n = range->n / WEIGHT_GROUP;
    uint64_t at = (uint64_t)row * (range->n_columns / WEIGHT_GROUP) + range->first / WEIGHT_GROUP;
    TRY(checkpoint_read_bytes(checkpoint, tensor, at * WEIGHT_BLOCK_BYTES, n_rows * n * WEIGHT_BLOCK_BYTES,
                              blocks));
    for (size_t i = 0; i < n_rows; i++) {
        bool finite = true;
        for (size_t b = 0; b < n; b++, blocks += WEIGHT_BLOCK_BYTES)
            finite &= is_finite_f16(blocks);
        if (!finite)
            return bad_scale(checkpoint, tensor, row + i);
    }
    return err_ok();
}

/* Rows [row, row + n_rows), whose bytes stand side by side: all of a row, or there is only one. */
static err_t read_rows(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                       const struct blocks_range *range, size_t row, size_t n_rows, uint8_t *bytes,
                       const struct weight_codes *out)
{
    enum weight_format format;
    uint32_t block_group, type = (uint32_t)(tensor->info->dtype - TENSOR_GGUF);
    const struct gguf_tensor_format *blocks = gguf_tensor_format(type);
    size_t values = blocks->block_values, row_bytes = range_blocks(range, values) * blocks->block_bytes;
    uint64_t at = (uint64_t)row * (range->n_columns / values) + range->first / values;
    bool has_blocks = blocks_format(tensor, &format, &block_group);
    ASSERT(has_blocks);
    TRY(checkpoint_read_bytes(checkpoint, tensor, at * blocks->block_bytes, n_rows * row_bytes, bytes));
    for (size_t i = 0; i < n_rows; i++, bytes += row_bytes) {
        if (range->group == block_group)
            block_split_row(type, bytes, range->n / values, &out[i]);
        else
            read_parts(type, bytes, range->first, range->n, range->group, format, &out[i]);
        size_t n_groups = range->n / range->group;
        bool has_minimums = format == WEIGHT_K4 || format == WEIGHT_K5;
        if (!all_finite(out[i].scales, n_groups) || (has_minimums && !all_finite(out[i].minimums, n_groups)))
            return bad_scale(checkpoint, tensor, row + i);
    }
    return err_ok();
}

err_t blocks_read(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                  const struct blocks_range *range, size_t row, size_t n_rows, const struct weight_codes *out)
{
    ASSERT(range->first % WEIGHT_GROUP == 0 && range->n % WEIGHT_GROUP == 0 && range->n > 0);
    ASSERT(range->n_columns >= range->first + range->n && range->n % range->group == 0);
    const struct gguf_tensor_format *blocks =
        gguf_tensor_format((uint32_t)(tensor->info->dtype - TENSOR_GGUF));
    size_t at_once = range->n == range->n_columns ? n_rows : 1;
    if (blocks_are_whole(tensor)) {
        for (size_t i = 0; i < n_rows; i += at_once)
            TRY(read_whole_blocks(checkpoint, tensor, range, row + i, at_once, out[i].blocks));
        return err_ok();
    }
    uint8_t *bytes =
        mem_alloc_array(at_once * range_blocks(range, blocks->block_values), blocks->block_bytes);
    if (!bytes)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for rows of %s", tensor->info->name);
    err_t e = err_ok();
    for (size_t i = 0; e.code == ERR_OK && i < n_rows; i += at_once)
        e = read_rows(checkpoint, tensor, range, row + i, at_once, bytes, out + i);
    mem_free(bytes);
    return e;
}
