#include "router/gate/rollout_state.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "base/new_file.h"
#include "router/gate/rollout.h"
#include "router/providers/json_text.h"

enum { STATE_VERSION = 1, STATE_BYTES_MAX = 4096, HASH_BYTES = 17 };

static int stage_of(const char *name)
{
    for (int i = 0; ROLLOUT_STAGE_NAMES[i]; i++) {
        if (strcmp(ROLLOUT_STAGE_NAMES[i], name) == 0)
            return i;
    }
    return -1;
}

static bool take_fields(json_t *root, struct rollout_state *out)
{
    const char *policy_id, *artefact, *from, *stage;
    int version, n_falls, end = 0;
    if (json_unpack(root, "{s:i, s:s, s:s, s:s, s:s, s:i}", "bantam_stage", &version, "policy_id", &policy_id,
                    "artefact", &artefact, "from", &from, "stage", &stage, "falls", &n_falls) != 0)
        return false;
    out->from = stage_of(from);
    out->stage = stage_of(stage);
    out->n_falls = (uint32_t)n_falls;
    if (version != STATE_VERSION || n_falls < 0 || out->from < 0 || out->stage < 0 ||
        strlen(policy_id) >= sizeof out->policy_id)
        return false;
    memcpy(out->policy_id, policy_id, strlen(policy_id) + 1);
    return strlen(artefact) == HASH_BYTES - 1 &&
           sscanf(artefact, "%16" SCNx64 "%n", &out->artefact_hash, &end) == 1 && end == HASH_BYTES - 1;
}

err_t rollout_state_parse(const char *text, size_t size, struct rollout_state *out)
{
    *out = (struct rollout_state){0};
    json_t *root = json_loadb(text, size, 0, NULL);
    bool good = root && take_fields(root, out);
    json_decref(root);
    return good ? err_ok() : err_new(ERR_INVALID_ARGUMENT, "it is not the stage of a policy");
}

err_t rollout_state_read(const char *path, struct rollout_state *out)
{
    char *text = NULL;
    size_t size;
    TRY(file_read(path, STATE_BYTES_MAX, &text, &size));
    err_t e = rollout_state_parse(text, size, out);
    mem_free(text);
    return e.code == ERR_OK ? e : err_prefix(e, "%s", path);
}

err_t rollout_state_write(const char *path, const struct rollout_state *state)
{
    char artefact[HASH_BYTES];
    struct new_file file;
    struct buffer text = {.limit_bytes = STATE_BYTES_MAX};
    (void)snprintf(artefact, sizeof artefact, "%016" PRIx64, state->artefact_hash);
    json_t *root = json_pack("{s:i, s:s, s:s, s:s, s:s, s:i}", "bantam_stage", STATE_VERSION, "policy_id",
                             state->policy_id, "artefact", artefact, "from", ROLLOUT_STAGE_NAMES[state->from],
                             "stage", ROLLOUT_STAGE_NAMES[state->stage], "falls", (int)state->n_falls);
    err_t e = root ? json_text_append(&text, root)
                   : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the stage of a policy");
    json_decref(root);
    if (e.code == ERR_OK) {
        e = new_file_open(path, &file);
        if (e.code == ERR_OK)
            e = new_file_write(&file, 0, text.data, text.size);
        if (e.code == ERR_OK)
            e = new_file_finish(&file);
        new_file_close(&file);
    }
    buffer_free(&text);
    return e;
}
