/* Between the files of this room: one request on its way.
 *
 * Threads: submit, stream_next, cancel and release are called by doors; events come on the fleet's and the
 * egress thread; timers and what is slow run on the worker's. A request's lock is held by whoever changes it;
 * under it one may call the fleet, the egress, the worker, the ledger and the tables, which know nothing of
 * requests, but not response_cache_done, which calls other requests. Every thread that may still come holds a
 * reference; the last one posts the request's end to the worker, which frees it. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include "api/metrics.h"
#include "api/service.h"
#include "base/event_count.h"
#include "router/cache/answer_record.h"
#include "router/cache/response_cache.h"
#include "router/money/ledger.h"
#include "router/policy/cascade.h"
#include "router/providers/egress.h"
#include "router/providers/provider_call.h"
#include "router/providers/provider_request.h"
#include "router/service/answer_keep.h"
#include "router/service/answer_watch.h"
#include "router/service/event_copy.h"
#include "router/service/hedge_purse.h"
#include "router/service/route_metrics.h"
#include "router/service/route_question.h"
#include "router/service/route_service.h"
#include "router/service/route_snapshot.h"
#include "router/service/route_worker.h"

enum {
    STREAM_TABLE_SIZE = 4096,           /* a power of 2 */
    STREAM_EVENTS_MAX = 64,             /* in the queue, before who answers is held back */
    STREAM_QUEUE_BYTES_MAX = 256 << 10, /* likewise */
    STREAM_HELD_BYTES_MAX = 4 << 20,    /* of an answer that is held until it is whole */
    DECISION_ID_BYTES = 36,
    RETRY_WAIT_MS_MAX = 5000, /* a provider that wants more is left for another one */
    ATTEMPTS_MAX = 24,        /* calls for one request, whatever the configuration */
};
#define ROUTE_NS_PER_MS INT64_C(1000000)

struct route_service {
    struct service service; /* first */
    const struct clock *clock;
    bool is_offline;
    uint32_t max_requests;
    uint64_t max_held_bytes;
    struct event_count progress; /* of streams that nobody watches */
    struct event_count emptied;  /* no request is left */
    struct metrics metrics;
    struct route_metrics *route_metrics;
    struct upstream_table upstreams;
    struct route_worker *worker;
    struct egress *egress; /* NULL: offline */
    struct ledger *ledger;
    uint64_t id_salt;
    _Atomic uint64_t last_number, n_submitted, n_hedged;
    _Atomic int64_t reserved; /* nano-dollars, for calls under way */
    struct hedge_purse hedges;
    int64_t opened_ns;
    struct event_count classify_wake;
    _Atomic bool classify_ends;

    pthread_mutex_t lock; /* of what follows */
    struct route_snapshot *snapshot;
    struct stream *table[STREAM_TABLE_SIZE];
    uint32_t n_streams, n_shadows;   /* n_shadows: besides n_streams */
    uint64_t held_bytes;             /* that requests under way weigh, but for shadows */
    struct stream *shadows;          /* that are under way (route_shadow.h) */
    bool is_draining, classify_runs; /* classify_runs: the thread below is there */
    pthread_t classify_thread;
    struct info_node *infos; /* model_info's, the newest first */
    struct card_node *cards; /* names of models that were told */
};

struct card_node {
    struct card_node *next;
    char name[];
};

/* Set only by stream_set_timer. */
struct stream_timer {
    struct worker_timer timer; /* first */
    struct stream *stream;
    bool is_wanted; /* under the request's lock: when false, it fires for nothing */
    int64_t due_ns; /* likewise */
    void (*due)(struct stream *stream);
};

/* One call for a request: to an engine or to a provider. */
struct route_attempt {
    struct worker_job job; /* first: settles it */
    struct route_attempt *next;
    struct stream *stream;
    const struct route_upstream *upstream;
    struct provider_model model; /* the upstream's, with the limit that was reserved for */
    size_t tier;
    uint32_t number; /* of the request, from 1; 0 = the classifier's, which answers nobody */
    bool is_live, is_hedge, is_dropped; /* is_dropped: another one answers, or nobody wants it any more */
    bool is_paused, is_held;            /* is_held: for the cascade */
    uint64_t ticket;
    int64_t started_ns, first_event_ns;
    uint32_t n_live_at_start;

