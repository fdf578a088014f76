#include "router/gate/replay_cluster.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/hash.h"
#include "router/gate/eval_cases.h"

enum { SHINGLE_WORDS = 3 };

/* What is known of a group's first request. */
struct shape {
    uint64_t key; /* of system prompt, tools and schema; 0 = none of them: the hashes tell */
    uint32_t hashes[REPLAY_HASHES];
};

static const json_t *first_content(const json_t *request, const char *role, bool from_end)
{
    const json_t *messages = json_object_get(request, "messages");
    size_t n = json_array_size(messages);
    for (size_t i = 0; i < n; i++) {
        const json_t *message = json_array_get(messages, from_end ? n - 1 - i : i);
        const char *its = json_string_value(json_object_get(message, "role"));
        if (its != NULL && strcmp(its, role) == 0 && json_is_string(json_object_get(message, "content")))
            return json_object_get(message, "content");
    }
    return NULL;
}

static uint64_t add_text(uint64_t hash, const json_t *text)
{
    return hash64(json_string_value(text), json_string_length(text), hash);
}

static uint64_t key_of(const json_t *request)
{
    const json_t *system = first_content(request, "system", false),
                 *tools = json_object_get(request, "tools");
    if (system == NULL)
        system = first_content(request, "developer", false);
    uint64_t hash = system ? add_text(1, system) : 0;
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *name = json_object_get(json_object_get(json_array_get(tools, i), "function"), "name");
        hash = json_is_string(name) ? add_text(hash + 2, name) : hash;
    }
    char digits[17];
    const json_t *schema = json_object_get(json_object_get(request, "response_format"), "json_schema");
    if (json_is_object(schema) && eval_hash_json(schema, digits).code == ERR_OK)
        hash = hash64(digits, 16, hash + 3);
    return hash;
}

/* The next word, its digits as one sign each run: "INV-2041" is "inv-#". Returns its hash; 0 = no more. */
static uint64_t next_word(const char **at, const char *end)
{
    while (*at < end && isspace((unsigned char)**at))
        ++*at;
    uint64_t hash = 0;
    for (bool in_digits = false; *at < end && !isspace((unsigned char)**at); ++*at) {
        bool is_digit = isdigit((unsigned char)**at);
        char sign = is_digit ? '#' : (char)tolower((unsigned char)**at);
        if (!is_digit || !in_digits)
            hash = hash64(&sign, 1, hash + 1) | 1;
        in_digits = is_digit;
    }
    return hash;
}

static void hash_beginning(const json_t *text, uint32_t hashes[REPLAY_HASHES])
{
    const char *at = json_string_value(text), *end = at ? at + json_string_length(text) : NULL;
    uint64_t window[SHINGLE_WORDS] = {0}, word;
    memset(hashes, 0xff, REPLAY_HASHES * sizeof *hashes);
    for (size_t n = 0; at != NULL && n < REPLAY_WORDS && (word = next_word(&at, end)) != 0; n++) {
        memmove(window, window + 1, (SHINGLE_WORDS - 1) * sizeof *window);
        window[SHINGLE_WORDS - 1] = word;
        for (uint64_t h = 0; h < REPLAY_HASHES; h++) {
            uint32_t value = (uint32_t)hash64(window, sizeof window, h);
            hashes[h] = value < hashes[h] ? value : hashes[h];
        }
    }
}

static bool is_alike(const struct shape *a, const struct shape *b)
{
    if (a->key != 0 || b->key != 0)
        return a->key == b->key;
    size_t n_same = 0;
    for (size_t h = 0; h < REPLAY_HASHES; h++)
        n_same += a->hashes[h] == b->hashes[h];
    return n_same >= REPLAY_ALIKE;
}

/* The beginning of a text on one line, whole characters of it. */
static void name_after(const json_t *text, char name[REPLAY_CLUSTER_NAME_BYTES])
{
    const char *from = json_string_value(text);
    size_t n = 0, bytes = json_string_length(text);
    for (size_t i = 0; from != NULL && i < bytes && n + 1 < REPLAY_CLUSTER_NAME_BYTES; i++)
        if ((unsigned char)from[i] >= ' ' || from[i] == '\n')
            name[n++] = from[i] == '\n' ? ' ' : from[i];
    while (n > 0 && n + 1 == REPLAY_CLUSTER_NAME_BYTES && ((unsigned char)name[n - 1] & 0xc0) == 0x80)
        n--;
    if (n > 0 && (unsigned char)name[n - 1] >= 0xc0)
        n--;
    name[n] = '\0';
}

err_t replay_clusters_make(const struct replay_log *log, struct replay_clusters *out)
{
    memset(out, 0, sizeof *out);
    struct shape *shapes = mem_alloc_array(REPLAY_CLUSTERS_MAX, sizeof *shapes);
    out->of = mem_alloc_array(log->n + 1, sizeof *out->of);
    if (shapes == NULL || out->of == NULL) {
        mem_free(shapes);
        replay_clusters_free(out);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for groups of %zu requests", log->n);
    }
    for (size_t i = 0; i < log->n; i++) {
        const json_t *request = log->items[i].request, *user = first_content(request, "user", true);
        struct shape shape = {.key = key_of(request)};
        hash_beginning(user, shape.hashes);
        size_t group = 0;
        while (group < out->n && group < REPLAY_CLUSTERS_MAX - 1 && !is_alike(&shape, &shapes[group]))
            group++;
        if (group == out->n) {
            const json_t *system = first_content(request, "system", false);
            shapes[out->n] = shape;
            if (group == REPLAY_CLUSTERS_MAX - 1)
                (void)snprintf(out->names[group], REPLAY_CLUSTER_NAME_BYTES, "other");
            else
                name_after(system ? system : user, out->names[group]);
            out->n++;
        }
        out->of[i] = (uint32_t)group;
    }
    mem_free(shapes);
    return err_ok();
}

void replay_clusters_free(struct replay_clusters *clusters)
{
    mem_free(clusters->of);
    clusters->of = NULL;
    clusters->n = 0;
}
