#include <math.h>
#include "model/model_config.h"

static double llama3_scaled(const struct rope_config *rope, double inv_freq)
{
    double original = rope->original_max_position_embeddings;
    double wavelength = 2.0 * M_PI / inv_freq;
    if (wavelength < original / rope->high_freq_factor)
        return inv_freq;
    if (wavelength > original / rope->low_freq_factor)
        return inv_freq / rope->factor;
    double keep =
        (original / wavelength - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    return (1.0 - keep) * inv_freq / rope->factor + keep * inv_freq;
}

void rope_frequencies(const struct rope_config *rope, uint32_t head_dim, float *inv_freq)
{
    for (uint32_t i = 0; i < head_dim / 2; i++) {
        double plain = 1.0 / pow(rope->theta, 2.0 * (double)i / (double)head_dim);
        switch (rope->scaling) {
        case ROPE_SCALING_NONE:
            break;
        case ROPE_SCALING_LINEAR:
            plain /= rope->factor;
            break;
        case ROPE_SCALING_LLAMA3:
            plain = llama3_scaled(rope, plain);
            break;
        case ROPE_SCALING_DIVISORS:
            plain /= (double)rope->divisors[i];
            break;
        }
        inv_freq[i] = (float)plain;
    }
}
