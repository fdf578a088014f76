#include "model/quant_format.h"

#include "base/float8.h"

static float code_value(const struct quant_format *format, const struct quant_row *row, size_t k,
                        size_t group)
{
    if (format->code == QUANT_CODE_E4M3)
        return f8_e4m3_to_f32((uint8_t)row->codes[k]);
    int code = row->codes[k];
    return (float)(format->offset == QUANT_ZERO_POINT ? code - row->zeros[group] : code);
}

void quant_row_values(const struct quant_format *format, const struct quant_row *row, size_t first, size_t n,
                      float *out)
{
    size_t group = 0, left = format->group == 0 ? n : format->group - first % format->group;
    for (size_t k = 0; k < n; k++, left--) {
        if (left == 0) {
            group++;
            left = format->group;
        }
        size_t g = row->group_of ? row->group_of[first + k] : group;
        float value = code_value(format, row, k, g) * row->scales[g];
        out[k] = format->offset == QUANT_MINIMUM ? value + row->minimums[g] : value;
    }
}
