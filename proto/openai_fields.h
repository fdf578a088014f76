/* Fields of a JSON request, with errors that name the field, what it is and what would be right. A field that
 * is null counts as absent. Strings stay the document's. One thread. */
#pragma once

#include <jansson.h>
#include "proto/codec_openai.h"

/* Checks limits without building anything, then parses an object into scratch->document. */
err_t openai_parse(const char *body, size_t body_bytes, struct openai_scratch *scratch,
                   const json_t **root) ERR_MUST_CHECK;
/* Zeroed memory that lives as long as scratch; RESOURCE_EXHAUSTED. */
err_t openai_allocate(struct openai_scratch *scratch, size_t count, size_t size_bytes,
                      void **out) ERR_MUST_CHECK;

/* Sets the field that the error is about. name is a printf format. */
void openai_blame(struct openai_scratch *scratch, const char *name, ...)
    __attribute__((format(printf, 2, 3)));
/* "temperature is a string; it must be a number", about `name`. */
err_t openai_wrong_type(struct openai_scratch *scratch, const char *name, const json_t *value,
                        const char *expected) ERR_MUST_CHECK;
/* About `name`: what no engine of ours does. UNIMPLEMENTED; or, where a service passes on, OK, and the first
 * such message is kept as scratch->beyond. */
err_t openai_lacking(struct openai_scratch *scratch, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4))) ERR_MUST_CHECK;
/* A text that lives as long as scratch, of at most ERR_MESSAGE_MAX - 1 bytes. */
err_t openai_print(struct openai_scratch *scratch, const char **out, const char *format, ...)
    __attribute__((format(printf, 3, 4))) ERR_MUST_CHECK;
bool openai_text_is(const json_t *value, const char *text);
/* NULL when absent or null. */
const json_t *openai_find(const json_t *object, const char *name);
/* null, false, "", [] and {} ask for nothing. */
bool openai_asks_for_nothing(const json_t *value);

/* Each leaves *out alone when the field is absent, and says in *found (may be NULL) whether it is there. */
err_t openai_bool(struct openai_scratch *scratch, const json_t *object, const char *name, bool *out,
                  bool *found) ERR_MUST_CHECK;
err_t openai_number(struct openai_scratch *scratch, const json_t *object, const char *name, float *out,
                    bool *found) ERR_MUST_CHECK;
/* An integer in [low, high]; 16.0 is one too. */
err_t openai_integer(struct openai_scratch *scratch, const json_t *object, const char *name, int64_t low,
                     int64_t high, int64_t *out, bool *found) ERR_MUST_CHECK;
/* Without NUL characters. */
err_t openai_name(struct openai_scratch *scratch, const json_t *object, const char *name,
                  const char **out) ERR_MUST_CHECK;
err_t openai_ids(struct openai_scratch *scratch, const json_t *array, const char *name, const uint32_t **out,
                 size_t *n) ERR_MUST_CHECK;
/* A list of strings, or one string. */
err_t openai_names(struct openai_scratch *scratch, const json_t *object, const char *name,
                   const char *const **out, size_t *n) ERR_MUST_CHECK;

/* What else the template of messages gets -> template_json, which lives as long as scratch. */
err_t openai_template(struct openai_scratch *scratch, const json_t *root, struct request *out) ERR_MUST_CHECK;
/* root["messages"] and what belongs to them -> PROMPT_MESSAGES. */
err_t openai_messages(struct openai_scratch *scratch, const json_t *root, struct request *out) ERR_MUST_CHECK;
