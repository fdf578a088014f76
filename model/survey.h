/* A model before anything large is allocated: its configuration, its weights by name, shape and format, and
 * the backends that will have them. What planning, loading and packing begin with. */
#pragma once

#include "base/error.h"
#include "kernels/kernels.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "model/model_config.h"
#include "model/packed_file.h"
#include "model/shard.h"
#include "model/weights.h"

struct survey {
    struct model_options options; /* with what a packed file has decided; device "auto": it is a GPU */
    struct model_config config;
    struct checkpoint *checkpoint; /* NULL = dummy weights, or packed ones */
    struct packed_file packed;     /* path NULL = none */
    uint32_t n_ranks;
    struct shard shards[MODEL_RANKS_MAX];
    struct weight_list lists[MODEL_RANKS_MAX];
    struct backend *backends[MODEL_RANKS_MAX]; /* NULL where somebody took it over */
};

/* Errors as of model_plan_memory. *out stays where it is until survey_free, which is called whatever this
 * returned: the lists point into it. */
err_t survey_open(const struct model_options *options, struct survey *out) ERR_MUST_CHECK;
void survey_free(struct survey *survey); /* zeroed memory is fine */
/* Logs what of the checkpoint is not used, and what of it is computed in plain numbers. */
void survey_warn(const struct survey *survey);
/* Over everything that decides the weights (fingerprint.h): a packed file's is that of its source. */
err_t survey_fingerprint(const struct survey *survey, uint64_t *out) ERR_MUST_CHECK;
