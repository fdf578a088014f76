/* Tokens -> statement nodes. */
#include "text/template_parser.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool fail_at(struct parser *parser, enum err_code code, const char *prefix, const char *format,
                    va_list arguments)
{
    char what[ERR_MESSAGE_MAX / 2];
    vsnprintf(what, sizeof what, format, arguments);
    parser->error =
        err_new(code, "line %u column %u: %s%s", parser->token->line, parser->token->column, prefix, what);
    return false;
}

bool parse_error(struct parser *parser, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fail_at(parser, ERR_INVALID_ARGUMENT, "", format, arguments);
    va_end(arguments);
    return false;
}

bool parse_unsupported(struct parser *parser, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fail_at(parser, ERR_UNIMPLEMENTED, "not supported: ", format, arguments);
    va_end(arguments);
    return false;
}

bool parse_out_of_memory(struct parser *parser)
{
    parser->error = err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the template");
    return false;
}

bool node_new(struct parser *parser, enum node_kind kind, struct node **out)
{
    *out = template_pool_alloc(&parser->out->pool, sizeof **out);
    if (*out == NULL)
        return parse_out_of_memory(parser);
    (*out)->kind = kind;
    (*out)->line = parser->token->line;
    (*out)->column = parser->token->column;
    (*out)->depth = 1;
    return true;
}

bool node_adopt(struct parser *parser, struct node *node, const struct node *child)
{
    if (child == NULL || child->depth < node->depth)
        return true;
    if (child->depth >= TEMPLATE_DEPTH_MAX)
        return parse_error(parser, "nested more than %d deep", TEMPLATE_DEPTH_MAX);
    node->depth = (uint16_t)(child->depth + 1);
    return true;
}

/* Arrays grow when their length is a power of two, so that no capacity needs keeping. */
static bool is_full(size_t n)
{
    return (n & (n - 1)) == 0;
}

static void *array_grow(struct parser *parser, const void *items, size_t n, size_t size_bytes)
{
    size_t capacity = n == 0 ? 1 : 2 * n;
    void *grown = template_pool_alloc(&parser->out->pool, capacity * size_bytes);
    if (grown != NULL && n > 0)
        memcpy(grown, items, n * size_bytes);
    return grown;
}

bool node_append(struct parser *parser, struct node *node, int op, const struct node *item)
{
    size_t n = node->n_items;
    if (is_full(n)) {
        node->items = array_grow(parser, node->items, n, sizeof *node->items);
        node->operators = array_grow(parser, node->operators, n, sizeof *node->operators);
        if (node->items == NULL || node->operators == NULL)
            return parse_out_of_memory(parser);
    }
    if (n > 0)
        node->operators[n - 1] = op;
    node->items[node->n_items++] = item;
    return node_adopt(parser, node, item);
}

bool node_append_argument(struct parser *parser, struct node *node, const struct node_argument *argument)
{
    if (is_full(node->n_arguments)) {
        node->arguments = array_grow(parser, node->arguments, node->n_arguments, sizeof *node->arguments);
        if (node->arguments == NULL)
            return parse_out_of_memory(parser);
    }
    node->arguments[node->n_arguments++] = *argument;
    return node_adopt(parser, node, argument->value);
}

bool parser_enter(struct parser *parser)
{
    if (parser->depth == TEMPLATE_DEPTH_MAX)
        return parse_error(parser, "nested more than %d deep", TEMPLATE_DEPTH_MAX);
    parser->depth++;
    return true;
}

void parser_leave(struct parser *parser)
{
    parser->depth--;
}

bool next_is_operator(const struct parser *parser, int op)
{
    return parser->token->kind == TOKEN_OPERATOR && parser->token->op == op;
}

bool next_is_name(const struct parser *parser, const char *name)
{
    return parser->token->kind == TOKEN_NAME && strcmp(parser->token->text, name) == 0;
}

bool accept_operator(struct parser *parser, int op)
{
    bool is = next_is_operator(parser, op);
    parser->token += is;
    return is;
}

bool accept_name(struct parser *parser, const char *name)
{
    bool is = next_is_name(parser, name);
    parser->token += is;
    return is;
}

bool expect_operator(struct parser *parser, int op)
{
    if (!accept_operator(parser, op))
        return parse_error(parser, "expected \"%c\"", op);
    return true;
}

bool expect_name(struct parser *parser, const char **out)
{
    if (parser->token->kind != TOKEN_NAME)
        return parse_error(parser, "expected a name");
    *out = template_intern(&parser->out->names, &parser->out->pool, parser->token->text,
                           parser->token->size_bytes);
    parser->token++;
    return *out || parse_out_of_memory(parser);
}

static bool expect_block_end(struct parser *parser)
{
    if (parser->token->kind != TOKEN_BLOCK_END)
        return parse_error(parser, "expected %%}");
    parser->token++;
    return true;
}

/* Statements up to {% end %} or one of its two alternatives, whose name is then the next token. */
static bool parse_body(struct parser *parser, const char *end, const char *other, const char *another,
                       const struct node **out);

