#include "proto/answer_trailers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "api/service.h"
#include "proto/answer_source.h"

enum { NUMBER_BYTES_MAX = 21 }; /* of 64 bits, with a sign or a comma */

void answer_trailers_note(struct answer_trailers *trailers, const struct event *event)
{
    uint32_t index = event->choice_index;
    if (event->kind != EVENT_FINISHED || index >= ANSWER_TRAILER_CHOICES_MAX)
        return;
    for (; trailers->n_choices <= index; trailers->n_choices++)
        trailers->timings[trailers->n_choices] = (struct timings){-1, -1, -1};
    trailers->timings[index] = event->timings;
    trailers->preemptions[index] = event->usage.preemptions;
}

static void add_text(struct rpc_call *call, const char *key, const char *text)
{
    if (text)
        rpc_call_add_trailer(call, key, text, strlen(text));
}

/* A number a choice, the first at `first`, each `stride` bytes after the other. */
static void add_numbers(struct rpc_call *call, const char *key, const void *first, size_t stride,
                        bool is_signed, uint32_t n)
{
    char text[ANSWER_TRAILER_CHOICES_MAX * NUMBER_BYTES_MAX + 1] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < n; i++) {
        const char *at = (const char *)first + i * stride;
        int64_t number = is_signed ? *(const int64_t *)at : *(const uint32_t *)at;
        used += (size_t)snprintf(text + used, sizeof text - used, i > 0 ? ",%" PRId64 : "%" PRId64, number);
    }
    rpc_call_add_trailer(call, key, text, used);
}

void answer_trailers_add(const struct answer_trailers *trailers, const struct codec_answer *answer,
                         struct rpc_call *call)
{
    const struct model_info *model = answer->model;
    const struct timings *timings = trailers->timings;
    uint32_t n = trailers->n_choices;
    add_text(call, "bantam-request-id", answer->request_id);
    add_text(call, "bantam-fingerprint", model->fingerprint);
    add_text(call, "bantam-weights-fingerprint", model->weights_fingerprint);
    add_text(call, "bantam-tokenizer-fingerprint", model->tokenizer_fingerprint);
    add_text(call, "bantam-template-fingerprint", model->template_fingerprint);
    add_text(call, "bantam-arithmetic-fingerprint", model->arithmetic_fingerprint);
    add_numbers(call, "bantam-queue-ns", &timings->queue_ns, sizeof *timings, true, n);
    add_numbers(call, "bantam-prefill-ns", &timings->prefill_ns, sizeof *timings, true, n);
    add_numbers(call, "bantam-decode-ns", &timings->decode_ns, sizeof *timings, true, n);
    add_numbers(call, "bantam-preemptions", trailers->preemptions, sizeof *trailers->preemptions, false, n);
}

void answer_trailers_add_source(const struct answer_source *source, struct rpc_call *call)
{
    struct answer_source_rows said;
    answer_source_list(source, &said);
    for (size_t i = 0; i < ANSWER_SOURCE_ROWS; i++)
        if (said.rows[i].text[0])
            add_text(call, said.rows[i].name, said.rows[i].text);
}
