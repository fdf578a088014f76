/* What the door's files share. */
#pragma once

#include <stdatomic.h>
#include "base/clock.h"
#include "proto/door_codec.h"
#include "proto/grpc_door.h"
#include "proto/flusher.h"
#include "proto/grpc_server.h"
#include "proto/orca_report.h"
#include "proto/tokenizer_archive.h"
#include "proto/whole_answer.h"

#define HEALTH_WATCH_INTERVAL_NS INT64_C(100000000)

/* Looks after messages that their clients do not take. */
struct door_sweep {
    struct flush_item flush;
    struct grpc_door *door;
};

struct grpc_door {
    struct service *service;
    struct grpc_door_options options;
    struct clock clock; /* the service's */
    struct rpc_server *server;
    struct flusher *flusher;
    struct event_count woken; /* the flusher's, where streams are watched: progress says nothing of them */
    struct metrics *metrics;  /* the service's */
    struct load_meter load_meter;
    int64_t opened_ns;
    _Atomic uint32_t n_active;      /* generations */
    _Atomic bool draining, closing; /* closing: whatever is pumped ends */
    struct event_count *_Atomic idle;
    _Atomic int64_t last_generate_unix_s; /* 0 = none yet */
    struct tokenizer_store tokenizer;
    struct door_sweep sweep;
};

/* The user pointer of a streaming call: the head of each kind's struct, freed by `destroy` with the call. */
struct door_item {
    struct flush_item flush;
    struct grpc_door *door;
    struct rpc_call *call;
    void (*destroy)(struct door_item *item);
};

/* Fills the head of a zeroed item. */
void door_item_fill(struct door_item *item, struct grpc_door *door, struct rpc_call *call,
                    enum pump_result (*pump)(struct flush_item *item),
                    void (*destroy)(struct door_item *item));
/* For flush_item_watch. */
void door_item_hold(struct flush_item *flush);
/* Gives it to its call, pumps it and leaves it to the flusher. */
void door_item_add(struct door_item *item, int64_t interval_ns);
/* Fills and adds. */
void door_item_start(struct door_item *item, struct grpc_door *door, struct rpc_call *call,
                     enum pump_result (*pump)(struct flush_item *item), int64_t interval_ns,
                     void (*destroy)(struct door_item *item));

/* A stream with a message now and then, until its client or the door ends it; freed with the call. */
struct door_watch {
    struct door_item item;
    int64_t due_ns, interval_ns;            /* of the next message; between two */
    bool (*send)(struct door_watch *watch); /* makes and sends one; false: not now */
};

/* Refuses for e, what decoding the request gave, or starts a watch. */
void door_watch_start(struct grpc_door *door, struct rpc_call *call, err_t e, int64_t interval_ms,
                      bool (*send)(struct door_watch *watch));

/* Refuses for e, or answers with bytes; no data = no memory. */
void door_answer(struct rpc_call *call, const err_t *e, struct codec_bytes bytes);
/* The loop lives, nothing is lost and nothing drains. *why (static): what is wrong otherwise. */
bool door_is_serving(struct grpc_door *door, const char **why);

/* Handlers (context: the door; data of the method: its door_codec). */
void door_generate(void *context, struct rpc_call *call);
void door_generate_whole(void *context, struct rpc_call *call);
void door_watch_loads(void *context, struct rpc_call *call);
void door_tokenize(void *context, struct rpc_call *call);
void door_detokenize(void *context, struct rpc_call *call);
void door_abort(void *context, struct rpc_call *call);
void door_model_info(void *context, struct rpc_call *call);
void door_server_info(void *context, struct rpc_call *call);
void door_get_loads(void *context, struct rpc_call *call);
void door_health_check(void *context, struct rpc_call *call);
void door_health_list(void *context, struct rpc_call *call);
void door_health_watch(void *context, struct rpc_call *call);
void door_stream_core_metrics(void *context, struct rpc_call *call);

/* orca_calls.c: what every answer says of the load and of what answered. */
void door_add_trailers(void *context, struct rpc_call *call, grpc_status_code status);
void door_get_schema(void *context, struct rpc_call *call);
void door_subscribe_kv(void *context, struct rpc_call *call);

/* protobuf alone. */
void door_health_answer(void *context, struct rpc_call *call);
void door_get_tokenizer(void *context, struct rpc_call *call);
void door_unimplemented(void *context, struct rpc_call *call); /* data: why, a text */

/* grpc.reflection, of either version. */
void door_reflect(void *context, struct rpc_call *call);
void door_reflect_received(struct grpc_door *door, struct rpc_call *call);
