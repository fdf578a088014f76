/* Tokens -> expression nodes, by recursive descent; precedence as in Jinja's own parser. */
#include <stdio.h>
#include <string.h>

#include "text/template_builtin.h"
#include "text/template_parser.h"

/* left op right op .. over operands of the next level, into one node with the operators between. */
typedef bool parse_level(struct parser *parser, const struct node **out);
typedef int operator_here(struct parser *parser);

static bool parse_chain(struct parser *parser, enum node_kind kind, parse_level *operand,
                        operator_here *operator_at, const struct node **out)
{
    struct node *chain = NULL;
    const struct node *item;
    MUST(operand(parser, &item));
    *out = item;
    int op;
    while ((op = operator_at(parser)) != 0) {
        if (chain == NULL) {
            MUST(node_new(parser, kind, &chain));
            chain->line = item->line;
            chain->column = item->column;
            MUST(node_append(parser, chain, 0, *out));
            *out = chain;
        }
        MUST(operand(parser, &item));
        MUST(node_append(parser, chain, op, item));
    }
    return true;
}

static int accept_any(struct parser *parser, const int *operators, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (accept_operator(parser, operators[i]))
            return operators[i];
    return 0;
}

static bool parse_unary(struct parser *parser, bool filters, const struct node **out);

static bool parse_unary_full(struct parser *parser, const struct node **out)
{
    return parse_unary(parser, true, out);
}

static int power_here(struct parser *parser)
{
    return accept_operator(parser, OP_POWER) ? OP_POWER : 0;
}

static bool parse_power(struct parser *parser, const struct node **out)
{
    return parse_chain(parser, NODE_CHAIN, parse_unary_full, power_here, out);
}

static int product_here(struct parser *parser)
{
    static const int OPERATORS[] = {'*', '/', OP_FLOOR_DIVIDE, '%'};
    return accept_any(parser, OPERATORS, 4);
}

static bool parse_product(struct parser *parser, const struct node **out)
{
    return parse_chain(parser, NODE_CHAIN, parse_power, product_here, out);
}

static int concat_here(struct parser *parser)
{
    return accept_operator(parser, '~') ? '~' : 0;
}

static bool parse_concat(struct parser *parser, const struct node **out)
{
    return parse_chain(parser, NODE_CHAIN, parse_product, concat_here, out);
}

static int sum_here(struct parser *parser)
{
    static const int OPERATORS[] = {'+', '-'};
    return accept_any(parser, OPERATORS, 2);
}

static bool parse_sum(struct parser *parser, const struct node **out)
{
    return parse_chain(parser, NODE_CHAIN, parse_concat, sum_here, out);
}

static int compare_here(struct parser *parser)
{
    static const int OPERATORS[] = {OP_EQ, OP_NE, OP_LE, OP_GE, '<', '>'};
    int op = accept_any(parser, OPERATORS, 6);
    if (op != 0)
        return op;
    if (accept_name(parser, "in"))
        return OP_IN;
    bool not_in = next_is_name(parser, "not") && parser->token[1].kind == TOKEN_NAME &&
                  strcmp(parser->token[1].text, "in") == 0;
    if (!not_in)
        return 0;
    parser->token += 2;
    return OP_NOT_IN;
}

static bool parse_compare(struct parser *parser, const struct node **out)
{
    return parse_chain(parser, NODE_COMPARE, parse_sum, compare_here, out);
}

static bool parse_not(struct parser *parser, const struct node **out)
{
    if (!next_is_name(parser, "not"))
        return parse_compare(parser, out);
    struct node *node;
    MUST(node_new(parser, NODE_NOT, &node));
    parser->token++;
    MUST(parser_enter(parser));
    MUST(parse_not(parser, &node->left));
    parser_leave(parser);
    *out = node;
    return node_adopt(parser, node, node->left);
}

static int and_here(struct parser *parser)
{
    return accept_name(parser, "and") ? OP_AND : 0;
}

static bool parse_and(struct parser *parser, const struct node **out)
{
    return parse_chain(parser, NODE_LOGIC, parse_not, and_here, out);
}

static int or_here(struct parser *parser)
{
    return accept_name(parser, "or") ? OP_OR : 0;
}

bool parse_expression_no_condition(struct parser *parser, const struct node **out)
{
    return parse_chain(parser, NODE_LOGIC, parse_and, or_here, out);
}

