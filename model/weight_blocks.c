#include "model/weight_blocks.h"

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

err_t blocks_read(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor, size_t row,
                  size_t n_columns, size_t first, size_t n, uint32_t group, const struct weight_codes *out)
{
    enum weight_format format;
    uint32_t whole_group;
    bool has_blocks = blocks_format(tensor, &format, &whole_group);
    uint32_t type = (uint32_t)(tensor->info->dtype - TENSOR_GGUF);
    ASSERT(has_blocks && first % WEIGHT_GROUP == 0 && n % WEIGHT_GROUP == 0 && n_columns >= first + n);
    const struct gguf_tensor_format *blocks = gguf_tensor_format(type);
    size_t values = blocks->block_values, first_block = first / values;
    size_t n_bytes = ((first + n - 1) / values - first_block + 1) * blocks->block_bytes;
    uint64_t at = (uint64_t)row * (n_columns / values) + first_block;
    uint8_t *bytes = mem_alloc(n_bytes);
    if (!bytes)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for a row of %s", tensor->info->name);
    err_t e = checkpoint_read_bytes(checkpoint, tensor, at * blocks->block_bytes, n_bytes, bytes);
    for (size_t done = 0; e.code == ERR_OK && done < n;) {
        size_t block = (first + done) / values, from = (first + done) % values;
        size_t to = values < from + n - done ? values : from + n - done;
        struct block_codes codes;
        block_split(type, bytes + (block - first_block) * blocks->block_bytes, &codes);
        if (!isfinite(codes.scale) || !isfinite(codes.minimum))
            e = err_new(ERR_DATA_LOSS, "%s: tensor \"%s\": a scale of row %zu is NaN or infinity",
                        checkpoint_file(checkpoint, tensor), tensor->info->name, row);
        put_codes(&codes, from, to, done, group, format, out);
        done += to - from;
    }
    mem_free(bytes);
    return e;
}
