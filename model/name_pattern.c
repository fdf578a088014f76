#include "model/name_pattern.h"

#include <ctype.h>
#include <string.h>
#include "base/assert.h"

static err_t unknown_syntax(const char *text, char mark)
{
    return err_new(ERR_UNIMPLEMENTED,
                   "the pattern \"%.100s\" has a '%c' that is not understood; names, . * + ? \\d ^ and $ are",
                   text, mark);
}

/* One atom at *at, without what repeats it; moves *at behind it. */
static err_t parse_atom(const char *text, const char **at, struct name_atom *out)
{
    char c = *(*at)++;
    *out = (struct name_atom){.kind = NAME_ATOM_CHARACTER, .character = c};
    if (c == '.') {
        out->kind = NAME_ATOM_ANY;
        return err_ok();
    }
    if (c == '\\') {
        c = **at;
        if (c == '\0' || (c != 'd' && !ispunct((unsigned char)c)))
            return unknown_syntax(text, '\\');
        (*at)++;
        out->kind = c == 'd' ? NAME_ATOM_DIGIT : NAME_ATOM_CHARACTER;
        out->character = c;
        return err_ok();
    }
    return strchr("()[]{}|*+?^$", c) ? unknown_syntax(text, c) : err_ok();
}

static err_t add_atom(const char *text, struct name_atom atom, struct name_pattern *out)
{
    if (out->n_atoms == NAME_PATTERN_ATOMS_MAX)
        return err_new(ERR_RESOURCE_EXHAUSTED, "the pattern \"%.100s\" has more than %d characters", text,
                       NAME_PATTERN_ATOMS_MAX);
    out->atoms[out->n_atoms++] = atom;
    return err_ok();
}

err_t name_pattern_parse(const char *text, struct name_pattern *out)
{
    *out = (struct name_pattern){0};
    const char *at = text + (text[0] == '^');
    while (*at != '\0') {
        if (at[0] == '$' && at[1] == '\0') {
            out->to_end = true;
            break;
        }
        struct name_atom atom;
        TRY(parse_atom(text, &at, &atom));
        if (*at == '+')
            TRY(add_atom(text, atom, out));
        atom.may_repeat = *at == '*' || *at == '+';
        atom.may_miss = atom.may_repeat || *at == '?';
        at += atom.may_miss;
        TRY(add_atom(text, atom, out));
    }
    return err_ok();
}

static bool atom_takes(const struct name_atom *atom, char c)
{
    switch (atom->kind) {
    case NAME_ATOM_ANY:
        return true;
    case NAME_ATOM_DIGIT:
        return c >= '0' && c <= '9';
    case NAME_ATOM_CHARACTER:
        break;
    }
    return atom->character == c;
}

/* States that are reached without a character: past atoms that may miss. */
static uint64_t skip_atoms(const struct name_pattern *pattern, uint64_t states)
{
    for (uint32_t i = 0; i < pattern->n_atoms; i++) {
        if (states >> i & 1 && pattern->atoms[i].may_miss)
            states |= UINT64_C(1) << (i + 1);
    }
    return states;
}

bool name_pattern_matches(const struct name_pattern *pattern, const char *name)
{
    const uint64_t accepted = UINT64_C(1) << pattern->n_atoms;
    uint64_t states = skip_atoms(pattern, 1);
    for (; *name != '\0' && states != 0; name++) {
        if (!pattern->to_end && states & accepted)
            return true;
        uint64_t next = 0;
        for (uint32_t i = 0; i < pattern->n_atoms; i++) {
            if (states >> i & 1 && atom_takes(&pattern->atoms[i], *name))
                next |= UINT64_C(1) << (i + !pattern->atoms[i].may_repeat);
        }
        states = skip_atoms(pattern, next);
    }
    return states & accepted;
}

bool name_has_components(const char *name, const char *part)
{
    size_t n = strlen(part);
    ASSERT(n > 0);
    for (const char *at = strstr(name, part); at; at = strstr(at + 1, part)) {
        if ((at == name || at[-1] == '.') && (at[n] == '\0' || at[n] == '.'))
            return true;
    }
    return false;
}
