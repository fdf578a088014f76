#include "router/local/replica_target.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static const char *after(const char *text, const char *prefix)
{
    size_t size = strlen(prefix);
    return strncmp(text, prefix, size) == 0 ? text + size : NULL;
}

static err_t wrong(const char *text, const char *why)
{
    return err_new(ERR_INVALID_ARGUMENT, "\"%.80s\" %s, like 127.0.0.1:50051 or dns:///engines.svc:50051",
                   text, why);
}

static err_t parse_unix(const char *text, const char *path, struct replica_target *out)
{
    if (path[0] != '/' || strlen(path) + sizeof "unix:" > REPLICA_ADDRESS_BYTES ||
        strlen(path) >= sizeof((struct sockaddr_un *)NULL)->sun_path)
        return err_new(ERR_INVALID_ARGUMENT, "\"%.80s\" must be unix:/PATH, of 107 bytes at most", text);
    out->is_unix = true;
    (void)snprintf(out->host, sizeof out->host, "%s", path);
    return err_ok();
}

static bool is_port(const char *text)
{
    size_t size = strspn(text, "0123456789");
    long port = strtol(text, NULL, 10);
    return size > 0 && size <= 5 && text[size] == '\0' && port >= 1 && port <= 65535;
}

static bool is_host(const char *host)
{
    for (; *host; host++) {
        if (!isalnum((unsigned char)*host) && strchr("-_.", *host) == NULL)
            return false;
    }
    return true;
}

static bool is_address(const char *host, int family)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    return inet_pton(family, host, bytes) == 1;
}

err_t replica_target_parse(const char *text, struct replica_target *out)
{
    *out = (struct replica_target){.is_unix = false};
    const char *rest = after(text, "unix:");
    if (rest)
        return parse_unix(text, rest, out);
    const char *of_dns = after(text, "dns:///"), *of_ipv4 = after(text, "ipv4:"),
               *of_ipv6 = after(text, "ipv6:");
    rest = of_dns ? of_dns : of_ipv4 ? of_ipv4 : of_ipv6 ? of_ipv6 : text;
    const char *colon = strrchr(rest, ':');
    if (colon == NULL || !is_port(colon + 1))
        return wrong(text, "must end in a port");
    size_t size = (size_t)(colon - rest);
    bool is_bracketed = size >= 2 && rest[0] == '[' && rest[size - 1] == ']';
    if (is_bracketed) {
        rest++;
        size -= 2;
    }
    if (size == 0 || size > TARGET_HOST_BYTES_MAX)
        return wrong(text, "must have a host before the port");
    memcpy(out->host, rest, size);
    (void)snprintf(out->port, sizeof out->port, "%s", colon + 1);
    bool is_v4 = is_address(out->host, AF_INET), is_v6 = is_address(out->host, AF_INET6);
    out->is_numeric = is_v4 || is_v6;
    if ((of_ipv4 && !is_v4) || (of_ipv6 && !is_v6) || is_v6 != is_bracketed)
        return wrong(text, "must be an address and a port, IPv6 in brackets");
    return is_v6 || is_host(out->host) ? err_ok()
                                       : wrong(text, "must have a host of letters, digits, '-', "
                                                     "'_' and '.', and a port");
}

static int compare_addresses(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void add_address(const struct addrinfo *info, struct replica_addresses *out)
{
    char host[INET6_ADDRSTRLEN], port[8], text[REPLICA_ADDRESS_BYTES];
    if (out->n == TARGET_ADDRESSES_MAX ||
        getnameinfo(info->ai_addr, info->ai_addrlen, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    (void)snprintf(text, sizeof text, info->ai_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    for (size_t i = 0; i < out->n; i++) {
        if (strcmp(out->address[i], text) == 0)
            return;
    }
    memcpy(out->address[out->n++], text, sizeof text);
}

err_t replica_target_resolve(const struct replica_target *target, struct replica_addresses *out)
{
    out->n = 0;
    if (target->is_unix) {
        (void)snprintf(out->address[out->n++], REPLICA_ADDRESS_BYTES, "unix:%.*s",
                       REPLICA_ADDRESS_BYTES - (int)sizeof "unix:", target->host);
        return err_ok();
    }
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
    hints.ai_flags = target->is_numeric ? AI_NUMERICHOST | AI_NUMERICSERV : AI_NUMERICSERV;
    int failure = getaddrinfo(target->host, target->port, &hints, &list);
    if (failure == EAI_NONAME || failure == EAI_NODATA)
        return err_new(ERR_NOT_FOUND, "%s: there is no such host", target->host);
    if (failure != 0)
        return err_new(ERR_UNAVAILABLE, "%s cannot be looked up: %s", target->host, gai_strerror(failure));
    bool has_v4 = false;
    for (const struct addrinfo *info = list; info; info = info->ai_next)
        has_v4 = has_v4 || info->ai_family == AF_INET;
    for (const struct addrinfo *info = list; info; info = info->ai_next) {
        if (info->ai_family == (has_v4 ? AF_INET : AF_INET6))
            add_address(info, out);
    }
    freeaddrinfo(list);
    qsort(out->address, out->n, sizeof out->address[0], compare_addresses);
    return err_ok();
}

bool replica_target_is_here(const struct replica_target *target)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (target->is_unix || strcmp(target->host, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, target->host, &v4) == 1)
        return (ntohl(v4.s_addr) >> 24) == 127;
    return inet_pton(AF_INET6, target->host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}
