#include "proto/peer_names.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

void peer_names_add(struct peer_names *names, enum peer_name_kind kind, const char *data, size_t size)
{
    if (names->n < PEER_NAMES_MAX)
        names->names[names->n++] = (struct peer_name){kind, data, size};
}

static enum peer_name_kind kind_of_bare(const char *word)
{
    if (strstr(word, "://"))
        return PEER_NAME_URI;
    return strchr(word, '@') ? PEER_NAME_EMAIL : PEER_NAME_DNS;
}

err_t peer_name_parse(const char *word, struct peer_name_text *out)
{
    static const char *const prefixes[] = {
        [PEER_NAME_DNS] = "dns:", [PEER_NAME_URI] = "uri:", [PEER_NAME_EMAIL] = "email:"};
    const char *name = word;
    out->kind = kind_of_bare(word);
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (strncasecmp(word, prefixes[i], strlen(prefixes[i])) == 0) {
            out->kind = (enum peer_name_kind)i;
            name = word + strlen(prefixes[i]);
            break;
        }
    size_t size = strlen(name);
    if (size < 1 || size > PEER_NAME_BYTES_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "a certificate's name has 1 to %d bytes; \"%.64s\" has %zu",
                       PEER_NAME_BYTES_MAX, word, size);
    if (strchr(name, '*'))
        return err_new(ERR_INVALID_ARGUMENT,
                       "\"%.128s\": names of certificates are compared as they are and '*' is no pattern; "
                       "list each name",
                       word);
    for (size_t i = 0; i < size; i++)
        if (name[i] <= 0x20 || name[i] >= 0x7f)
            return err_new(ERR_INVALID_ARGUMENT, "\"%.64s\": a certificate's name is visible ASCII", word);
    memcpy(out->text, name, size + 1);
    return err_ok();
}

bool peer_name_matches(const struct peer_name_text *expected, const struct peer_name *name)
{
    if (expected->kind != name->kind || strlen(expected->text) != name->size)
        return false;
    return name->kind == PEER_NAME_DNS ? strncasecmp(expected->text, name->data, name->size) == 0
                                       : memcmp(expected->text, name->data, name->size) == 0;
}
