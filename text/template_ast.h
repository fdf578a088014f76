/* A compiled template: a tree of nodes in one pool, immutable. Internal to text/. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "text/chat_template.h"
#include "text/template_lexer.h"
#include "text/template_pool.h"
#include "text/template_value.h"

enum node_kind {
    /* expressions */
    NODE_CONSTANT,  /* constant */
    NODE_NAME,      /* name */
    NODE_LIST,      /* items */
    NODE_TUPLE,     /* items */
    NODE_DICT,      /* items: key, value, key, value.. */
    NODE_NEGATE,    /* left */
    NODE_POSITIVE,  /* left */
    NODE_NOT,       /* left */
    NODE_CHAIN,     /* items with operators between: +, -, ~, *, /, //, %, **, left to right */
    NODE_LOGIC,     /* items; operators all OP_AND or all OP_OR */
    NODE_COMPARE,   /* items with operators between: a < b < c */
    NODE_CONDITION, /* left if test else right (right NULL: undefined) */
    NODE_ATTRIBUTE, /* left . name */
    NODE_SUBSCRIPT, /* left [right] */
    NODE_SLICE,     /* left [items[0] : items[1] : items[2]], each maybe NULL */
    NODE_CALL,      /* left (arguments) */
    NODE_FILTER,    /* left | name (arguments); left NULL: the text of a block */
    NODE_TEST,      /* left is [not] name (arguments); negated */
    /* statements */
    NODE_TEXT,        /* constant */
    NODE_OUTPUT,      /* left */
    NODE_IF,          /* items: condition, body, condition, body.. and maybe a last body */
    NODE_FOR,         /* targets in left.., iterated: right, filter: test, body, otherwise */
    NODE_SET,         /* left (target) = right */
    NODE_SET_TEXT,    /* left (target), filter right (maybe NULL), body */
    NODE_MACRO,       /* name, arguments (names and defaults), body */
    NODE_FILTER_TEXT, /* filter left, body */
    NODE_CALL_TEXT,   /* call left; the body is the macro "caller", its parameters are the arguments */
    NODE_BODY,        /* items */
    NODE_BREAK,
    NODE_CONTINUE,
};

/* One argument of a call (name NULL: by position) or one parameter of a macro (value NULL: no default). */
struct node_argument {
    const char *name; /* interned */
    const struct node *value;
    int spread; /* '*': all items of the value by position; OP_POWER: all entries by name; 0: one argument */
};

struct node {
    enum node_kind kind;
    uint32_t line, column;
    bool negated;
    uint16_t depth;   /* of the tree below, at most TEMPLATE_DEPTH_MAX */
    const char *name; /* interned: equal names are equal pointers */
    const struct node *left, *right, *test, *body, *otherwise;
    const struct node **items; /* [n_items] */
    size_t n_items;
    int *operators;                  /* [n_items - 1] */
    struct node_argument *arguments; /* [n_arguments] */
    size_t n_arguments;
    struct value constant;
    const struct builtin *builtin; /* FILTER, TEST: what runs it */
};

/* Names that appear in the template, and the ones that a render supplies. */
struct template_names {
    const char **items; /* [count], in the pool */
    size_t count, capacity;
    uint32_t *slots; /* [n_slots] index + 1 */
    size_t n_slots;
};
/* The one pointer for this name; NULL without memory. */
const char *template_intern(struct template_names *names, struct template_pool *pool, const char *name,
                            size_t size_bytes);
/* NULL when the template does not use the name. */
const char *template_intern_find(const struct template_names *names, const char *name);

struct chat_template {
    struct template_pool pool;
    struct template_names names;
    const char *title; /* for messages to clients: its file's name without the folders */
    const struct node *body;
};

/* Parses chat_template->body from tokens. INVALID_ARGUMENT or UNIMPLEMENTED with line and column. */
err_t template_parse(struct chat_template *out, const struct template_tokens *tokens) ERR_MUST_CHECK;
