/* What the client's tests share: calls that remember what came, and waiting for events with a limit. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "clients/c/bantam_client.h"
#include "proto/grpc_door.h"
#include "tests/proto/fake_service.h"

struct world {
    struct fake_service *fake;
    struct grpc_door *door;
    struct bantam_client *client;
    int held_fd; /* of the door's port */
    uint16_t port;
    char target[64];
};

/* adjust: NULL, or changes the client's options before it is opened; own_connection is set already. */
void world_open(struct world *world, void (*adjust)(struct bantam_client_options *options));
void world_close(struct world *world);
/* The door again, on the port that it had. */
void world_reopen_door(struct world *world);

enum { SEEN_TOKENS = 4096 };

/* What a call brought. */
struct seen {
    uint32_t pause_after; /* events; 0 = never */
    uint32_t n_events, n_answers, n_finished, n_done;
    size_t n_tokens;
    uint32_t tokens[SEEN_TOKENS];
    enum err_code code;
    char message[ERR_MESSAGE_MAX], request_id[160], model[64], fingerprint[64], peer[128];
    int grpc_status;
    uint32_t attempts;
    int64_t retry_after_ms;
    bool has_load;
    struct orca_report load;
    struct bantam_call *call;
};
extern const struct bantam_handler seen_handler;

/* One token a byte of text, and max_tokens tokens come. */
struct request words(const char *text, uint32_t max_tokens);
void start_stream(struct bantam_client *client, const struct request *request, int64_t timeout_ns,
                  struct seen *seen);
void poll_once(struct bantam_client *client); /* fails when nothing comes for a minute */
void until_done(struct bantam_client *client, const struct seen *seen);
/* Polls until the condition holds; fails after a minute. */
#define POLL_UNTIL(client, condition)                                                                        \
    for (int64_t limit_ns_ = clock_now_ns(clock_monotonic()) + INT64_C(60000000000); !(condition);) {        \
        assert_true(clock_now_ns(clock_monotonic()) < limit_ns_);                                            \
        (void)bantam_client_poll(client, 1000000);                                                           \
    }
