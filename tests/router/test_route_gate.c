/* The gate in the router: what answers depends on the artefact, and on the engine that it is of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "router/service/route_internal.h"
#include "tests/router/fake_fleet.h"
#include "tests/router/route_rig.h"

#define QUICK "retries: {max: 3, backoff: 1ms}\n"

static const struct script_step ANSWERS[] = {
    {STEP_READ, NULL}, {STEP_SEND, RIG_STREAM RIG_TEXT("big one") RIG_END}, {STEP_END, NULL}};

static void assert_answered(struct route_rig *rig, const char *provider, const char *reason)
{
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){0});
    assert_int_equal(answer.error.code, ERR_OK);
    assert_string_equal(answer.provider, provider);
    assert_string_equal(answer.reason, reason);
    rig_forget(&answer);
}

static void an_artefact_opens_it(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS, ANSWERS};
    struct route_rig *rig = rig_open(scripts, 2, QUICK, false);
    char path[64] = "/tmp/test_route_gate.XXXXXX", gated[256];
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    fake_fleet_script("small one");
    snprintf(gated, sizeof gated,
             QUICK "gate: {stage: promoted, from: promoted, artefact: \"%s\", shadow_share: 0}\n", path);
    rig_write_artefact(path, rig_config(rig, QUICK), "another engine");
    assert_int_equal(route_service_reload(rig->router, rig_config(rig, gated)).code, ERR_OK);
    assert_answered(rig, "p", "baseline");
    rig_write_artefact(path, rig_config(rig, QUICK),
                       "0123456789abcdef"); /* what the fake engine says it is */
    assert_int_equal(route_service_reload(rig->router, rig_config(rig, gated)).code, ERR_OK);
    assert_answered(rig, "local", "default");
    rig_write_artefact(path, rig_config(rig, QUICK "difficulty: {at_least: 0.5, to: frontier}\n"),
                       "0123456789abcdef");
    assert_int_equal(route_service_reload(rig->router, rig_config(rig, gated)).code, ERR_OK);
    assert_answered(rig, "p", "baseline"); /* of another policy */
    unlink(path);
    rig_close(rig);
}

/* Live scores come in, as of shadows. */
static void assert_stage(struct route_rig *rig, enum rollout_stage stage, size_t n_scores, double score)
{
    struct route_snapshot *snapshot = route_snapshot_of(rig->router);
    for (size_t i = 0; i < n_scores; i++)
        rollout_score(snapshot_rollout(snapshot), score);
    assert_int_equal(rollout_stage_now(snapshot_rollout(snapshot)), stage);
    route_snapshot_unref(snapshot);
}

static void reload(struct route_rig *rig, const char *gated, const char *more)
{
    char text[512];
    (void)snprintf(text, sizeof text, "%s%s", gated, more);
    assert_int_equal(route_service_reload(rig->router, rig_config(rig, text)).code, ERR_OK);
}

static void live_scores_outlive_a_reload(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig = rig_open(scripts, 1, QUICK, false);
    char path[64] = "/tmp/test_route_gate.XXXXXX", gated[256], wider[256], lower[256];
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    fake_fleet_script("small one");
    const char *GATE =
        QUICK "gate: {stage: promoted, from: %s, share: 1, artefact: \"%s\", shadow_share: 0, window: %d}\n";
    (void)snprintf(gated, sizeof gated, GATE, "promoted", path, 10);
    (void)snprintf(wider, sizeof wider, GATE, "promoted", path, 11);
    (void)snprintf(lower, sizeof lower, GATE, "canary", path, 11);
    rig_write_artefact(path, rig_config(rig, QUICK), "0123456789abcdef");
    reload(rig, gated, "");
    assert_answered(rig, "local", "default"); /* and so the engine is known */
    assert_stage(rig, ROLLOUT_PROMOTED, 0, 0);
    assert_stage(rig, ROLLOUT_CANARY, 1, 0);
    reload(rig, gated, "");
    assert_stage(rig, ROLLOUT_CANARY, 9, 1);
    reload(rig, gated, "cache: {kind: memory}\nbudgets: [{tenant: t, per_day: 5}]\n");
    assert_stage(rig, ROLLOUT_PROMOTED, 1, 1); /* with the nine from before */
    assert_stage(rig, ROLLOUT_CANARY, 1, 0);
    reload(rig, wider, ""); /* new scores are asked for, and what has fallen stays */
    assert_answered(rig, "local", "default");
    assert_stage(rig, ROLLOUT_CANARY, 10, 1);
    assert_stage(rig, ROLLOUT_PROMOTED, 1, 1);
    assert_stage(rig, ROLLOUT_SHADOW, 2, 0);
    reload(rig, lower, ""); /* people have another word to say */
    assert_answered(rig, "local", "default");
    assert_stage(rig, ROLLOUT_CANARY, 0, 0);
    file = truncate(path, 0); /* nor does it hold for another artefact */
    assert_int_equal(file, 0);
    reload(rig, lower, "");
    assert_stage(rig, ROLLOUT_OBSERVE, 0, 0);
    unlink(path);
    (void)snprintf(gated, sizeof gated, "%s.stage", path);
    unlink(gated);
    rig_close(rig);
}

/* Whoever forgets the gate has not opened it. */
static void without_a_gate_it_only_observes(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig = rig_open(scripts, 1, QUICK "gate: {stage: observe}\n", false);
    fake_fleet_script("small one");
    assert_int_equal(route_service_reload(rig->router, rig_config(rig, QUICK "# gate: nothing\n")).code,
                     ERR_OK);
    assert_answered(rig, "p", "baseline");
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){.privacy = "local_only"});
    assert_string_equal(answer.provider, "local");
    rig_forget(&answer);
    assert_int_equal(route_service_reload(rig->router, rig_config(rig, QUICK "gate: off\n")).code, ERR_OK);
    assert_answered(rig, "local", "default");
    rig_close(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(an_artefact_opens_it),
                                       cmocka_unit_test(live_scores_outlive_a_reload),
                                       cmocka_unit_test(without_a_gate_it_only_observes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