    uint64_t egress_number;
    struct local_call *call;
    const char *reason; /* static: why it went there */
    struct provider_dropped dropped;

    bool has_entry; /* in the ledger */
    int64_t entry;
    enum ledger_outcome outcome;
    nanodollars estimate, cost; /* cost: -1 = not known */
    nanodollars hedge_estimate; /* that it set aside of what second calls may cost */
    struct answer_usage usage;
};

enum stream_phase {
    STREAM_WAITING,     /* for another one's answer to the same question */
    STREAM_CLASSIFYING, /* for the classifier's, before the policy decides */
    STREAM_CALLING,     /* at least one attempt is live */
    STREAM_RESTING,     /* until the next one is due */
    STREAM_COMMITTED,   /* an answer goes on to the reader */
    STREAM_ENDED,       /* nothing follows in the queue */
};

struct stream {
    struct route_service *service;
    struct route_snapshot *snapshot;
    _Atomic uint32_t n_refs;
    struct worker_job end_job, free_job, classify_job;
    struct stream *next_in_table, *previous_in_table; /* under the service's lock */
    bool is_in_table;

    /* Fixed from submit on. */
    struct request *request;                   /* request_copy.h: without what is the router's */
    char tenant[REQUEST_TENANT_BYTES_MAX + 1]; /* "" = none */
    char decision_id[DECISION_ID_BYTES];
    uint32_t n_choices;
    int64_t submitted_ns, unix_ms;
    size_t weight_bytes; /* its own and its request's memory, about */
    size_t held_bytes;   /* of these, what the service counts */
    bool wants_whole, takes_ids_only, is_cascaded,
        is_checked; /* is_checked: held until it is whole and fits its schema */

    _Atomic uint32_t n_visible; /* events that the reader may take */

    pthread_mutex_t lock; /* of what follows */
    struct route_question question;
    enum stream_phase phase;
    struct local_call *classify_call; /* NULL = none is under way */
    struct route_attempt *attempts, *winner;
    /* n_live: under way, without those that were dropped */
    uint32_t n_attempts, n_live, tier_tries;
    uint32_t n_unsettled;  /* calls that are not in the ledger yet */
    bool line_is_due;      /* written by the last of them */
    size_t tier, position; /* position: of the next model in the tier */
    uint32_t failed_tiers; /* bits */
    const char *reason;    /* static */
    err_t last_error;
    uint64_t finished_choices;   /* bits */
    void (*wake)(void *context); /* the reader's, until it releases the stream; NULL = progress tells it */
    void *wake_context;
    bool is_watched;
    struct event_node *first, *last, *current; /* the queue; current: what the reader looks at */
    uint32_t n_queued;
    size_t queued_bytes;
    bool may_rest; /* the last failure may pass by itself */
    bool is_released, is_hidden, has_source, is_hedging, was_hedged, was_escalated;
    struct event_node *finals, *last_final; /* ends of choices, kept until the call's own end */
    struct event_node *spare;               /* an end for when there is no memory */
    struct stream_timer deadline, step, hedge;
    struct answer_watch watch; /* of an answer that is checked at its end */
    struct answer_keep keep;   /* of the answer, for the decision log */
    struct cascade_margins margins;
    double estimate; /* of the cascade; negative = not known */
    int64_t first_event_ns, ended_ns;

    /* Readers look at these strings without the lock: none changes once an event that points to it is
     * visible. The first event tells first_fingerprint, what was known then; ends tell fingerprint, which may
     * come with the call's end. */
    struct answer_source source;
    char provider_name[128], model_name[ANSWER_NAME_BYTES_MAX + 1], fingerprint[ANSWER_NAME_BYTES_MAX + 1],
        first_fingerprint[ANSWER_NAME_BYTES_MAX + 1];
    char *dropped;

