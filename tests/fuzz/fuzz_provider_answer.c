/* Answers of providers as bytes. The first byte says which format, stream or body, and in which pieces they
 * come: the answer must not depend on those. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/policy/remote_classifier.h"
#include "tests/router/answer_script.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The same bytes as probabilities of a classifier's answer. */
static void check_verdict(const char *bytes, size_t size)
{
    static const struct classifier_config CONFIG = {
        .labels = {{"easy", "chat", 0.1, -1}, {"hard", NULL, 0.9, -1}, {"harder", "x", -1, -1}},
        .n_labels = 3};
    struct classifier_verdict verdict = {.error = err_ok()};
    json_t *root = json_loadb(bytes, size, 0, NULL);
    if (root && remote_classifier_score(&CONFIG, root, verdict.scores)) {
        classifier_judge(&CONFIG, &verdict);
        ASSERT(verdict.label < 3 && verdict.difficulty <= 0.9 + 1e-9);
        double sum = verdict.scores[0] + verdict.scores[1] + verdict.scores[2];
        ASSERT(sum > 1 - 1e-9 && sum < 1 + 1e-9);
    }
    json_decref(root);
    ASSERT(remote_classifier_label(&CONFIG, bytes, size) <= 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    enum provider_kind kind = data[0] % 2 ? PROVIDER_ANTHROPIC : PROVIDER_COMPATIBLE;
    bool is_stream = data[0] / 2 % 2 == 0;
    size_t n = size - 1, piece = (size_t)data[0] / 4 % 17 + 1;
    char *bytes = mem_strndup((const char *)data + 1, n);
    ASSERT(bytes);
    char *whole = answer_script(kind, bytes, n, SIZE_MAX, is_stream),
         *cut = answer_script(kind, bytes, n, piece, is_stream);
    ASSERT(strcmp(whole, cut) == 0);
    check_verdict(bytes, n);
    mem_free(whole);
    mem_free(cut);
    mem_free(bytes);
    return 0;
}
