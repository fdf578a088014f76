/* Chat messages -> prompt text through the model's own Jinja template, by an interpreter with no I/O and caps
 * on steps, output and depth. A compiled template is immutable: any thread may render. A construct that is
 * not supported is an error with line and column at compile time, not a wrong prompt. Language:
 * https://jinja.palletsprojects.com (templates.html), the subset that chat templates use; environment as
 * Transformers sets it: trim_blocks, lstrip_blocks, raise_exception, strftime_now. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/request.h"
#include "base/buffer.h"
#include "base/error.h"

enum {
    TEMPLATE_SOURCE_BYTES_MAX = 256 << 10,
    TEMPLATE_STEPS_MAX = 4 << 20,         /* evaluated nodes per render */
    TEMPLATE_OUTPUT_BYTES_MAX = 64 << 20, /* also of any intermediate string */
    TEMPLATE_DEPTH_MAX = 64               /* nesting of expressions, blocks and values */
};

struct chat_template;

err_t chat_template_compile(const char *source, size_t source_bytes, const char *name,
                            struct chat_template **out) ERR_MUST_CHECK;
void chat_template_destroy(struct chat_template *chat_template);

struct template_input {
    const struct chat_message *messages; /* [n_messages] */
    size_t n_messages;
    bool add_generation_prompt;
    const char *json; /* api/request.h: template_json, json_bytes long; NULL = nothing */
    size_t json_bytes;
    const char *bos_token, *eos_token; /* NULL = "" */
    int64_t now_unix_s;                /* for strftime_now; passed in, so that a render can be repeated */
};

/* The prompt, and for every byte whether it came from a message (1) or from the template (0): what
 * tokenizer_encode takes as `untrusted`. Free with rendered_prompt_free. */
struct rendered_prompt {
    char *text;
    uint8_t *untrusted; /* [size_bytes] */
    size_t size_bytes;
};
void rendered_prompt_free(struct rendered_prompt *prompt);

/* INVALID_ARGUMENT: the template raised an exception (its message) or met a type error (line and column), or
 * json is no object of the kind that is asked for;
 * RESOURCE_EXHAUSTED: a cap. */
err_t chat_template_render(const struct chat_template *chat_template, const struct template_input *input,
                           struct rendered_prompt *out) ERR_MUST_CHECK;
