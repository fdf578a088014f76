/* What the HTTP door's files share. */
#pragma once

#include <stdatomic.h>
#include "base/event_count.h"
#include "proto/codec_openai.h"
#include "proto/http_door.h"
#include "proto/http_server.h"
#include "proto/orca_report.h"

struct http_door {
    struct service *service;
    struct http_door_options options;
    struct http_server *server;
    struct metrics *metrics; /* the service's */
    struct load_meter load_meter;
    int64_t opened_unix_s;
    _Atomic uint32_t n_active;                 /* generations */
    _Atomic bool not_ready, draining, closing; /* draining: refuses; closing: whatever is pumped ends */
    struct event_count *_Atomic idle;
};

#define HTTP_JSON "application/json"

/* Opens the transport of a door over HTTP with its limits; callbacks has what else a door gives (whom to ask
 * and to tell; where it counts). Errors as of http_server_open. */
err_t http_open_transport(const struct http_door_options *options,
                          const struct http_server_options *callbacks,
                          struct http_server **out) ERR_MUST_CHECK;

/* Answers with a refusal: status, body, and when to come back. */
void http_refuse(struct http_door *door, struct http_exchange *exchange, const err_t *error,
                 enum openai_kind kind, const char *param);
/* The same without an err_t. */
void http_refuse_with(struct http_exchange *exchange, int status, const char *message);

/* What is left of the caller's rates, as headers. */
void http_add_rates(struct http_door *door, struct http_exchange *exchange);
/* Shared with the operator's listener. */
void http_answer_health(struct service *service, struct http_exchange *exchange);
void http_answer_metrics(struct service *service, const char *version, struct http_exchange *exchange);
/* posts: POST with a JSON body, else GET or HEAD. False: the refusal is the answer. */
bool http_check_method(struct http_exchange *exchange, bool posts);

/* Before an answer begins: what answers, and the load if the client asked for it. */
void http_add_load_headers(struct http_door *door, struct http_exchange *exchange);
/* Likewise: who answered, where the service had others do it. */
void http_add_source_headers(const struct answer_source *source, struct http_exchange *exchange);

/* http_generate.c: the two that generate. The user pointer of their exchanges is theirs. */
void http_generate(struct http_door *door, struct http_exchange *exchange, enum openai_kind kind);
void http_generate_pump(struct http_door *door, struct http_exchange *exchange);
void http_generate_ended(struct http_door *door, struct http_exchange *exchange);
