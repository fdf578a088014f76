#include "tests/router/script_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/buffer.h"
#include "base/event_count.h"

enum { CONNECTIONS_MAX = 64, HEARD_BYTES_MAX = 1 << 20, FLOOD_WAIT_MS = 100 };

struct connection {
    struct script_server *server;
    const struct script_step *steps;
    int fd;
    pthread_t thread;
};

struct script_server {
    const struct script_step *const *scripts;
    size_t n_scripts;
    int listener;
    uint16_t port;
    pthread_t thread;
    struct event_count go, ended;
    pthread_mutex_t lock; /* of what follows */
    struct buffer heard;
    struct connection connections[CONNECTIONS_MAX];
    uint32_t n_connections, n_floods;
};

/* One whole request; false when the client left before. */
static bool read_request(struct connection *connection)
{
    struct buffer request = {.limit_bytes = HEARD_BYTES_MAX};
    size_t wanted = 0; /* bytes of head and body; 0 = not known yet */
    char bytes[4096];
    while (wanted == 0 || request.size < wanted) {
        size_t most = wanted == 0 ? 1 : wanted - request.size;
        ssize_t n = recv(connection->fd, bytes, most < sizeof bytes ? most : sizeof bytes, 0);
        if (n <= 0)
            break;
        ASSERT(buffer_append(&request, bytes, (size_t)n));
        const char *end = wanted == 0 ? strstr(request.data, "\r\n\r\n") : NULL;
        const char *length = end ? strcasestr(request.data, "\r\nContent-Length:") : NULL;
        if (end)
            wanted = request.size + (length ? (size_t)strtoul(length + 17, NULL, 10) : 0);
    }
    bool is_whole = wanted > 0 && request.size == wanted;
    struct script_server *server = connection->server;
    pthread_mutex_lock(&server->lock);
    ASSERT(buffer_append(&server->heard, request.data ? request.data : "", request.size));
    pthread_mutex_unlock(&server->lock);
    buffer_free(&request);
    return is_whole;
}

static bool send_all(int fd, const char *bytes)
{
    for (size_t left = strlen(bytes); left > 0;) {
        ssize_t n = send(fd, bytes, left, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        bytes += n;
        left -= (size_t)n;
    }
    return true;
}

static bool flood(struct connection *connection, const char *bytes)
{
    uint32_t n = 0;
    struct pollfd can_write = {.fd = connection->fd, .events = POLLOUT};
    while (poll(&can_write, 1, FLOOD_WAIT_MS) == 1) {
        if (!send_all(connection->fd, bytes))
            return false;
        n++;
    }
    pthread_mutex_lock(&connection->server->lock);
    connection->server->n_floods += n;
    pthread_mutex_unlock(&connection->server->lock);
    return true;
}

static bool take_step(struct connection *connection, const struct script_step *step)
{
    struct script_server *server = connection->server;
    char byte;
    switch (step->kind) {
    case STEP_END:
        return false;
    case STEP_READ:
        return read_request(connection);
    case STEP_SEND:
        return send_all(connection->fd, step->bytes);
    case STEP_WAIT: {
        uint32_t seen = event_count_read(&server->go);
        while (seen == 0 && !event_count_wait(&server->go, 0, -1)) {
        }
        return true;
    }
    case STEP_UNTIL_GONE:
        while (recv(connection->fd, &byte, 1, 0) > 0) {
        }
        return false;
    case STEP_RESET: {
        struct linger linger = {.l_onoff = 1, .l_linger = 0};
        setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        return false;
    }
    case STEP_FLOOD:
        return flood(connection, step->bytes);
    }
    return false;
}

static void *serve(void *context)
{
    struct connection *connection = context;
    for (const struct script_step *step = connection->steps; step && take_step(connection, step); step++) {
    }
    close(connection->fd);
    event_count_bump(&connection->server->ended);
    return NULL;
}

static void *accept_all(void *context)
{
    struct script_server *server = context;
    for (;;) {
        int fd = accept(server->listener, NULL, NULL);
        if (fd < 0)
            return NULL;
        pthread_mutex_lock(&server->lock);
        ASSERT(server->n_connections < CONNECTIONS_MAX);
        uint32_t number = server->n_connections++;
        struct connection *connection = &server->connections[number];
        *connection = (struct connection){.server = server, .fd = fd};
        connection->steps = number < server->n_scripts ? server->scripts[number] : NULL;
        ASSERT(pthread_create(&connection->thread, NULL, serve, connection) == 0);
        pthread_mutex_unlock(&server->lock);
    }
}

struct script_server *script_server_open(const struct script_step *const *scripts, size_t n_scripts)
{
    struct script_server *server = mem_alloc(sizeof *server);
    ASSERT(server);
    server->scripts = scripts;
    server->n_scripts = n_scripts;
    server->heard.limit_bytes = HEARD_BYTES_MAX;
    ASSERT(buffer_append_text(&server->heard, "") && pthread_mutex_init(&server->lock, NULL) == 0);
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    ASSERT(bind(server->listener, (struct sockaddr *)&address, size) == 0 &&
           listen(server->listener, 64) == 0);
    ASSERT(getsockname(server->listener, (struct sockaddr *)&address, &size) == 0);
    server->port = ntohs(address.sin_port);
    ASSERT(pthread_create(&server->thread, NULL, accept_all, server) == 0);
    return server;
}

uint16_t script_server_port(const struct script_server *server)
{
    return server->port;
}

void script_server_go(struct script_server *server)
{
    event_count_bump(&server->go);
}

void script_server_wait_ended(struct script_server *server, uint32_t n)
{
    for (uint32_t seen; (seen = event_count_read(&server->ended)) < n;)
        event_count_wait(&server->ended, seen, -1);
}

uint32_t script_server_connections(struct script_server *server)
{
    pthread_mutex_lock(&server->lock);
    uint32_t n = server->n_connections;
    pthread_mutex_unlock(&server->lock);
    return n;
}

uint32_t script_server_floods(struct script_server *server)
{
    pthread_mutex_lock(&server->lock);
    uint32_t n = server->n_floods;
    pthread_mutex_unlock(&server->lock);
    return n;
}

const char *script_server_heard(struct script_server *server)
{
    return server->heard.data;
}

void script_server_close(struct script_server *server)
{
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listener);
    for (uint32_t i = 0; i < server->n_connections; i++)
        pthread_join(server->connections[i].thread, NULL);
    buffer_free(&server->heard);
    pthread_mutex_destroy(&server->lock);
    mem_free(server);
}
