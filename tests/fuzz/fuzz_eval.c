/* Files of the gate as bytes: cases, logs that are replayed, artefacts, calibrations, golden reports. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/assert.h"
#include "router/gate/confidence_map.h"
#include "router/gate/eval_artefact.h"
#include "router/gate/rollout.h"
#include "router/gate/rollout_state.h"
#include "router/gate/eval_cases.h"
#include "router/gate/replay_cluster.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_cases(const char *text, size_t size)
{
    struct eval_cases cases;
    const struct eval_case_defaults defaults = {.max_tokens = 8};
    err_t e = eval_cases_parse("f", text, size, &defaults, &cases);
    ASSERT(e.code == ERR_OK ||
           (e.code == ERR_INVALID_ARGUMENT && strncmp(e.message, "f", 1) == 0 && cases.n == 0));
    for (size_t i = 0; i < cases.n; i++) {
        const struct eval_case *one = &cases.cases[i];
        ASSERT(one->id[0] && json_array_size(json_object_get(one->request, "messages")) > 0);
        if (one->check.kind != CHECK_NONE) {
            double score = eval_check_score(&one->check, one->check.expected, one->check.expected_bytes);
            ASSERT(score >= 0 && score <= 1);
            ASSERT(one->check.kind != CHECK_EXACT || score == 1);
            score = eval_check_score(&one->check, text, size);
            ASSERT(score >= 0 && score <= 1);
        }
    }
    if (e.code == ERR_OK)
        eval_cases_free(&cases);
}

static void check_log(const char *text, size_t size)
{
    struct replay_log log;
    static struct replay_clusters clusters;
    ASSERT(replay_log_parse(text, size, &log).code == ERR_OK);
    ASSERT(replay_clusters_make(&log, &clusters).code == ERR_OK);
    for (size_t i = 0; i < log.n; i++)
        ASSERT(clusters.of[i] < clusters.n && log.items[i].answer && log.items[i].cost >= -1);
    replay_clusters_free(&clusters);
    replay_log_free(&log);
}

static void check_stage(const char *text, size_t size)
{
    struct rollout_state state;
    if (rollout_state_parse(text, size, &state).code == ERR_OK)
        ASSERT(state.stage >= 0 && state.stage <= ROLLOUT_PROMOTED && state.from <= ROLLOUT_PROMOTED);
}

static void check_artefact(const char *text, size_t size)
{
    struct eval_artefact artefact, again;
    if (eval_artefact_parse(text, size, &artefact).code != ERR_OK)
        return;
    struct buffer written = {.limit_bytes = EVAL_ARTEFACT_BYTES_MAX};
    ASSERT(eval_artefact_write(&artefact, &written).code == ERR_OK);
    ASSERT(eval_artefact_parse(written.data, written.size, &again).code == ERR_OK);
    ASSERT(again.n_cases == artefact.n_cases && again.difference.low == artefact.difference.low);
    buffer_free(&written);
}

static void check_map(const char *text, size_t size)
{
    struct confidence_map map;
    if (confidence_map_parse(text, size, &map).code != ERR_OK)
        return;
    double before = 0;
    for (int step = 0; step <= 20; step++) {
        double wrong = confidence_map_wrong(&map, step / 20.0);
        ASSERT(wrong >= before - 1e-9 && wrong <= 1);
        before = wrong;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    double number;
    check_cases(text, size);
    check_log(text, size);
    check_stage(text, size);
    check_artefact(text, size);
    check_map(text, size);
    (void)eval_last_number(text, size, &number);
    return 0;
}
