/* What `bantam eval` found out about a policy, as a file that the gate reads: a policy is followed only with
 * one that passes. JSON, one object. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "router/gate/eval_stats.h"

enum {
    EVAL_ARTEFACT_VERSION = 1,
    EVAL_ARTEFACT_BYTES_MAX = 1 << 20,
    EVAL_ARTEFACT_CASES_MIN = 30, /* fewer show nothing */
    EVAL_ID_BYTES = 65,           /* of a fingerprint, NUL included */
};

struct eval_artefact {
    char policy_id[EVAL_ID_BYTES];   /* route_config.h */
    char fingerprint[EVAL_ID_BYTES]; /* of the local engine that was measured; "" = it had none */
    char cases_id[EVAL_ID_BYTES];    /* of the cases' content */
    uint64_t n_cases, n_cheap;       /* n_cheap: answered by the weak model */
    double quality, baseline_quality, strong_share;
    struct stat_interval difference;  /* policy's score - the baseline's */
    struct stat_interval false_cheap; /* of n_cheap */
    int64_t made_unix_s;
};

/* Appends it; RESOURCE_EXHAUSTED at the buffer's limit. */
err_t eval_artefact_write(const struct eval_artefact *artefact, struct buffer *out) ERR_MUST_CHECK;
/* INVALID_ARGUMENT names what is wrong with it. */
err_t eval_artefact_parse(const char *text, size_t text_bytes, struct eval_artefact *out) ERR_MUST_CHECK;
/* The same of a file; NOT_FOUND, IO. */
err_t eval_artefact_read(const char *path, struct eval_artefact *out) ERR_MUST_CHECK;

/* Does it let this policy over this engine answer? FAILED_PRECONDITION says why not. margin: that the policy
 * may be worse by; false_cheap: the most that the upper end of that rate's interval may be. */
err_t eval_artefact_check(const struct eval_artefact *artefact, const char *policy_id,
                          const char *fingerprint, double margin, double false_cheap) ERR_MUST_CHECK;