bool parse_expression(struct parser *parser, const struct node **out)
{
    MUST(parser_enter(parser));
    MUST(parse_expression_no_condition(parser, out));
    while (next_is_name(parser, "if")) {
        struct node *node;
        MUST(node_new(parser, NODE_CONDITION, &node));
        parser->token++;
        node->left = *out;
        MUST(parse_expression_no_condition(parser, &node->test));
        if (accept_name(parser, "else"))
            MUST(parse_expression(parser, &node->right));
        MUST(node_adopt(parser, node, node->left));
        MUST(node_adopt(parser, node, node->test));
        MUST(node_adopt(parser, node, node->right));
        *out = node;
    }
    parser_leave(parser);
    return true;
}

static bool ends_tuple(const struct parser *parser)
{
    return parser->token->kind == TOKEN_BLOCK_END || parser->token->kind == TOKEN_OUTPUT_END ||
           next_is_operator(parser, ')') || next_is_operator(parser, '=') || next_is_name(parser, "in");
}

bool parse_tuple(struct parser *parser, bool condition, const struct node **out)
{
    struct node *tuple = NULL;
    const struct node *item;
    MUST(condition ? parse_expression(parser, &item) : parse_expression_no_condition(parser, &item));
    *out = item;
    while (accept_operator(parser, ',')) {
        if (tuple == NULL) {
            MUST(node_new(parser, NODE_TUPLE, &tuple));
            MUST(node_append(parser, tuple, 0, *out));
            *out = tuple;
        }
        if (ends_tuple(parser))
            break;
        MUST(condition ? parse_expression(parser, &item) : parse_expression_no_condition(parser, &item));
        MUST(node_append(parser, tuple, 0, item));
    }
    return true;
}

static bool parse_parenthesis(struct parser *parser, const struct node **out)
{
    struct node *empty;
    parser->token++;
    if (accept_operator(parser, ')')) {
        MUST(node_new(parser, NODE_TUPLE, &empty));
        *out = empty;
        return true;
    }
    MUST(parse_tuple(parser, true, out));
    return expect_operator(parser, ')');
}

static bool parse_list(struct parser *parser, const struct node **out)
{
    struct node *list;
    const struct node *item;
    MUST(node_new(parser, NODE_LIST, &list));
    parser->token++;
    while (!next_is_operator(parser, ']')) {
        MUST(parse_expression(parser, &item));
        MUST(node_append(parser, list, 0, item));
        if (!accept_operator(parser, ','))
            break;
    }
    *out = list;
    return expect_operator(parser, ']');
}

static bool parse_dict(struct parser *parser, const struct node **out)
{
    struct node *dict;
    const struct node *item;
    MUST(node_new(parser, NODE_DICT, &dict));
    parser->token++;
    while (!next_is_operator(parser, '}')) {
        MUST(parse_expression(parser, &item));
        MUST(node_append(parser, dict, 0, item));
        MUST(expect_operator(parser, ':'));
        MUST(parse_expression(parser, &item));
        MUST(node_append(parser, dict, 0, item));
        if (!accept_operator(parser, ','))
            break;
    }
    *out = dict;
    return expect_operator(parser, '}');
}

/* "a" "b" is "ab". */
static bool parse_text(struct parser *parser, struct node *node)
{
    size_t size_bytes = 0;
    for (const struct template_token *t = parser->token; t->kind == TOKEN_STRING; t++)
        size_bytes += t->size_bytes;
    struct text *text = template_pool_alloc(&parser->out->pool, sizeof *text);
    char *data = template_pool_alloc(&parser->out->pool, size_bytes + 1);
    if (text == NULL || data == NULL)
        return parse_out_of_memory(parser);
    *text = (struct text){data, NULL, size_bytes};
    for (; parser->token->kind == TOKEN_STRING; parser->token++) {
        memcpy(data, parser->token->text, parser->token->size_bytes);
        data += parser->token->size_bytes;
    }
    node->constant = (struct value){.kind = VALUE_TEXT, .text = text};
    return true;
}

