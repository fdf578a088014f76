/* The engines beside the router: for each local model of the configuration one or many replicas, found by
 * name, their loads subscribed to, and every request sent where its first token is expected soonest: from the
 * queue, the KV cache and what the replica's prefix cache is believed to hold, so that a shared prefix stays
 * where it is warm, and without all of them running to the one that looked idle last.
 *
 * One thread drives the clients (clients/c) of all replicas; handlers are called there. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/event.h"
#include "api/request.h"
#include "api/service.h"
#include "base/clock.h"
#include "base/error.h"
#include "router/config/yaml_fields.h"
#include "router/local/replica_target.h"

enum {
    LOCAL_MODELS_MAX = 16,
    LOCAL_TARGETS_MAX = 64,  /* of one model, in the configuration */
    LOCAL_REPLICAS_MAX = 64, /* of one model, after names are resolved */
};

/* A local model, as the configuration has it. Strings belong to the file.
 *
 *   local:
 *     - name: demo                          # "local/demo" in tiers
 *       targets: ["127.0.0.1:50051", "dns:///engines.svc:50051"]   # replica_target.h
 *       model: tickets                      # what the engine calls it; its own when this is missing
 *       tls: {ca_file: ca.pem, cert_file: router.pem, key_file: router.key, server_name: engines.svc}
 *       key_env: BANTAM_KEY                 # or key_file: PATH
 *       cost: {per_hour: 0.40}              # or {watts: 65, per_kwh: 0.30}: of one replica
 *       salt: {key_file: salt.key}          # or {key_env: NAME}: routers with one key share warm prefixes
 */
struct local_model_options {
    const char *name;
    const char *model; /* NULL = the engine's own */
    const char *const *targets;
    size_t n_targets;
    bool tls; /* `tls: {}` is enough: the system's authorities */
    const char *ca_file, *cert_file, *key_file, *server_name;
    const char *api_key; /* an admin's where the engine knows tenants: others hear no loads, send no salts */
    const char
        *salt_key; /* of the tenants' salts (local_salt.h); NULL = the fleet's, drawn when it is opened */
    int64_t nanodollars_per_hour; /* of one replica while it computes; 0 = free */
};

struct local_fleet_options {
    const struct local_model_options *models; /* [n_models]; strings must outlive the fleet */
    size_t n_models;
    uint32_t loads_interval_ms;  /* between two reports of a replica */
    int64_t resolve_interval_ns; /* names are looked up again so often */
    const struct clock *clock;
    uint64_t seed; /* of choices between equals, and of seeds for requests that have none; 0 = the system's */
    /* Instead of the system's resolver (replica_target_resolve), on a thread of the fleet's. NULL = that. */
    err_t (*resolve)(void *context, const struct replica_target *target, struct replica_addresses *out);
    void *resolve_context;
    /* The fleet's thread: something became up or down, or its model is known now. May be NULL. */
    void (*changed)(void *context);
    void *context;
};

/* The list under `local:`; allocated, freed with local_models_free. INVALID_ARGUMENT names line and field. */
err_t local_models_read(const struct yaml_value *value, char *(*environment)(const char *name),
                        struct local_model_options **out, size_t *n) ERR_MUST_CHECK;
void local_models_free(struct local_model_options *models, size_t n); /* keys are wiped */

struct local_fleet;

/* Begins to connect and returns at once: engines may come later. */
err_t local_fleet_open(const struct local_fleet_options *options, struct local_fleet **out) ERR_MUST_CHECK;
/* Calls under way end with CANCELLED before it returns. NULL is fine. */
void local_fleet_close(struct local_fleet *fleet);

/* Any thread: a moment's view of a model. */
struct local_view {
    uint32_t n_replicas, n_up;
    int64_t predicted_ttft_ns; /* of the replica that a request without a known prefix would go to; -1 = not
                                  known */
    bool has_info;             /* below is what a replica said of itself, the latest to connect */
    struct model_info info;    /* strings live as long as the fleet */
    struct loads loads;        /* summed over the replicas that are up */
    bool fingerprints_differ;  /* between replicas that are up: a rolling update is under way */
};
bool local_fleet_view(struct local_fleet *fleet, size_t model,
                      struct local_view *out); /* false: no such model */
bool local_fleet_find(const struct local_fleet *fleet, const char *name, size_t *model);
/* The first token expected of this request, whose prefix's warmth is taken into account; -1 = not known. Any
 * thread. */
int64_t local_fleet_predict_ttft_ns(struct local_fleet *fleet, size_t model, const struct request *request);

/* How a call went. Strings live until end returns. */
struct local_result {
    err_t error;         /* OK: every choice has finished */
    bool may_retry;      /* nothing of the answer was given, and another try or another place may do better */
    bool has_events;     /* something of the answer was given */
    bool is_its_fault;   /* the engine's: not the request's, nor ours */
    const char *replica; /* "10.0.0.1:50051"; "" = nobody took it */
    const char *fingerprint;                      /* of what answered */
    uint32_t attempts;                            /* tries, replays included */
    uint32_t n_handovers;                         /* times that another replica went on where one had died */
    int64_t started_ns, first_token_ns, ended_ns; /* fleet's clock; 0 = it did not come to that */
};

/* On the fleet's thread. */
struct local_handler {
    /* False: no more until local_call_resume. */
    bool (*event)(void *context, const struct event *event);
    void (*end)(void *context, const struct local_result *result); /* the last call, exactly once */
};

struct local_call;

/* Any thread. Copies the request. A replica that dies mid-stream is followed by another one through token
 * replay (output_prefix_ids; the seed is fixed at the start where the request has none), without a gap or a
 * duplicate; where that cannot be (n > 1, logprobs of the prompt), the call ends with UNAVAILABLE. headers of
 * the client's tenant and so on are the fleet's business. RESOURCE_EXHAUSTED, UNAVAILABLE: no replica is up.
 */
err_t local_call_start(struct local_fleet *fleet, size_t model, const struct request *request,
                       const struct local_handler *handler, void *context,
                       struct local_call **out) ERR_MUST_CHECK;
void local_call_cancel(struct local_call *call);  /* any thread, any state */
void local_call_resume(struct local_call *call);  /* any thread */
void local_call_release(struct local_call *call); /* the caller's last use; NULL is fine */

/* Any thread; waits for an engine's answer up to timeout_ns. As service.h's. */
err_t local_fleet_tokenize(struct local_fleet *fleet, size_t model, const struct request *request,
                           int64_t timeout_ns, uint32_t **ids, size_t *n_ids) ERR_MUST_CHECK;
err_t local_fleet_detokenize(struct local_fleet *fleet, size_t model, const uint32_t *ids, size_t n_ids,
                             bool skip_special_tokens, int64_t timeout_ns,
                             struct buffer *text) ERR_MUST_CHECK;