bool parse_target(struct parser *parser, bool attributes, const struct node **out)
{
    struct node *name, *node;
    MUST(node_new(parser, NODE_NAME, &name));
    MUST(expect_name(parser, &name->name));
    *out = name;
    if (attributes && next_is_operator(parser, '.')) {
        MUST(node_new(parser, NODE_ATTRIBUTE, &node));
        parser->token++;
        node->left = name;
        *out = node;
        return expect_name(parser, &node->name);
    }
    if (!next_is_operator(parser, ','))
        return true;
    MUST(node_new(parser, NODE_TUPLE, &node));
    MUST(node_append(parser, node, 0, name));
    while (accept_operator(parser, ',') && parser->token->kind == TOKEN_NAME && !next_is_name(parser, "in")) {
        MUST(node_new(parser, NODE_NAME, &name));
        MUST(expect_name(parser, &name->name));
        MUST(node_append(parser, node, 0, name));
    }
    *out = node;
    return true;
}

static bool parse_if(struct parser *parser, struct node *node)
{
    const struct node *part;
    node->kind = NODE_IF;
    for (;;) {
        MUST(parse_tuple(parser, true, &part));
        MUST(expect_block_end(parser));
        MUST(node_append(parser, node, 0, part));
        MUST(parse_body(parser, "endif", "elif", "else", &part));
        MUST(node_append(parser, node, 0, part));
        if (!accept_name(parser, "elif"))
            break;
    }
    if (accept_name(parser, "else")) {
        MUST(expect_block_end(parser));
        MUST(parse_body(parser, "endif", NULL, NULL, &part));
        MUST(node_append(parser, node, 0, part));
    }
    parser->token++; /* endif */
    return true;
}

static bool parse_for(struct parser *parser, struct node *node)
{
    node->kind = NODE_FOR;
    MUST(parse_target(parser, false, &node->left));
    if (!accept_name(parser, "in"))
        return parse_error(parser, "expected \"in\"");
    MUST(parse_tuple(parser, false, &node->right));
    if (accept_name(parser, "if"))
        MUST(parse_expression(parser, &node->test));
    if (next_is_name(parser, "recursive"))
        return parse_unsupported(parser, "{%% for .. recursive %%}");
    MUST(expect_block_end(parser));
    parser->loops++;
    MUST(parse_body(parser, "endfor", "else", NULL, &node->body));
    parser->loops--;
    if (accept_name(parser, "else")) {
        MUST(expect_block_end(parser));
        MUST(parse_body(parser, "endfor", NULL, NULL, &node->otherwise));
    }
    parser->token++; /* endfor */
    MUST(node_adopt(parser, node, node->right));
    MUST(node_adopt(parser, node, node->test));
    MUST(node_adopt(parser, node, node->body));
    return node_adopt(parser, node, node->otherwise);
}

static bool parse_filters(struct parser *parser, const struct node **out)
{
    do
        MUST(parse_filter(parser, *out, out));
    while (accept_operator(parser, '|'));
    return true;
}

static bool parse_set(struct parser *parser, struct node *node)
{
    MUST(parse_target(parser, true, &node->left));
    if (accept_operator(parser, '=')) {
        node->kind = NODE_SET;
        MUST(parse_tuple(parser, true, &node->right));
        return node_adopt(parser, node, node->right);
    }
    node->kind = NODE_SET_TEXT;
    if (accept_operator(parser, '|'))
        MUST(parse_filters(parser, &node->right));
    MUST(expect_block_end(parser));
    MUST(parse_body(parser, "endset", NULL, NULL, &node->body));
    parser->token++;
    MUST(node_adopt(parser, node, node->right));
    return node_adopt(parser, node, node->body);
}

/* (a, b=1) */
static bool parse_parameters(struct parser *parser, struct node *node)
{
    MUST(expect_operator(parser, '('));
    while (!next_is_operator(parser, ')')) {
        struct node_argument parameter = {.value = NULL};
        MUST(expect_name(parser, &parameter.name));
        if (accept_operator(parser, '='))
            MUST(parse_expression(parser, &parameter.value));
        MUST(node_append_argument(parser, node, &parameter));
        if (!accept_operator(parser, ','))
            break;
    }
    return expect_operator(parser, ')');
}

static bool parse_macro_body(struct parser *parser, struct node *node, const char *end)
{
    unsigned loops = parser->loops;
    MUST(expect_block_end(parser));
    parser->loops = 0; /* a break inside belongs to no loop outside */
    MUST(parse_body(parser, end, NULL, NULL, &node->body));
    parser->loops = loops;
    parser->token++;
    return node_adopt(parser, node, node->body);
}

static bool parse_macro(struct parser *parser, struct node *node)
{
    node->kind = NODE_MACRO;
    MUST(expect_name(parser, &node->name));
    MUST(parse_parameters(parser, node));
    return parse_macro_body(parser, node, "endmacro");
}