static bool parse_name(struct parser *parser, const struct node **out)
{
    static const struct {
        const char *name;
        struct value value;
    } CONSTANTS[] = {
        {"true", {.kind = VALUE_BOOL, .boolean = true}},
        {"True", {.kind = VALUE_BOOL, .boolean = true}},
        {"false", {.kind = VALUE_BOOL, .boolean = false}},
        {"False", {.kind = VALUE_BOOL, .boolean = false}},
        {"none", {.kind = VALUE_NONE}},
        {"None", {.kind = VALUE_NONE}},
    };
    struct node *node;
    for (size_t i = 0; i < sizeof CONSTANTS / sizeof CONSTANTS[0]; i++)
        if (next_is_name(parser, CONSTANTS[i].name)) {
            MUST(node_new(parser, NODE_CONSTANT, &node));
            parser->token++;
            node->constant = CONSTANTS[i].value;
            *out = node;
            return true;
        }
    MUST(node_new(parser, NODE_NAME, &node));
    *out = node;
    return expect_name(parser, &node->name);
}

static bool parse_primary(struct parser *parser, const struct node **out)
{
    struct node *node;
    switch (parser->token->kind) {
    case TOKEN_NAME:
        return parse_name(parser, out);
    case TOKEN_STRING:
        MUST(node_new(parser, NODE_CONSTANT, &node));
        *out = node;
        return parse_text(parser, node);
    case TOKEN_INT:
    case TOKEN_FLOAT:
        MUST(node_new(parser, NODE_CONSTANT, &node));
        if (parser->token->kind == TOKEN_INT)
            node->constant = (struct value){.kind = VALUE_INT, .integer = parser->token->integer};
        else
            node->constant = (struct value){.kind = VALUE_FLOAT, .number = parser->token->number};
        parser->token++;
        *out = node;
        return true;
    default:
        break;
    }
    if (next_is_operator(parser, '('))
        return parse_parenthesis(parser, out);
    if (next_is_operator(parser, '['))
        return parse_list(parser, out);
    if (next_is_operator(parser, '{'))
        return parse_dict(parser, out);
    return parse_error(parser, "expected an expression");
}

/* (a, b, name=c) into node->arguments; the parenthesis is the next token. */
static bool parse_arguments(struct parser *parser, struct node *node)
{
    bool named = false;
    MUST(expect_operator(parser, '('));
    while (!next_is_operator(parser, ')')) {
        static const int SPREADS[] = {'*', OP_POWER};
        struct node_argument argument = {.spread = accept_any(parser, SPREADS, 2)};
        bool has_name = parser->token->kind == TOKEN_NAME && parser->token[1].kind == TOKEN_OPERATOR &&
                        parser->token[1].op == '=';
        if (has_name && argument.spread == 0) {
            MUST(expect_name(parser, &argument.name));
            MUST(expect_operator(parser, '='));
        } else if (named && argument.spread == 0) {
            return parse_error(parser, "an argument by position behind one by name");
        }
        named |= argument.name != NULL;
        MUST(parse_expression(parser, &argument.value));
        MUST(node_append_argument(parser, node, &argument));
        if (!accept_operator(parser, ','))
            break;
    }
    return expect_operator(parser, ')');
}

static bool parse_call(struct parser *parser, const struct node *callee, const struct node **out)
{
    struct node *node;
    MUST(node_new(parser, NODE_CALL, &node));
    node->left = callee;
    MUST(node_adopt(parser, node, callee));
    *out = node;
    return parse_arguments(parser, node);
}

/* One part of a slice, NULL when it is left out. */
static bool parse_slice_part(struct parser *parser, struct node *slice)
{
    const struct node *part = NULL;
    if (!next_is_operator(parser, ':') && !next_is_operator(parser, ']'))
        MUST(parse_expression(parser, &part));
    return node_append(parser, slice, 0, part);
}

static bool parse_subscript(struct parser *parser, const struct node *object, const struct node **out)
{
    struct node *node, *slice;
    MUST(node_new(parser, NODE_SUBSCRIPT, &node));
    MUST(node_new(parser, NODE_SLICE, &slice));
    parser->token++;
    MUST(parse_slice_part(parser, slice));
    if (!next_is_operator(parser, ':')) {
        if (slice->items[0] == NULL)
            return parse_error(parser, "expected an index");
        node->left = object;
        node->right = slice->items[0];
        MUST(node_adopt(parser, node, node->left));
        MUST(node_adopt(parser, node, node->right));
        *out = node;
        return expect_operator(parser, ']');
    }
    while (slice->n_items < 3 && accept_operator(parser, ':'))
        MUST(parse_slice_part(parser, slice));
    while (slice->n_items < 3)
        MUST(node_append(parser, slice, 0, NULL));
    slice->left = object;
    *out = slice;
    MUST(node_adopt(parser, slice, object));
    return expect_operator(parser, ']');
}

