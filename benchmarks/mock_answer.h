/* One answer of the mock provider: what is asked is read, what is said is made up, and its bytes come one
 * event after the other, right or wrong as its fault has it. Knows no sockets and no time. One thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "benchmarks/mock_provider.h"

enum mock_form { MOCK_OPENAI, MOCK_ANTHROPIC };
enum {
    MOCK_CALLS_MAX = 2,
    MOCK_ECHO_BYTES_MAX = 64 << 10,
    MOCK_TOKENS_MAX = 1 << 20,
    MOCK_EVENT_BYTES_MAX = 1 << 20, /* of one step, and of a whole answer's body beyond its text */
    MOCK_BODY_BYTES_MAX = 32 << 20,
};

/* What follows the bytes of a step. */
enum mock_step {
    MOCK_MORE,
    MOCK_END,
    MOCK_CLOSE,   /* the connection ends here, as if that were the end */
    MOCK_RESET,   /* likewise, with RST */
    MOCK_NOTHING, /* nothing, until the client leaves */
};

struct mock_call {
    char *name, *arguments; /* arguments: JSON */
};

enum mock_stage { STAGE_START, STAGE_BODY, STAGE_FINISH, STAGE_USAGE, STAGE_DONE, STAGE_OVER };

struct mock_answer {
    enum mock_form form;
    bool is_stream, wants_usage;
    struct mock_fault fault;
    int status; /* of the head */
    const char *content_type;
    bool until_close; /* the body's end is that of the connection */
    int64_t first_byte_ns, per_chunk_ns;
    size_t huge_bytes;

    char *prompt; /* the last message of the user */
    char *model;  /* "mock-..." */
    char *text;   /* NULL: words are made up */
    struct mock_call calls[MOCK_CALLS_MAX];
    uint32_t n_calls, n_pieces, input_tokens;
    bool is_cut; /* by max_tokens */
    bool wants_tool, wants_tools;
    struct buffer head; /* how each chunk begins */
    uint64_t number;
    uint64_t random; /* state of mock_random */

    /* How far it is. */
    enum mock_stage stage;
    uint32_t piece;
    uint32_t cut_event; /* COURSE_CUT_ANYWHERE: events before it */
    size_t text_at, huge_left;
    bool has_begun, has_failed; /* failed: what its fault has was done */
};

/* What a request asks for; out->status is not 200 where it is refused. fault: of the server and the
 * request's header together; the prompt may add to it ("mock:503 mock:tokens=100"). RESOURCE_EXHAUSTED. */
err_t mock_answer_make(const struct mock_options *options, enum mock_form form, const char *body,
                       size_t body_bytes, const struct mock_fault *fault, uint64_t number,
                       struct mock_answer **out) ERR_MUST_CHECK;
void mock_answer_free(struct mock_answer *answer); /* NULL is fine */
/* Appends what comes next; of an answer that is no stream, all of its body at once, or *told_bytes of a body
 * of which a part comes. */
enum mock_step mock_answer_next(struct mock_answer *answer, struct buffer *out, size_t *told_bytes);
/* The body of an error. */
void mock_error_body(enum mock_form form, int status, bool is_about_money, const char *why,
                     struct buffer *out);

/* mock_stream.c: the two forms, written. */
/* The next word of the text; NULL when there is none. */
const char *mock_answer_word(struct mock_answer *answer, size_t *size_bytes);
enum mock_step mock_stream_next(struct mock_answer *answer, struct buffer *out);
void mock_body_write(struct mock_answer *answer, struct buffer *out);
