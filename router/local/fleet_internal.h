/* What the files of the fleet share. One thread, the fleet's, drives all clients and changes what is here;
 * what other threads read stands under `mutex`, which that thread takes to change it. No handler is called
 * with the mutex held. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include "clients/c/bantam_client.h"
#include "router/local/local_fleet.h"
#include "router/local/local_salt.h"
#include "router/local/prefix_memory.h"
#include "router/local/replica_pick.h"
#include "router/local/replica_target.h"
#include "router/providers/circuit_breaker.h"

enum {
    FLEET_PREFIXES_MAX = 8192,    /* chunks that are remembered of a model */
    FLEET_INFOS_MAX = 256,        /* models that differ, over the fleet's life */
    FLEET_ATTEMPTS_MAX = 5,       /* of a call before something of its answer was given */
    FLEET_HANDOVERS_MAX = 8,      /* of a call */
    FLEET_HANDOVER_WAITS_MAX = 6, /* for a replica that takes it, in a row */
};
#define FLEET_HANDOVER_WAIT_NS INT64_C(50000000)  /* the first; each is twice the one before */
#define FLEET_SHUN_NS          INT64_C(200000000) /* after a replica refused as unavailable */
#define FLEET_TICK_NS          INT64_C(250000000) /* at least so often everything is looked at */
#define FLEET_INFO_RETRY_NS    INT64_C(500000000)
#define FLEET_INFO_TIMEOUT_NS  INT64_C(5000000000)
#define FLEET_SILENCE_NS       INT64_C(5000000000) /* no report for so long, and 20 of them missed: down */
#define FLEET_HUNG_NS          INT64_C(2000000000) /* a loop without a heartbeat */

/* Left by any thread for the fleet's. */
struct fleet_errand {
    struct fleet_errand *next;
    void (*run)(struct fleet_errand *errand);
    bool is_queued; /* under the inbox's mutex, as the list */
};

struct info_record {
    struct info_record *next;
    struct model_info info; /* strings of its own */
};

struct replica {
    struct local_fleet *fleet;
    struct fleet_model *model;
    uint32_t slot;
    char address[REPLICA_ADDRESS_BYTES];
    struct bantam_client *client;
    struct bantam_watch *watch;
    bool is_leaving;  /* its name has it no longer: it gets nothing new, and is closed when it is idle */
    uint32_t n_calls; /* whose handlers name it */
    uint64_t n_reports;
    bool is_reachable, has_fresh_info, is_asking_info, is_up;
    bool told_wrong_key; /* a warning was written; until it is heard again */
    bool told_wrong_model;
    int64_t ask_info_ns, shunned_until_ns;
    const struct info_record *info; /* NULL = not known yet */
    struct circuit_breaker breaker;
    struct replica_state state;
};

struct fleet_model {
    struct local_fleet *fleet;
    const struct local_model_options *options;
    struct replica *replicas[LOCAL_REPLICAS_MAX]; /* by slot; NULL = free */
    struct prefix_memory *memory;
    const struct info_record *info; /* of the latest to connect; NULL = none yet */
    /* The resolver's, under its mutex. */
    struct replica_target *targets;     /* [options->n_targets] */
    struct replica_addresses *resolved; /* [options->n_targets] n = 0: nothing known yet */
    bool *is_failing;                   /* [options->n_targets] it was told that it cannot be looked up */
};

struct local_fleet {
    struct local_fleet_options options;
    struct bantam_group *group;
    struct fleet_model *models; /* [options.n_models] */
    pthread_t thread, resolver;
    bool has_thread, has_resolver;
    struct rng rng;
    uint64_t salt_key[LOCAL_SALT_DRAWN_KEY_BYTES / sizeof(uint64_t)]; /* of models that have none */
    pthread_mutex_t mutex;

    pthread_mutex_t inbox_mutex;
    struct fleet_errand *inbox_first, *inbox_last;
    atomic_bool is_waiting, is_closing;

    pthread_mutex_t resolver_mutex;
    pthread_cond_t resolver_wake;
    bool resolver_ends;
    atomic_bool has_resolved;

    /* The fleet's thread alone. */
    struct info_record *infos;
    uint32_t n_infos;
    struct local_call *calls;
    uint32_t n_waiting; /* calls between two attempts */
    uint32_t n_asks;
    bool has_changed;
};

static inline int64_t fleet_now_ns(const struct local_fleet *fleet)
{
    return clock_now_ns(fleet->options.clock);
}

/* local_fleet.c. Any thread. CLOSED: the fleet is closing, and the errand will not run. */
enum fleet_sent { ERRAND_SENT, ERRAND_WAS_THERE, ERRAND_CLOSED };
enum fleet_sent fleet_send(struct local_fleet *fleet, struct fleet_errand *errand);
/* UNAVAILABLE when no replica is up, NOT_FOUND when there is no such model. Any thread. */
err_t fleet_check_up(struct local_fleet *fleet, size_t model) ERR_MUST_CHECK;

/* fleet_resolver.c */
err_t resolver_start(struct local_fleet *fleet) ERR_MUST_CHECK;
void resolver_stop(struct local_fleet *fleet);

/* fleet_replicas.c, on the fleet's thread. */
void replicas_follow_names(struct fleet_model *model);
void replicas_look(struct fleet_model *model);
void replicas_close(struct fleet_model *model);

/* What a request that was sent counts as, until its end. */
struct replica_ticket {
    uint64_t breaker;
    struct sent_request sent;
};
/* The replica that gets the request next, which counts there from now on; NULL = nobody takes it. excluded:
 * a bit a slot. fingerprint: those that have it come first; "" = no matter. */
struct replica *replica_take(struct fleet_model *model, const struct request *request, uint64_t excluded,
                             const char *fingerprint, struct replica_ticket *ticket);
void replica_first_token(struct replica *replica, struct replica_ticket *ticket);
void replica_learn(struct replica *replica, const struct event *finished);
/* The call is over; the replica may be gone soon after. error: as the server had it. is_cancelled: by us. */
void replica_give_back(struct replica *replica, struct replica_ticket *ticket, const err_t *error,
                       bool is_cancelled);
/* Any one that is up, but for those of `excluded`, without a request; NULL = nobody. Its n_calls counts one
 * more. */
struct replica *replica_any(struct fleet_model *model, uint64_t excluded);
bool error_is_engines_fault(enum err_code code);

/* fleet_views.c. Under the mutex. states: [LOCAL_REPLICAS_MAX] by slot. */
void fleet_fill_states(const struct fleet_model *model, const struct prefix_chain *chain, uint64_t excluded,
                       struct replica_state *states);

/* local_call.c, on the fleet's thread. */
void calls_run_due(struct local_fleet *fleet, int64_t *next_ns);
void calls_cancel_all(struct local_fleet *fleet);