static bool parse_attribute(struct parser *parser, const struct node *object, const struct node **out)
{
    struct node *node, *index;
    parser->token++;
    MUST(node_new(parser, parser->token->kind == TOKEN_INT ? NODE_SUBSCRIPT : NODE_ATTRIBUTE, &node));
    node->left = object;
    MUST(node_adopt(parser, node, object));
    *out = node;
    if (node->kind == NODE_ATTRIBUTE)
        return expect_name(parser, &node->name);
    MUST(node_new(parser, NODE_CONSTANT, &index));
    index->constant = (struct value){.kind = VALUE_INT, .integer = parser->token->integer};
    parser->token++;
    node->right = index;
    return true;
}

static bool parse_postfix(struct parser *parser, const struct node **node)
{
    for (;;) {
        if (next_is_operator(parser, '.'))
            MUST(parse_attribute(parser, *node, node));
        else if (next_is_operator(parser, '['))
            MUST(parse_subscript(parser, *node, node));
        else if (next_is_operator(parser, '('))
            MUST(parse_call(parser, *node, node));
        else
            return true;
    }
}

bool parse_filter(struct parser *parser, const struct node *input, const struct node **out)
{
    struct node *node;
    MUST(node_new(parser, NODE_FILTER, &node));
    if (parser->token->kind == TOKEN_NAME && template_filter_find(parser->token->text) == NULL)
        return parse_unsupported(parser, "the filter \"%s\"", parser->token->text);
    MUST(expect_name(parser, &node->name));
    node->builtin = template_filter_find(node->name);
    node->left = input;
    MUST(node_adopt(parser, node, input));
    *out = node;
    return next_is_operator(parser, '(') ? parse_arguments(parser, node) : true;
}

/* An argument of a test may stand without parentheses: x is divisibleby 3. */
static bool starts_bare_argument(const struct parser *parser)
{
    switch (parser->token->kind) {
    case TOKEN_STRING:
    case TOKEN_INT:
    case TOKEN_FLOAT:
        return true;
    case TOKEN_NAME:
        return !next_is_name(parser, "else") && !next_is_name(parser, "or") && !next_is_name(parser, "and") &&
               !next_is_name(parser, "if") && !next_is_name(parser, "in") && !next_is_name(parser, "not");
    default:
        return next_is_operator(parser, '[') || next_is_operator(parser, '{');
    }
}

static bool parse_test(struct parser *parser, const struct node *input, const struct node **out)
{
    struct node *node;
    MUST(node_new(parser, NODE_TEST, &node));
    parser->token++;
    node->negated = accept_name(parser, "not");
    if (parser->token->kind == TOKEN_NAME && template_test_find(parser->token->text) == NULL)
        return parse_unsupported(parser, "the test \"%s\"", parser->token->text);
    MUST(expect_name(parser, &node->name));
    node->builtin = template_test_find(node->name);
    node->left = input;
    MUST(node_adopt(parser, node, input));
    *out = node;
    if (next_is_operator(parser, '('))
        return parse_arguments(parser, node);
    if (!starts_bare_argument(parser))
        return true;
    if (next_is_name(parser, "is"))
        return parse_error(parser, "tests cannot follow each other with \"is\"");
    struct node_argument argument = {.name = NULL};
    MUST(parse_primary(parser, &argument.value));
    MUST(parse_postfix(parser, &argument.value));
    return node_append_argument(parser, node, &argument);
}

static bool parse_unary(struct parser *parser, bool filters, const struct node **out)
{
    if (next_is_operator(parser, '-') || next_is_operator(parser, '+')) {
        struct node *node;
        MUST(parser_enter(parser));
        MUST(node_new(parser, next_is_operator(parser, '-') ? NODE_NEGATE : NODE_POSITIVE, &node));
        parser->token++;
        MUST(parse_unary(parser, false, &node->left));
        parser_leave(parser);
        MUST(node_adopt(parser, node, node->left));
        *out = node;
    } else {
        MUST(parse_primary(parser, out));
    }
    MUST(parse_postfix(parser, out));
    while (filters) {
        if (accept_operator(parser, '|'))
            MUST(parse_filter(parser, *out, out));
        else if (next_is_name(parser, "is"))
            MUST(parse_test(parser, *out, out));
        else if (next_is_operator(parser, '('))
            MUST(parse_call(parser, *out, out));
        else
            break;
    }
    return true;
}