    struct response_cache *cache; /* NULL: not asked */
    struct response_key key;
    const struct route_upstream *key_upstream; /* whose answer the key stands for */
    struct response_waiter waiter;
    bool is_leading, is_recording, is_waiting;
    struct answer_record record;
    struct answer_usage usage;
    err_t end_error; /* how it ended */
    enum finish_reason end_reason;

    bool is_shadow;              /* fixed: asked only to be compared */
    struct route_shadow *shadow; /* owned; NULL: it is not compared */
    struct stream *next_shadow;  /* under the service's lock */
    nanodollars cost;            /* -1 = not known */
};

/* route_stream.c: the queue and the life of a request. Functions named _locked want its lock. */
void stream_ref(struct stream *stream);
void stream_unref(struct stream *stream); /* never under its lock */
struct question_context stream_context(const struct stream *stream);
void stream_set_timer(struct stream *stream, struct stream_timer *timer, int64_t due_ns,
                      void (*due)(struct stream *stream));
void stream_unset_timer(struct stream *stream, struct stream_timer *timer);
/* Copies the event behind the others. False: no memory, and the request has ended with that. */
bool stream_push_locked(struct stream *stream, const struct event *event);
bool stream_is_full_locked(const struct stream *stream);
/* What is hidden goes on to the reader. */
void stream_show_locked(struct stream *stream);
/* What was held is thrown away. */
void stream_forget_held_locked(struct stream *stream);
/* Ends that were kept are thrown away: the answer is none. */
void stream_forget_finals_locked(struct stream *stream);
/* Keeps the end of a choice until the whole call has ended. */
bool stream_keep_final_locked(struct stream *stream, const struct event *event);
/* Gives out the ends of all choices; error: why, when it is one. */
void stream_finish_locked(struct stream *stream);
void stream_fail_locked(struct stream *stream, err_t error, enum finish_reason reason);
/* By its id, and with its weight. RESOURCE_EXHAUSTED: all together weigh too much. */
err_t stream_enter_table(struct stream *stream) ERR_MUST_CHECK;
void stream_leave_table(struct stream *stream);
bool stream_next_event(struct stream *stream, struct event *out);
void stream_watch_events(struct stream *stream, void (*wake)(void *context), void *context);
void stream_cancel_request(struct stream *stream);
void stream_release_request(struct stream *stream);
const char *stream_id(const struct stream *stream);
bool route_abort(struct service *service, const char *tenant, const char *request_id);

/* route_submit.c */
err_t route_submit(struct service *service, const struct request *request,
                   struct stream **out) ERR_MUST_CHECK;
/* All is known that the policy may ask for: it decides, and the first call begins. */
void route_decide_locked(struct stream *stream);
/* original: of whose answer this is the shadow; NULL = a request of its own. Of what *out holds the caller
 * has the reference, on an error too. RESOURCE_EXHAUSTED: so many run already; UNAVAILABLE: it drains. */
err_t route_make_stream(struct route_service *service, const struct request *request,
                        const struct stream *original, struct stream **out) ERR_MUST_CHECK;
/* Decides whether the answer is held: for the cascade, or to be checked. */
err_t route_prepare_holding(struct stream *stream) ERR_MUST_CHECK;

/* route_classify.c */
/* Could a verdict change where the decided question goes? False without a classifier. */
bool route_classify_matters(const struct route_snapshot *snapshot, const struct route_question *question);
/* Asks where that matters and can be; route_decide_locked follows on the worker. False: it does not. */
bool route_classify_locked(struct stream *stream);
void route_classify_drop_locked(struct stream *stream);
/* There is another configuration: its classifier, where it has one, learns its labels on a thread of its own.
 */
void route_classify_watch(struct route_service *service);
void route_classify_stop(struct route_service *service);

