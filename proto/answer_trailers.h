/* What an answer is, in a call's trailing metadata: for clients of a wire format whose messages cannot say
 * it. The model's name is in x-bantam-model of every answer (route_headers.h).
 *
 *   bantam-request-id
 *   bantam-fingerprint                          of all that follow
 *   bantam-{weights,tokenizer,template,arithmetic}-fingerprint
 *   bantam-{queue,prefill,decode}-ns            a number a choice, by index, joined by commas; -1 = did not
 *                                               happen
 *   bantam-preemptions                          likewise
 *
 * And who answered, where the service had others do it, for every wire format, whatever the status:
 *
 *   x-bantam-{provider,answered-by,reason,rule,cache,dropped,decision}    as HTTP's headers; none for ""
 *   x-bantam-cost-usd                           "0.0015"; none while it is not known
 *   x-bantam-attempts
 *
 * One thread at a time. */
#pragma once

#include <stdint.h>
#include "api/event.h"
#include "proto/door_codec.h"
#include "proto/grpc_server.h"

enum { ANSWER_TRAILER_CHOICES_MAX = 16 }; /* choices beyond it are not told of: metadata is limited */

/* How choices went, as far as they have ended. */
struct answer_trailers {
    uint32_t n_choices; /* of the first ANSWER_TRAILER_CHOICES_MAX, up to the last one that ended */
    struct timings timings[ANSWER_TRAILER_CHOICES_MAX];
    uint32_t preemptions[ANSWER_TRAILER_CHOICES_MAX];
};

/* Notes the end of a choice; other events are nothing to it. */
void answer_trailers_note(struct answer_trailers *trailers, const struct event *event);
void answer_trailers_add(const struct answer_trailers *trailers, const struct codec_answer *answer,
                         struct rpc_call *call);
void answer_trailers_add_source(const struct answer_source *source, struct rpc_call *call);