/* {% call(a) macro(1) %} text {% endcall %} */
static bool parse_call_text(struct parser *parser, struct node *node)
{
    node->kind = NODE_CALL_TEXT;
    node->name = template_intern(&parser->out->names, &parser->out->pool, "caller", strlen("caller"));
    if (node->name == NULL)
        return parse_out_of_memory(parser);
    if (next_is_operator(parser, '('))
        MUST(parse_parameters(parser, node));
    MUST(parse_expression(parser, &node->left));
    if (node->left->kind != NODE_CALL)
        return parse_error(parser, "expected a call");
    MUST(node_adopt(parser, node, node->left));
    return parse_macro_body(parser, node, "endcall");
}

static bool parse_filter_text(struct parser *parser, struct node *node)
{
    node->kind = NODE_FILTER_TEXT;
    MUST(parse_filters(parser, &node->left));
    MUST(expect_block_end(parser));
    MUST(parse_body(parser, "endfilter", NULL, NULL, &node->body));
    parser->token++;
    MUST(node_adopt(parser, node, node->left));
    return node_adopt(parser, node, node->body);
}

static bool parse_jump(struct parser *parser, struct node *node, enum node_kind kind)
{
    if (parser->loops == 0)
        return parse_error(parser, "break and continue need a loop around them");
    node->kind = kind;
    return true;
}

/* {% generation %} marks what an assistant wrote, for training; the text is as if it were not there. */
static bool parse_generation(struct parser *parser, struct node *node)
{
    const struct node *body;
    MUST(expect_block_end(parser));
    MUST(parse_body(parser, "endgeneration", NULL, NULL, &body));
    parser->token++;
    return node_append(parser, node, 0, body);
}

/* The next token is the name behind {%. */
static bool parse_statement(struct parser *parser, const struct node **out)
{
    struct node *node;
    MUST(parser_enter(parser));
    MUST(node_new(parser, NODE_BODY, &node));
    *out = node;
    if (accept_name(parser, "if"))
        MUST(parse_if(parser, node));
    else if (accept_name(parser, "for"))
        MUST(parse_for(parser, node));
    else if (accept_name(parser, "set"))
        MUST(parse_set(parser, node));
    else if (accept_name(parser, "macro"))
        MUST(parse_macro(parser, node));
    else if (accept_name(parser, "filter"))
        MUST(parse_filter_text(parser, node));
    else if (accept_name(parser, "call"))
        MUST(parse_call_text(parser, node));
    else if (accept_name(parser, "break"))
        MUST(parse_jump(parser, node, NODE_BREAK));
    else if (accept_name(parser, "continue"))
        MUST(parse_jump(parser, node, NODE_CONTINUE));
    else if (accept_name(parser, "generation"))
        MUST(parse_generation(parser, node));
    else if (parser->token->kind == TOKEN_NAME)
        return parse_unsupported(parser, "{%% %s %%}", parser->token->text);
    else
        return parse_error(parser, "expected a statement");
    parser_leave(parser);
    return expect_block_end(parser);
}

static bool parse_text_node(struct parser *parser, const struct node **out)
{
    struct node *node;
    MUST(node_new(parser, NODE_TEXT, &node));
    struct text *text = template_pool_alloc(&parser->out->pool, sizeof *text);
    if (text == NULL)
        return parse_out_of_memory(parser);
    *text = (struct text){parser->token->text, NULL, parser->token->size_bytes};
    node->constant = (struct value){.kind = VALUE_TEXT, .text = text};
    parser->token++;
    *out = node;
    return true;
}

static bool parse_output(struct parser *parser, const struct node **out)
{
    struct node *node;
    MUST(node_new(parser, NODE_OUTPUT, &node));
    parser->token++;
    MUST(parse_tuple(parser, true, &node->left));
    if (parser->token->kind != TOKEN_OUTPUT_END)
        return parse_error(parser, "expected }}");
    parser->token++;
    *out = node;
    return node_adopt(parser, node, node->left);
}

static bool ends_body(const struct parser *parser, const char *end)
{
    return end != NULL && parser->token[1].kind == TOKEN_NAME && strcmp(parser->token[1].text, end) == 0;
}

static bool parse_body(struct parser *parser, const char *end, const char *other, const char *another,
                       const struct node **out)
{
    struct node *body;
    const struct node *item = NULL;
    MUST(node_new(parser, NODE_BODY, &body));
    *out = body;
    for (;;) {
        switch (parser->token->kind) {
        case TOKEN_TEXT:
            MUST(parse_text_node(parser, &item));
            break;
        case TOKEN_OUTPUT_BEGIN:
            MUST(parse_output(parser, &item));
            break;
        case TOKEN_BLOCK_BEGIN:
            if (ends_body(parser, end) || ends_body(parser, other) || ends_body(parser, another)) {
                parser->token++;
                return true;
            }
            parser->token++;
            MUST(parse_statement(parser, &item));
            break;
        default:
            if (end != NULL)
                return parse_error(parser, "expected {%% %s %%}", end);
            return true; /* TOKEN_END */
        }
        MUST(node_append(parser, body, 0, item));
    }
}

err_t template_parse(struct chat_template *out, const struct template_tokens *tokens)
{
    struct parser parser = {.out = out, .token = tokens->items};
    parser.error.code = ERR_OK;
    (void)parse_body(&parser, NULL, NULL, NULL, &out->body);
    return parser.error;
}
