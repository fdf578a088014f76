/* The stage that a policy has come to, kept in a file over starts of the router. One writer. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "router/gate/eval_artefact.h"

struct rollout_state {
    char policy_id[EVAL_ID_BYTES];
    uint64_t artefact_hash; /* of the artefact by which it began */
    int from, stage;        /* enum rollout_stage */
    uint32_t n_falls;
};

/* INVALID_ARGUMENT for what is no such file. */
err_t rollout_state_parse(const char *text, size_t size, struct rollout_state *out) ERR_MUST_CHECK;
/* NOT_FOUND, IO, or as above. */
err_t rollout_state_read(const char *path, struct rollout_state *out) ERR_MUST_CHECK;
/* Whole or not at all. */
err_t rollout_state_write(const char *path, const struct rollout_state *state) ERR_MUST_CHECK;
