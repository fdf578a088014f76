/* Second answers through the real service: what they do to the gate, and that they do nothing to anybody
 * else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <sqlite3.h>
#include "base/event_count.h"
#include "router/service/route_shadow.h"
#include "tests/router/fake_fleet.h"
#include "tests/router/route_rig.h"

#define BIG                                                                                                  \
    {STEP_READ, NULL}, {STEP_SEND, RIG_STREAM RIG_TEXT("big one") RIG_END},                                  \
    {                                                                                                        \
        STEP_END, NULL                                                                                       \
    }
static const struct script_step ANSWERS[] = {BIG};
static const struct script_step ANSWERS_JSON[] = {
    {STEP_READ, NULL},
    {STEP_SEND, RIG_STREAM RIG_TEXT("{\\\"a\\\": 1, \\\"b\\\": 2}") RIG_END},
    {STEP_END, NULL}};
static const struct script_step HANGS[] = {
    {STEP_READ, NULL}, {STEP_SEND, RIG_STREAM}, {STEP_UNTIL_GONE, NULL}, {STEP_END, NULL}};

struct gated {
    struct route_rig *rig;
    char folder[64], artefact[96], ledger[96];
};

/* A router whose gate has a passing artefact; gate: its keys, more: the rest of the configuration. */
static struct gated open_gated(const struct script_step *const *scripts, size_t n_scripts, const char *gate,
                               const char *more)
{
    struct gated gated = {.folder = "/tmp/test_route_shadow.XXXXXX"};
    char yaml[1024];
    assert_non_null(mkdtemp(gated.folder));
    snprintf(gated.artefact, sizeof gated.artefact, "%s/eval.json", gated.folder);
    snprintf(gated.ledger, sizeof gated.ledger, "%s/book.db", gated.folder);
    snprintf(yaml, sizeof yaml,
             "ledger: {path: \"%s\"}\ngate: {artefact: \"%s\", window: 10, margin: 0.03, %s}\n%s",
             gated.ledger, gated.artefact, gate, more);
    gated.rig = rig_open(scripts, n_scripts, yaml, false);
    rig_write_artefact(gated.artefact, rig_config(gated.rig, yaml), "0123456789abcdef");
    assert_int_equal(route_service_reload(gated.rig->router, rig_config(gated.rig, yaml)).code, ERR_OK);
    return gated;
}

static bool has_line(struct route_rig *rig, const char *line)
{
    struct buffer text = {.limit_bytes = 1 << 20};
    assert_true(rig->service->vtable->metrics_text(rig->service, &text));
    assert_true(buffer_append(&text, "", 1));
    bool is_there = strstr(text.data, line) != NULL;
    buffer_free(&text);
    return is_there;
}

/* Until so many shadows came to that. */
static void wait_shadows(struct route_rig *rig, const char *outcome, uint32_t n)
{
    struct event_count *progress = rig->service->vtable->progress(rig->service);
    char line[128];
    snprintf(line, sizeof line, "\nbantam:router_shadows_total{outcome=\"%s\"} %u\n", outcome, n);
    for (;;) {
        uint32_t seen = event_count_read(progress);
        if (has_line(rig, line))
            return;
        event_count_wait(progress, seen, -1);
    }
}

static void assert_stage(struct route_rig *rig, const char *stage)
{
    char line[128];
    snprintf(line, sizeof line, "\nbantam:router_rollout_stage{stage=\"%s\"} 1\n", stage);
    assert_true(has_line(rig, line));
}

static void ask(struct route_rig *rig, const struct rig_question *question, const char *text,
                const char *provider)
{
    struct rig_answer answer = rig_ask(rig, question);
    assert_int_equal(answer.error.code, ERR_OK);
    assert_int_equal(answer.text.size, strlen(text));
    assert_memory_equal(answer.text.data, text, answer.text.size);
    assert_string_equal(answer.provider, provider);
    assert_int_equal(answer.attempts, 1);
    rig_forget(&answer);
}

