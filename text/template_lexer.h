/* Template source -> tokens, with Jinja's white-space rules (trim_blocks and lstrip_blocks on). Source:
 * jinja.palletsprojects.com/templates, "Whitespace Control" and "Expressions". Internal to text/. */
#pragma once

#include <stdint.h>
#include "base/error.h"
#include "text/template_pool.h"

enum token_kind {
    TOKEN_TEXT, /* between tags */
    TOKEN_BLOCK_BEGIN,
    TOKEN_BLOCK_END,
    TOKEN_OUTPUT_BEGIN,
    TOKEN_OUTPUT_END,
    TOKEN_NAME,
    TOKEN_STRING, /* escapes resolved */
    TOKEN_INT,
    TOKEN_FLOAT,
    TOKEN_OPERATOR,
    TOKEN_END,
};

/* Operators of one character are that character. */
enum operator_kind {
    OP_EQ = 256,
    OP_NE,
    OP_LE,
    OP_GE,
    OP_FLOOR_DIVIDE,
    OP_POWER,
    OP_IN, /* made by the parser from names */
    OP_NOT_IN,
    OP_AND,
    OP_OR,
};

struct template_token {
    enum token_kind kind;
    int op;                /* TOKEN_OPERATOR */
    uint32_t line, column; /* of the first character, from 1; columns in bytes */
    const char *text;      /* TEXT, NAME, STRING: NUL-terminated after size_bytes, in the pool */
    size_t size_bytes;
    int64_t integer;
    double number;
};

struct template_tokens {
    struct template_token *items; /* [count], the last is TOKEN_END; in the pool */
    size_t count, capacity;
};

/* source: valid UTF-8. INVALID_ARGUMENT with line and column. */
err_t template_lex(const char *source, size_t source_bytes, struct template_pool *pool,
                   struct template_tokens *out) ERR_MUST_CHECK;
