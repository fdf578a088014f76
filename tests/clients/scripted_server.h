/* A server of /bantam.Bantam/Generate that answers call after call as a script says: what a real door does
 * not do at will. */
#pragma once

#include <grpc/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct scripted_answer {
    bool message; /* the end of a choice goes before the status */
    grpc_status_code code;
    const char *pushback; /* text of grpc-retry-pushback-ms; NULL = none */
};

enum { SCRIPT_CALLS_MAX = 16, SCRIPT_HEADER_BYTES = 64 };

struct scripted_server;

/* The last answer of the script is repeated. answers: [n_answers] static. */
struct scripted_server *scripted_server_open(const struct scripted_answer *answers, size_t n_answers);
void scripted_server_close(struct scripted_server *server);
const char *scripted_server_target(const struct scripted_server *server);
/* Calls that came so far, any thread. */
uint32_t scripted_server_calls(const struct scripted_server *server);
/* The header x-test of the latest call, once it is counted; "" when it had none. */
const char *scripted_server_header(const struct scripted_server *server);
/* Likewise x-bantam-model and x-bantam-priority, "model priority", with "-" for one that it had not. */
const char *scripted_server_routes(const struct scripted_server *server);
