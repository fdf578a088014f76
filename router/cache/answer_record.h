/* An answer as bytes, to be kept and given again: its pieces in order, then what it used. A version of ours
 * stands at the front; whoever reads bytes of another version, or damaged ones, is told so. One thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "router/providers/provider_answer.h"

enum { ANSWER_RECORD_VERSION = 1 };

/* What an answer says of itself besides its pieces. Strings live as long as the bytes. */
struct answer_facts {
    const char *model, *id, *fingerprint; /* "" = not told */
    struct answer_usage usage;
};

/* Written piece by piece. Zero-initialise with a limit: {.bytes = {.limit_bytes = n}}. */
struct answer_record {
    struct buffer bytes; /* whole after answer_record_end */
    bool is_broken;      /* something did not fit: it is not kept */
};

void answer_record_piece(struct answer_record *record, const struct answer_piece *piece);
/* The answer is complete. False when the record is broken: there is nothing to keep. */
bool answer_record_end(struct answer_record *record, const struct answer_facts *facts);
void answer_record_free(struct answer_record *record);

/* Gives every piece to the sink, then the facts. DATA_LOSS when the bytes are no record; the sink's errors.
 * Pieces may have been given before an error is found, so that bytes of doubtful origin are checked first:
 * answer_record_check. */
err_t answer_record_replay(const char *bytes, size_t size, const struct answer_sink *sink,
                           struct answer_facts *facts) ERR_MUST_CHECK;
err_t answer_record_check(const char *bytes, size_t size) ERR_MUST_CHECK;
