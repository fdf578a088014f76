/* Fleets over doors of fake engines, whose names a test looks up: what the fleet's tests share. */
#pragma once

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "proto/grpc_door.h"
#include "router/local/local_fleet.h"
#include "tests/proto/fake_service.h"

enum { WORLD_ENGINES_MAX = 4, SAID_TOKENS_MAX = 2048 };

struct engine_stand_in {
    struct fake_service *fake;
    struct grpc_door *door; /* NULL: it is not there */
    int held_fd;            /* of its port */
    uint16_t port;
};

struct fleet_world {
    struct engine_stand_in engines[WORLD_ENGINES_MAX];
    size_t n_engines;
    struct local_model_options model;
    struct local_fleet *fleet;
    pthread_mutex_t mutex;
    bool is_named[WORLD_ENGINES_MAX]; /* under the mutex: the name has it */
};

/* adjust: NULL, or changes what the engines are. The fleet is up when it returns. */
void fleet_world_open(struct fleet_world *world, size_t n_engines,
                      void (*adjust)(size_t engine, struct fake_options *options));
void fleet_world_close(struct fleet_world *world);
/* As kill -9: connections break. */
void engine_kill(struct fleet_world *world, size_t engine);
void engine_return(struct fleet_world *world, size_t engine); /* at the port it had */
/* Named from now on, or not any more. */
void engine_name(struct fleet_world *world, size_t engine, bool is_named);
/* Waits until so many replicas are there and up. */
void wait_for_replicas(struct fleet_world *world, uint32_t n_replicas, uint32_t n_up);
/* As fake_service_stall_at, of all. */
void engines_stall_at(struct fleet_world *world, uint32_t position);
uint32_t engine_live(struct fleet_world *world, size_t engine);
/* Waits until no engine has a stream any more. */
void wait_for_silence(struct fleet_world *world);

/* What a call brought. */
struct said {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t pause_after; /* tokens, 0 = never: then it is held until said_resume */
    bool is_paused;
    uint32_t n_events, n_finished, n_ends, n_prompts;
    size_t n_tokens, text_bytes;
    uint32_t tokens[SAID_TOKENS_MAX];
    char text[SAID_TOKENS_MAX * 8];
    struct usage usage;
    struct local_result result; /* its strings are in the two below */
    char replica[64], fingerprint[64], message[ERR_MESSAGE_MAX];
    struct local_call *call;
};
struct said *said_make(void);
void said_free(struct said *said); /* after its end */
err_t said_start(struct fleet_world *world, const struct request *request, struct said *said);
void said_wait_paused(struct said *said);
void said_wait_tokens(struct said *said, size_t n_tokens);
void said_wait_end(struct said *said);
void said_resume(struct said *said);

struct request say(const char *text, uint32_t max_tokens);
/* That it said what a fake engine says to this prompt, each token once and its text. */
void assert_said(const struct said *said, const char *text, uint32_t max_tokens);
