/* A server for tests that does what it is told, on a port of 127.0.0.1: each connection gets the next script.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum script_step_kind {
    STEP_END,  /* closes */
    STEP_READ, /* takes a whole request: head and Content-Length; one more on the same connection each time */
    STEP_SEND, /* bytes */
    STEP_WAIT, /* until script_server_go has been called once more */
    STEP_UNTIL_GONE, /* until the client has closed */
    STEP_RESET,      /* closes with RST */
    STEP_FLOOD, /* sends `bytes` again and again until it cannot for 100 ms, notes how often, and goes on */
};

struct script_step {
    enum script_step_kind kind;
    const char *bytes;
};

struct script_server;

/* scripts[i] is the steps of connection i; they end with STEP_END. Later connections are closed at once. */
struct script_server *script_server_open(const struct script_step *const *scripts, size_t n_scripts);
uint16_t script_server_port(const struct script_server *server);
void script_server_go(struct script_server *server);
/* Waits until that many connections have come to their end. */
void script_server_wait_ended(struct script_server *server, uint32_t n);
uint32_t script_server_connections(struct script_server *server);
uint32_t script_server_floods(struct script_server *server); /* of STEP_FLOOD */
/* Everything that was read, of all connections, in order. Stays the server's; changes until all have ended.
 */
const char *script_server_heard(struct script_server *server);
void script_server_close(struct script_server *server);
