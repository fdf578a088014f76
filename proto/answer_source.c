#include "proto/answer_source.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"

#define NANODOLLARS INT64_C(1000000000)

static size_t kept_bytes(const char *text)
{
    size_t n = strnlen(text, ANSWER_SOURCE_TEXT_BYTES_MAX + 1);
    if (n <= ANSWER_SOURCE_TEXT_BYTES_MAX)
        return n;
    n = ANSWER_SOURCE_TEXT_BYTES_MAX;
    while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--;
    return n;
}

struct answer_source *answer_source_copy(const struct answer_source *source)
{
    struct answer_source copy = *source;
    const char **texts[] = {&copy.provider, &copy.model,       &copy.reason,  &copy.rule,
                            &copy.cache,    &copy.fingerprint, &copy.dropped, &copy.decision_id};
    enum { N_TEXTS = sizeof texts / sizeof texts[0] };
    size_t bytes = sizeof copy;
    for (size_t i = 0; i < N_TEXTS; i++)
        bytes += kept_bytes(*texts[i]) + 1;
    struct answer_source *kept = mem_alloc(bytes); /* zeroed: the texts end */
    if (!kept)
        return NULL;
    char *at = (char *)(kept + 1);
    for (size_t i = 0; i < N_TEXTS; i++) {
        size_t n = kept_bytes(*texts[i]);
        memcpy(at, *texts[i], n);
        *texts[i] = at;
        at += n + 1;
    }
    *kept = copy;
    return kept;
}

void answer_cost_format(int64_t cost_nanodollars, char out[ANSWER_COST_BYTES])
{
    out[0] = '\0';
    if (cost_nanodollars < 0)
        return;
    int n = snprintf(out, ANSWER_COST_BYTES, "%lld.%09lld", (long long)(cost_nanodollars / NANODOLLARS),
                     (long long)(cost_nanodollars % NANODOLLARS));
    while (out[n - 1] == '0' && out[n - 2] != '.')
        out[--n] = '\0';
}

void answer_source_list(const struct answer_source *source, struct answer_source_rows *out)
{
    answer_cost_format(source->cost_nanodollars, out->cost);
    (void)snprintf(out->attempts, sizeof out->attempts, "%" PRIu32, source->attempts);
    const struct answer_source_row rows[] = {
        {"x-bantam-provider", source->provider},    {"x-bantam-answered-by", source->model},
        {"x-bantam-reason", source->reason},        {"x-bantam-rule", source->rule},
        {"x-bantam-cache", source->cache},          {"x-bantam-dropped", source->dropped},
        {"x-bantam-decision", source->decision_id}, {"x-bantam-fingerprint", source->fingerprint},
        {"x-bantam-cost-usd", out->cost},           {"x-bantam-attempts", out->attempts}};
    _Static_assert(sizeof rows == sizeof out->rows, "one row each");
    memcpy(out->rows, rows, sizeof rows);
}
