#include "proto/listen_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void listen_format_address(const char *host, uint16_t port, char *out, size_t out_bytes)
{
    bool v6 = strchr(host, ':') != NULL && host[0] != '[';
    (void)snprintf(out, out_bytes, v6 ? "[%s]:%u" : "%s:%u", host, port);
}

static err_t resolve(const char *host, uint16_t port, struct addrinfo **out)
{
    if (strlen(host) == 0 || strlen(host) >= LISTEN_HOST_BYTES_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "the host to listen on must have 1 to %d bytes",
                       LISTEN_HOST_BYTES_MAX - 1);
    char service[8];
    (void)snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    int failure = getaddrinfo(host, service, &hints, out);
    if (failure != 0)
        return err_new(ERR_INVALID_ARGUMENT, "cannot listen on %s: %s", host, gai_strerror(failure));
    return err_ok();
}

static bool address_is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    }
    if (address->sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
    return false;
}

err_t listen_is_loopback(const char *host, bool *loopback)
{
    struct addrinfo *addresses = NULL;
    TRY(resolve(host, 0, &addresses));
    *loopback = true;
    for (const struct addrinfo *a = addresses; a; a = a->ai_next)
        *loopback = *loopback && address_is_loopback(a->ai_addr);
    freeaddrinfo(addresses);
    return err_ok();
}

/* errno of listening on one address, or 0 and the socket. */
static int try_listen(const struct addrinfo *address, bool only_v6, int *out)
{
    int fd =
        socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->ai_protocol);
    if (fd < 0)
        return errno;
    int one = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (only_v6 && address->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0) {
        *out = fd;
        return 0;
    }
    int reason = errno;
    (void)close(fd);
    return reason;
}

static err_t cannot_listen(const char *host, uint16_t port, int reason)
{
    if (reason == EADDRINUSE)
        return err_new(ERR_IO,
                       "cannot listen on %s port %u: the port is in use; choose another (0 = any free one)",
                       host, port);
    return err_new(ERR_IO, "cannot listen on %s port %u: %s", host, port,
                   reason ? strerror(reason) : "gRPC refused the address");
}

err_t listen_explain_failure(const char *host, uint16_t port)
{
    struct addrinfo *addresses = NULL;
    TRY(resolve(host, port, &addresses));
    int reason = 0;
    for (const struct addrinfo *a = addresses; a && reason == 0; a = a->ai_next) {
        int fd;
        reason = try_listen(a, false, &fd);
        if (reason == 0)
            (void)close(fd);
    }
    freeaddrinfo(addresses);
    return cannot_listen(host, port, reason);
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t bytes = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &bytes) != 0)
        return 0;
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
}

static void set_port(struct sockaddr *address, uint16_t port)
{
    if (address->sa_family == AF_INET6)
        ((struct sockaddr_in6 *)address)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)address)->sin_port = htons(port);
}

err_t listen_open(const char *host, uint16_t port, int *fds, size_t max, size_t *n_fds, uint16_t *bound_port)
{
    struct addrinfo *addresses = NULL;
    TRY(resolve(host, port, &addresses));
    bool several = addresses->ai_next != NULL;
    int reason = 0;
    *n_fds = 0;
    *bound_port = port;
    for (const struct addrinfo *a = addresses; a && *n_fds < max; a = a->ai_next) {
        set_port(a->ai_addr, *bound_port);
        int failure = try_listen(a, several, &fds[*n_fds]);
        /* A family that this machine lacks is no reason not to listen on the other. */
        bool lacking = failure == EADDRNOTAVAIL || failure == EAFNOSUPPORT;
        if (failure != 0)
            reason = failure;
        if (failure != 0 && !lacking)
            break;
        if (failure == 0)
            *bound_port = port_of(fds[(*n_fds)++]);
    }
    freeaddrinfo(addresses);
    bool failed = *n_fds == 0 || (reason != 0 && reason != EADDRNOTAVAIL && reason != EAFNOSUPPORT);
    while (failed && *n_fds > 0)
        (void)close(fds[--*n_fds]);
    return failed ? cannot_listen(host, port, reason) : err_ok();
}
