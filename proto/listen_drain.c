#include "proto/listen_drain.h"

#include <dirent.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>

/* The port at this end; 0 when the file is no TCP socket, or is none that listens as wanted. */
static uint16_t local_port(int fd, bool listening)
{
    struct sockaddr_storage address;
    socklen_t address_bytes = sizeof address;
    int listens = 0;
    socklen_t listens_bytes = sizeof listens;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_bytes) != 0 ||
        (listens != 0) != listening || getsockname(fd, (struct sockaddr *)&address, &address_bytes) != 0)
        return 0;
    if (address.ss_family == AF_INET)
        return ntohs(((struct sockaddr_in *)&address)->sin_port);
    return address.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&address)->sin6_port) : 0;
}

/* Adds up fn over the sockets at the port; failed when the process's files cannot be listed. */
static uint32_t for_each(uint16_t port, bool listening, uint32_t failed,
                         uint32_t (*fn)(int fd, void *context), void *context)
{
    uint32_t sum = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (!folder)
        return failed;
    for (const struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        int fd = (int)strtol(entry->d_name, NULL, 10);
        if (entry->d_name[0] != '.' && local_port(fd, listening) == port)
            sum += fn(fd, context);
    }
    (void)closedir(folder);
    return sum;
}

/* A socket's filter sees packets from their TCP header on: byte 13 has the flags, and SYN without ACK is the
 * start of a connection. */
static uint32_t hold(int fd, void *context)
{
    (void)context;
    enum { FLAGS_AT = 13, SYN = 0x02, ACK = 0x10 };
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, FLAGS_AT),   BPF_STMT(BPF_ALU | BPF_AND | BPF_K, SYN | ACK),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYN, 0, 1), BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    struct sock_fprog filter = {.len = sizeof program / sizeof program[0], .filter = program};
    /* Where the system forbids it a few connections may be reset. */
    (void)setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
    return 0;
}

static uint32_t pending(int fd, void *context)
{
    (void)context;
    struct tcp_info info = {0};
    socklen_t info_bytes = sizeof info;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_bytes) == 0 ? info.tcpi_unacked : 0;
}

static uint32_t refuse(int fd, void *context)
{
    (void)context;
    (void)shutdown(fd, SHUT_RD);
    return 0;
}

struct found {
    int *fds;
    uint32_t n, max;
};

static uint32_t keep(int fd, void *context)
{
    struct found *found = context;
    if (found->n < found->max)
        found->fds[found->n++] = fd;
    return 1;
}

static uint32_t count(int fd, void *context)
{
    (void)fd;
    (void)context;
    return 1;
}

void listen_hold(uint16_t port)
{
    (void)for_each(port, true, 0, hold, NULL);
}

uint32_t listen_pending(uint16_t port)
{
    return for_each(port, true, 0, pending, NULL);
}

void listen_refuse(uint16_t port)
{
    (void)for_each(port, true, 0, refuse, NULL);
}

uint32_t listen_sockets(uint16_t port, int *out, uint32_t max)
{
    struct found found = {.fds = out, .max = max};
    return for_each(port, true, 0, keep, &found);
}

uint32_t listen_connections(uint16_t port)
{
    return for_each(port, false, UINT32_MAX, count, NULL);
}