/* Entries of the ledger with that reason. */
static int entries_of(const struct gated *gated, const char *reason)
{
    sqlite3 *file;
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_open_v2(gated->ledger, &file, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(
        sqlite3_prepare_v2(file, "SELECT count(*) FROM entries WHERE reason = ?", -1, &statement, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_bind_text(statement, 1, reason, -1, SQLITE_STATIC), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int n = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(file);
    return n;
}

/* Looks into the ledger when everything is settled. */
static void close_gated(struct gated *gated, int n_shadow_entries)
{
    char path[128];
    rig_close(gated->rig);
    assert_int_equal(entries_of(gated, "shadow"), n_shadow_entries);
    static const char *const ENDS[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s%s", gated->ledger, ENDS[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s.stage", gated->artefact);
    unlink(path);
    unlink(gated->artefact);
    rmdir(gated->folder);
}

static void what_disagrees_goes_back(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS, ANSWERS, ANSWERS};
    struct gated gated = open_gated(scripts, 3, "stage: canary, from: canary, share: 1, shadow_share: 1", "");
    fake_fleet_script("small one");
    ask(gated.rig, &(struct rig_question){0}, "small one", "local");
    wait_shadows(gated.rig, "scored", 1);
    assert_int_equal(fake_fleet_counts().priority, 0);
    assert_stage(gated.rig, "shadow");
    ask(gated.rig, &(struct rig_question){0}, "big one", "p");
    wait_shadows(gated.rig, "scored", 2);
    assert_int_equal(fake_fleet_counts().priority, REQUEST_PRIORITY_LIMIT);
    assert_stage(gated.rig, "observe");
    uint32_t started = fake_fleet_counts().started;
    ask(gated.rig, &(struct rig_question){0}, "big one", "p");
    rig_wait_idle(gated.rig);
    assert_int_equal(fake_fleet_counts().started, started);
    assert_true(has_line(gated.rig, "\nbantam:router_shadow_score_total 0.000000000\n"));
    assert_true(has_line(gated.rig, "\nbantam:router_answers_total{provider=\"local\",model=\"demo\"} 1\n"));
    assert_true(has_line(gated.rig, "\nbantam:router_answers_total{provider=\"p\",model=\"big\"} 2\n"));
    close_gated(&gated, 2);
}

static void what_agrees_stays(void **state)
{
    (void)state;
    enum { N = 12 };
    const struct script_step *scripts[N + 1];
    for (size_t i = 0; i < N; i++)
        scripts[i] = ANSWERS;
    scripts[N] = ANSWERS_JSON;
    struct gated gated = open_gated(scripts, N + 1, "stage: shadow, share: 1", "");
    fake_fleet_script("Big one.");
    for (uint32_t i = 0; i < N; i++) {
        ask(gated.rig, &(struct rig_question){0}, "big one", "p");
        wait_shadows(gated.rig, "scored", i + 1);
    }
    assert_stage(gated.rig, "shadow");
    assert_true(has_line(gated.rig, "\nbantam:router_shadow_score_total 12.000000000\n"));
    fake_fleet_script("{\"b\": 2, \"a\": 3}"); /* half of the fields */
    ask(gated.rig, &(struct rig_question){0}, "{\"a\": 1, \"b\": 2}", "p");
    wait_shadows(gated.rig, "scored", N + 1);
    assert_true(has_line(gated.rig, "\nbantam:router_shadow_score_total 12.500000000\n"));
    assert_stage(gated.rig, "observe");
    close_gated(&gated, N + 1);
}

static void what_is_not_open_is_asked_once(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS, ANSWERS, ANSWERS, ANSWERS};
    struct gated gated = open_gated(scripts, 4, "stage: shadow, share: 1, shadow_share: 1",
                                    "rules:\n  - {name: hr, when: {tenants: [hr]}, local_only: yes}\n"
                                    "cache: {kind: memory}\n");
    struct route_rig *rig = gated.rig;
    fake_fleet_script("small one");
    ask(rig, &(struct rig_question){.privacy = "local_only"}, "small one", "local");
    ask(rig, &(struct rig_question){.tenant = "hr"}, "small one", "local");
    ask(rig, &(struct rig_question){.route = "local"}, "small one", "local"); /* nor against a wish */
    rig_wait_idle(rig);
    assert_int_equal(script_server_connections(rig->server), 0);
    uint32_t started = fake_fleet_counts().started;
    ask(rig, &(struct rig_question){.max_cost = "0.5"}, "big one", "p");
    ask(rig,
        &(struct rig_question){
            .body = ", \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]"},
        "big one", "p");
    ask(rig, &(struct rig_question){.route = "frontier"}, "big one", "p");
    rig_wait_idle(rig);
    assert_int_equal(fake_fleet_counts().started, started);
    struct rig_question kept = {.body = ", \"temperature\": 0"};
    ask(rig, &kept, "big one", "p");
    wait_shadows(rig, "scored", 1);
    struct rig_answer answer = rig_ask(rig, &kept);
    assert_string_equal(answer.cache, "hit");
    rig_forget(&answer);
    rig_wait_idle(rig);
    assert_int_equal(fake_fleet_counts().started, started + 1);
    assert_int_equal(script_server_connections(rig->server), 4);
    close_gated(&gated, 1);
}

static void the_same_tier_is_not_asked_twice(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS, ANSWERS};
    struct gated gated =
        open_gated(scripts, 2, "stage: shadow, share: 1",
                   "rules:\n  - {name: vip, when: {tenants: [vip]}, to: frontier}\n"
                   "cascade: {tier: small, tokens: 2, within: 60s, escalate_over: 0.3, to: frontier}\n");
    ask(gated.rig, &(struct rig_question){.tenant = "vip"}, "big one", "p");
    wait_shadows(gated.rig, "same", 1);
    fake_fleet_script("??more");
    ask(gated.rig, &(struct rig_question){0}, "big one", "p");
    wait_shadows(gated.rig, "same", 2); /* the policy would have escalated */
    assert_int_equal(script_server_connections(gated.rig->server), 2);
    assert_true(has_line(gated.rig, "\nbantam:router_cascades_total{outcome=\"escalated\"} 0\n"));
    assert_stage(gated.rig, "shadow");
    close_gated(&gated, 1);
}

