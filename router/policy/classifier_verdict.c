#include "router/policy/classifier_verdict.h"

#include <string.h>

static bool is_within(const char *text, size_t at) /* a character */
{
    return ((unsigned char)text[at] & 0xc0) == 0x80;
}

static bool append_text(struct buffer *out, const char *text, size_t bytes)
{
    if (bytes <= CLASSIFIER_TEXT_BYTES_MAX)
        return buffer_append(out, text, bytes);
    size_t first = CLASSIFIER_TEXT_BYTES_MAX / 2, last = bytes - CLASSIFIER_TEXT_BYTES_MAX / 2;
    while (first > 0 && is_within(text, first))
        first--;
    while (last < bytes && is_within(text, last))
        last++;
    return buffer_append(out, text, first) && buffer_append_text(out, "\n...\n") &&
           buffer_append(out, text + last, bytes - last);
}

bool classifier_write_prompt(const struct classifier_config *config, const char *text, size_t text_bytes,
                             struct buffer *out)
{
    return buffer_append_text(out, config->prompt) && buffer_append_text(out, "\n\n") &&
           append_text(out, text, text_bytes);
}

bool classifier_share(const double *probabilities, size_t n, double told, double least, double *scores)
{
    size_t n_told = 0;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        n_told += probabilities[i] >= 0;
    if (n_told == 0)
        return false;
    double rest = told < 1 ? (1 - told) / (double)(n - n_told + 1) : 0, unknown = rest < least ? rest : least;
    for (size_t i = 0; i < n; i++) {
        scores[i] = probabilities[i] >= 0 ? probabilities[i] : unknown;
        sum += scores[i];
    }
    for (size_t i = 0; i < n; i++)
        scores[i] = sum > 0 ? scores[i] / sum : 1 / (double)n;
    return true;
}

void classifier_judge(const struct classifier_config *config, struct classifier_verdict *verdict)
{
    double sum = 0, weight = 0;
    verdict->label = 0;
    for (size_t i = 0; i < config->n_labels; i++) {
        if (verdict->scores[i] > verdict->scores[verdict->label])
            verdict->label = i;
        if (config->labels[i].difficulty < 0)
            continue;
        sum += verdict->scores[i] * config->labels[i].difficulty;
        weight += verdict->scores[i];
    }
    verdict->difficulty = weight > 1e-9 ? sum / weight : -1;
    const char *intent = config->labels[verdict->label].intent;
    verdict->intent = intent ? intent : "";
}