/* route_attempts.c: who is asked next. */
/* Why there was no ticket to ask it. */
err_t route_left_alone(struct route_service *service, const struct route_upstream *upstream);
void route_begin_locked(struct stream *stream);
/* An event of the answer. False: no more for now. */
bool route_take_locked(struct route_attempt *attempt, const struct event *event);
/* The call has ended. */
struct attempt_end {
    err_t error;
    bool may_retry, is_its_fault;
    int64_t first_token_ns, whole_ns; /* durations; -1 */
};
void route_ended_locked(struct route_attempt *attempt, const struct attempt_end *end);
void route_drop_live_locked(struct stream *stream, const struct route_attempt *but);
void route_resume_locked(struct stream *stream);

/* route_local.c, route_provider.c: the attempt is in the request's list; on an error nobody was asked. */
err_t route_local_start(struct route_attempt *attempt) ERR_MUST_CHECK;
err_t route_provider_start(struct route_attempt *attempt) ERR_MUST_CHECK;
void attempt_cancel(struct route_attempt *attempt);
/* What a provider's call used and costs. */
void route_take_result(struct route_attempt *attempt, const struct provider_result *result);
/* One piece as an event; an end of a choice is none. False for that. */
bool event_of_piece(const struct answer_piece *piece, struct tool_call *call, struct event *out);
enum finish_reason finish_of_answer(enum answer_finish finish);
struct usage usage_of_answer(const struct answer_usage *usage);

/* route_money.c */
/* Sets the attempt's estimate aside. */
err_t route_reserve(struct route_attempt *attempt) ERR_MUST_CHECK;
/* Nobody was asked after all. */
void route_unreserve(struct route_attempt *attempt);
/* Posts what the attempt came to; takes over a reference of the request. */
void route_settle(struct route_attempt *attempt);
nanodollars route_local_cost(const struct route_attempt *attempt, int64_t whole_ns);
/* What the request cost as far as it is known; -1. */
nanodollars route_cost_locked(const struct stream *stream);
/* The same as the ledger has it once every call is settled. */
nanodollars route_booked_locked(const struct stream *stream, bool *is_estimate);
/* A call is over: what it cost is counted. */
void route_count_spent(const struct route_attempt *attempt);
/* What it would have cost at the last tier's first model; -1 = not known. */
nanodollars route_frontier_cost(const struct stream *stream);

/* route_cache.c */
enum route_cache_turn { ROUTE_CACHE_ANSWERED, ROUTE_CACHE_WAITS, ROUTE_CACHE_GOES_ON };
enum route_cache_turn route_cache_ask_locked(struct stream *stream);
void route_cache_record_locked(struct stream *stream, const struct event *event);
/* What was recorded is no answer after all: another one begins. */
void route_cache_restart_record_locked(struct stream *stream);
/* Closes the record of an answer that is whole. */
void route_cache_close_record_locked(struct stream *stream);
/* On the worker, without the lock: the answer is kept, and who waits for it is told. */
void route_cache_done(struct stream *stream);

/* route_end.c: what is written of a request that has ended, on the worker. */
void route_post_end_locked(struct stream *stream);
/* On the worker: one of its calls is in the ledger. The last one writes the line, if the request has ended.
 */
void route_settled(struct stream *stream);
void route_log_refusal(struct stream *stream, const err_t *error);

/* route_models.c */
void route_loads(struct service *service, struct loads *out);
const struct model_info *route_model_info(struct service *service);
bool route_model_card(struct service *service, size_t i, struct model_card *out);
void route_models_free(struct route_service *service);
err_t route_tokenize(struct service *service, const struct request *request, uint32_t **ids,
                     size_t *n_ids) ERR_MUST_CHECK;
err_t route_detokenize(struct service *service, const uint32_t *ids, size_t n_ids, bool skip_special_tokens,
                       struct buffer *text) ERR_MUST_CHECK;
/* What is set aside for calls under way, of all tenants. */
nanodollars route_reserved(struct route_service *service);
struct route_snapshot *route_snapshot_of(struct route_service *service);
int64_t route_unix_ms(void *ignored);