/* Two wait while the budget has room for one second answer. */
static void a_spent_budget_is_harmless(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {HANGS};
    struct gated gated = open_gated(scripts, 1, "stage: promoted, from: promoted, shadow_share: 1",
                                    "budgets: [{tenant: poor, per_day: 0.05}]\n");
    struct route_rig *rig = gated.rig;
    struct stream *streams[2];
    struct rig_question question = {.tenant = "poor"};
    fake_fleet_script("a@b");
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(rig_submit(rig, &question, &streams[i]).code, ERR_OK);
    fake_fleet_go();
    for (size_t i = 0; i < 2; i++) {
        struct rig_answer answer = {.text = {.limit_bytes = 1 << 10}};
        rig_read(rig, streams[i], &answer, 0);
        assert_int_equal(answer.error.code, ERR_OK);
        assert_int_equal(answer.text.size, 2);
        rig_forget(&answer);
        rig->service->vtable->stream_release(streams[i]);
    }
    wait_shadows(rig, "failed", 1);
    assert_stage(rig, "promoted");
    fake_fleet_script("ab");
    ask(rig, &question, "ab", "local");
    rig_wait_idle(rig);
    rig->service->vtable->drain(rig->service);
    wait_shadows(rig, "failed", 2); /* the other one, which hung */
    close_gated(&gated, 1);
}

static void they_are_few_and_end_with_the_router(void **state)
{
    (void)state;
    const struct script_step *scripts[SHADOWS_AT_ONCE_MAX + 1];
    for (size_t i = 0; i < SHADOWS_AT_ONCE_MAX + 1; i++)
        scripts[i] = ANSWERS;
    struct gated gated = open_gated(scripts, SHADOWS_AT_ONCE_MAX + 1, "stage: shadow, share: 1", "");
    uint32_t started = fake_fleet_counts().started, cancelled = fake_fleet_counts().cancelled;
    fake_fleet_script("#");
    for (int i = 0; i < SHADOWS_AT_ONCE_MAX + 1; i++)
        ask(gated.rig, &(struct rig_question){0}, "big one", "p");
    wait_shadows(gated.rig, "refused", 1);
    assert_int_equal(fake_fleet_counts().started, started + SHADOWS_AT_ONCE_MAX);
    rig_wait_idle(gated.rig); /* they are no requests under way */
    close_gated(&gated, SHADOWS_AT_ONCE_MAX);
    assert_int_equal(fake_fleet_counts().cancelled, cancelled + SHADOWS_AT_ONCE_MAX);
}

static void a_busy_engine_gets_none(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct gated gated = open_gated(scripts, 1, "stage: shadow, share: 1", "");
    uint32_t started = fake_fleet_counts().started;
    fake_fleet_waiting(1);
    ask(gated.rig, &(struct rig_question){0}, "big one", "p");
    wait_shadows(gated.rig, "refused", 1);
    fake_fleet_waiting(0);
    assert_int_equal(fake_fleet_counts().started, started);
    assert_stage(gated.rig, "shadow");
    close_gated(&gated, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_disagrees_goes_back),
        cmocka_unit_test(what_agrees_stays),
        cmocka_unit_test(what_is_not_open_is_asked_once),
        cmocka_unit_test(the_same_tier_is_not_asked_twice),
        cmocka_unit_test(a_spent_budget_is_harmless),
        cmocka_unit_test(they_are_few_and_end_with_the_router),
        cmocka_unit_test(a_busy_engine_gets_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
