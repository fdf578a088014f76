#include "text/added_tokens.h"

#include <string.h>
#include "base/alloc.h"
#include "base/utf8.h"
#include "text/unicode_class.h"

void added_trie_free(struct added_trie *trie)
{
    mem_free(trie->nodes);
    memset(trie, 0, sizeof *trie);
}

static err_t node_new(struct added_trie *trie, uint8_t byte, uint32_t next_sibling, uint32_t *out)
{
    if (trie->n_nodes == trie->capacity) {
        uint32_t capacity = trie->capacity ? 2 * trie->capacity : 256;
        struct added_node *nodes = mem_realloc(trie->nodes, capacity * sizeof *nodes);
        if (nodes == NULL)
            return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for added tokens");
        trie->nodes = nodes;
        trie->capacity = capacity;
    }
    if (trie->n_nodes == 0)
        trie->n_nodes = 1;
    *out = trie->n_nodes++;
    trie->nodes[*out] = (struct added_node){0, next_sibling, -1, byte};
    return err_ok();
}

static uint32_t child_of(const struct added_trie *trie, uint32_t node, uint8_t byte)
{
    uint32_t child = trie->nodes[node].first_child;
    while (child != 0 && trie->nodes[child].byte != byte)
        child = trie->nodes[child].next_sibling;
    return child;
}

err_t added_trie_add(struct added_trie *trie, const char *pattern, size_t pattern_bytes, int32_t token)
{
    if (pattern_bytes == 0)
        return err_ok();
    uint32_t node = trie->root[(uint8_t)pattern[0]];
    if (node == 0) {
        TRY(node_new(trie, (uint8_t)pattern[0], 0, &node));
        trie->root[(uint8_t)pattern[0]] = node;
    }
    for (size_t i = 1; i < pattern_bytes; i++) {
        uint32_t child = child_of(trie, node, (uint8_t)pattern[i]);
        if (child == 0) {
            TRY(node_new(trie, (uint8_t)pattern[i], trie->nodes[node].first_child, &child));
            trie->nodes[node].first_child = child;
        }
        node = child;
    }
    if (trie->nodes[node].token < 0)
        trie->nodes[node].token = token;
    return err_ok();
}

struct added_match {
    size_t start, end;
    const struct added_token *token;
};

static bool allowed(const struct added_token *token, const struct text_piece *piece, size_t start, size_t end,
                    bool parse_special)
{
    if (!token->special)
        return true;
    if (!parse_special)
        return false;
    for (size_t i = start; i < end && piece->untrusted != NULL; i++)
        if (piece->untrusted[i] != 0)
            return false;
    return true;
}

/* The first place at or after `from` where an allowed token stands, and the longest one there. */
static bool match_next(const struct added_trie *trie, const struct added_token *tokens,
                       const struct text_piece *piece, size_t from, bool parse_special,
                       struct added_match *out)
{
    for (size_t start = from; start < piece->size_bytes; start++) {
        uint32_t node = trie->root[(uint8_t)piece->text[start]];
        bool found = false;
        for (size_t end = start + 1; node != 0; end++) {
            int32_t token = trie->nodes[node].token;
            if (token >= 0 && allowed(&tokens[token], piece, start, end, parse_special)) {
                *out = (struct added_match){start, end, &tokens[token]};
                found = true;
            }
            if (end == piece->size_bytes)
                break;
            node = child_of(trie, node, (uint8_t)piece->text[end]);
        }
        if (found)
            return true;
    }
    return false;
}

static unsigned classes_before(const struct text_piece *piece, size_t position, size_t *length)
{
    size_t start = position - 1;
    while (start > 0 && ((uint8_t)piece->text[start] & 0xc0) == 0x80)
        start--;
    uint32_t code_point = 0;
    utf8_decode(piece->text + start, position - start, &code_point);
    *length = position - start;
    return unicode_classes(code_point);
}

static unsigned classes_after(const struct text_piece *piece, size_t position, size_t *length)
{
    uint32_t code_point = 0;
    *length = utf8_decode(piece->text + position, piece->size_bytes - position, &code_point);
    return unicode_classes(code_point);
}

static bool stands_alone(const struct text_piece *piece, const struct added_match *match)
{
    size_t length;
    if (match->start > 0 && (classes_before(piece, match->start, &length) & CHAR_WORD))
        return false;
    return match->end == piece->size_bytes || !(classes_after(piece, match->end, &length) & CHAR_WORD);
}

static void take_spaces(const struct text_piece *piece, size_t floor, struct added_match *match)
{
    size_t length;
    if (match->token->lstrip)
        while (match->start > floor && (classes_before(piece, match->start, &length) & CHAR_SPACE))
            match->start -= length;
    if (match->token->rstrip)
        while (match->end < piece->size_bytes && (classes_after(piece, match->end, &length) & CHAR_SPACE))
            match->end += length;
}

static err_t hand_on(const struct text_piece *piece, size_t start, size_t end, const struct added_sink *sink)
{
    if (start == end)
        return err_ok();
    struct text_piece part = {piece->text + start, end - start,
                              piece->untrusted ? piece->untrusted + start : NULL,
                              piece->at_start && start == 0};
    return sink->on_text(sink->context, &part);
}

err_t added_tokens_split(const struct added_trie *trie, const struct added_token *tokens,
                         const struct text_piece *piece, bool parse_special, const struct added_sink *sink)
{
    size_t done = 0, from = 0;
    struct added_match match;
    while (match_next(trie, tokens, piece, from, parse_special, &match)) {
        from = match.end;
        if (match.token->single_word && !stands_alone(piece, &match))
            continue;
        take_spaces(piece, done, &match);
        TRY(hand_on(piece, done, match.start, sink));
        TRY(sink->on_token(sink->context, match.token->id));
        done = from = match.end;
    }
    return hand_on(piece, done, piece->size_bytes, sink);
}
