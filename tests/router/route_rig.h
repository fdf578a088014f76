/* A router in a test: fake engines, a provider that follows scripts, and one question at a time. */
#pragma once

#include "api/service.h"
#include "base/buffer.h"
#include "router/service/route_service.h"
#include "tests/router/script_server.h"

/* What a provider says, with {STEP_READ} before it. */
#define RIG_STREAM "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
#define RIG_TEXT(text)                                                                                       \
    "data: {\"model\": \"big-1\", \"choices\": [{\"index\": 0, \"delta\": {\"content\": \"" text "\"}}]}"    \
    "\n\n"
#define RIG_END                                                                                              \
    "data: {\"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"stop\"}], \"usage\":"           \
    " {\"prompt_tokens\": 1000, \"completion_tokens\": 100}}\n\ndata: [DONE]\n\n"

enum { RIG_HELD_BYTES = 1 << 18 }; /* that its requests may take together */

struct route_rig {
    struct script_server *server; /* NULL = none: connections are refused */
    struct route_service *router;
    struct service *service;
};

/* Tiers small (local/demo) and frontier (p/big at 1 $ and 10 $ a million tokens); more: further YAML; without
 * a gate in it the policy is followed. */
struct route_rig *rig_open(const struct script_step *const *scripts, size_t n_scripts, const char *more,
                           bool is_offline);
/* The same configuration with other keys, parsed. */
struct route_config *rig_config(const struct route_rig *rig, const char *more);
void rig_close(struct route_rig *rig); /* waits until nothing is in flight */

struct rig_question {
    const char *tenant, *route, *privacy, *text, *body; /* body: more keys of the JSON, ", \"n\": 2" */
    const char *max_cost;
};
/* Copies of what the events told. */
struct rig_answer {
    err_t error; /* submit's, or an end's */
    struct buffer text;
    enum finish_reason finish;
    uint32_t n_events, n_ends, n_last, n_ids, n_logprobs;
    char provider[64], model[64], reason[64], rule[64], cache[16], dropped[64];
    int64_t cost;
    uint32_t attempts;
    struct usage usage;
};
err_t rig_submit(struct route_rig *rig, const struct rig_question *question, struct stream **out);
/* Takes events until n_last, or until n_events were seen where that is not 0. */
void rig_read(struct route_rig *rig, struct stream *stream, struct rig_answer *answer, uint32_t n_events);
struct rig_answer rig_ask(struct route_rig *rig, const struct rig_question *question);
/* "Hi", whose deadline is so far off; on a busy machine it may have passed before an engine hears of it: then
 * once more, twice as far off. */
struct rig_answer rig_ask_until(struct route_rig *rig, int64_t time_ns);
void rig_forget(struct rig_answer *answer);
/* It is whole, with that text, of that provider. */
void rig_assert_answer(const struct rig_answer *answer, const char *text, const char *provider);
/* One that passes, of the policy that a configuration has and of an engine; takes the configuration. */
void rig_write_artefact(const char *path, struct route_config *config, const char *fingerprint);
/* Until every request is settled and gone; shadows are none of them. */
void rig_wait_idle(struct route_rig *rig);
