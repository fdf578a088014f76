/* Requests that are alike, grouped without a model: the same log gives the same groups.
 *
 * Requests with the same system prompt, tools and schema are one group. Among those that have none of these,
 * a request joins the first group whose first one begins much as it does: three words in a row (digits as one
 * sign) are a shingle, REPLAY_WORDS of the last user message's first words are looked at, MinHash estimates
 * which share of all shingles both have, and REPLAY_ALIKE of the hashes must be the same (Broder, 1997).
 * After REPLAY_CLUSTERS_MAX - 1 groups all that is new is in one more, "other". */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "router/gate/replay_log.h"

enum {
    REPLAY_CLUSTERS_MAX = 256,
    REPLAY_HASHES = 64,
    REPLAY_ALIKE = 20,
    REPLAY_WORDS = 14,
    REPLAY_CLUSTER_NAME_BYTES = 49
};

struct replay_clusters {
    uint32_t *of; /* [n of the log] owned: each request's group */
    size_t n;     /* groups, in the order of their first requests */
    char names[REPLAY_CLUSTERS_MAX]
              [REPLAY_CLUSTER_NAME_BYTES]; /* how its first system prompt or request begins */
};

err_t replay_clusters_make(const struct replay_log *log, struct replay_clusters *out) ERR_MUST_CHECK;
void replay_clusters_free(struct replay_clusters *clusters);
