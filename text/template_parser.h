/* What the two halves of the template parser share. Internal to text/. */
#pragma once

#include "text/template_ast.h"

struct parser {
    struct chat_template *out;
    const struct template_token *token; /* the next one */
    unsigned depth;                     /* of the recursion */
    unsigned loops;                     /* {% for %} around this place, within the macro */
    err_t error;
};

/* The functions of the parser return false after an error, which is in parser->error: an err_t is too large
 * for the frames of a deep recursion. */
#define MUST(call)                                                                                           \
    do {                                                                                                     \
        if (!(call))                                                                                         \
            return false;                                                                                    \
    } while (0)

/* Each sets parser->error, at the next token's place, and returns false. */
bool parse_error(struct parser *parser, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool parse_unsupported(struct parser *parser, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool parse_out_of_memory(struct parser *parser);

/* At the next token's place. */
bool node_new(struct parser *parser, enum node_kind kind, struct node **out);
/* Makes `child` count for the depth of `node`. */
bool node_adopt(struct parser *parser, struct node *node, const struct node *child);
/* Appends to node->items, and the operator in front of it when it is not the first. */
bool node_append(struct parser *parser, struct node *node, int op, const struct node *item);
bool node_append_argument(struct parser *parser, struct node *node, const struct node_argument *argument);

bool parser_enter(struct parser *parser); /* one level deeper; parser_leave on success */
void parser_leave(struct parser *parser);

bool next_is_operator(const struct parser *parser, int op);
bool next_is_name(const struct parser *parser, const char *name);
bool accept_operator(struct parser *parser, int op);
bool accept_name(struct parser *parser, const char *name);
bool expect_operator(struct parser *parser, int op);
/* Any name; *out is interned. */
bool expect_name(struct parser *parser, const char **out);

bool parse_expression(struct parser *parser, const struct node **out);
/* Without `x if y`: what {% for a in HERE if b %} needs. */
bool parse_expression_no_condition(struct parser *parser, const struct node **out);
/* One expression, or several with commas, which are a tuple. */
bool parse_tuple(struct parser *parser, bool condition, const struct node **out);
/* | filter | filter behind `input`, which may be NULL. */
bool parse_filter(struct parser *parser, const struct node *input, const struct node **out);
/* a, b, .. or ns.a of {% set %} and {% for %}. */
bool parse_target(struct parser *parser, bool attributes, const struct node **out);
