/* What the door's tests share: a door in front of the fake service, a client, and calls that remember what
 * came. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "proto/codec_flatbuffers.h"
#include "proto/grpc_client.h"
#include "proto/grpc_door.h"
#include "tests/proto/fake_service.h"

#define GENERATE       "/bantam.Bantam/Generate"
#define GENERATE_WHOLE "/bantam.Bantam/GenerateWhole"

struct fixture {
    struct fake_service *fake;
    struct grpc_door *door;
    struct grpc_client *client;
    char target[64];
};

enum { REPLY_CHOICES = 4, REPLY_TOKENS = 4096, REPLY_MESSAGE_BYTES = 256 };

/* What one Generate call brought. */
struct reply {
    uint32_t stop_reading_after; /* messages; 0 = never */
    uint32_t n_messages, n_completes;
    uint32_t n_tokens[REPLY_CHOICES];
    uint32_t tokens[REPLY_CHOICES][REPLY_TOKENS];
    size_t text_bytes;
    size_t n_logprobs, n_prompt_logprobs, n_prompt_ids;
    enum finish_reason reason;
    struct usage usage;
    bool done;
    grpc_status_code status;
    char message[REPLY_MESSAGE_BYTES];
    bool has_pushback;
    int64_t pushback_ms;
    char request_id[REQUEST_ID_BYTES_MAX + 1];
    char answered_by[64];   /* the trailer x-bantam-answered-by */
    uint8_t last_bytes[64]; /* of raw calls: the last message */
    size_t last_size;
    struct client_call *call;
};

void fixture_open(struct fixture *fixture, const struct fake_options *fake,
                  const struct grpc_door_options *door);
void fixture_close(struct fixture *fixture);

/* A text request for max_tokens tokens of n choices. */
struct request text_request(const char *text, uint32_t max_tokens, uint32_t n);
void start_request(struct fixture *fixture, const char *path, const struct request *request,
                   int64_t timeout_ns, struct reply *reply);
/* GENERATE, with headers. */
void start_request_with(struct fixture *fixture, const struct request *request,
                        const struct client_metadata *metadata, size_t n_metadata, struct reply *reply);
/* Any method, any bytes; messages are only counted. */
err_t try_start_raw(struct fixture *fixture, const char *path, const void *bytes, size_t size_bytes,
                    struct reply *reply);
void start_raw(struct fixture *fixture, const char *path, const void *bytes, size_t size_bytes,
               struct reply *reply);
void wait_done(struct fixture *fixture, const struct reply *reply);
void wait_messages(struct fixture *fixture, const struct reply *reply, uint32_t n_messages);
/* Runs the client until the fake service's counts satisfy the predicate. */
void wait_counts(struct fixture *fixture, bool (*predicate)(const struct fake_counts *counts));
