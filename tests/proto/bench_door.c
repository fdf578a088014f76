/* What the door costs: N streams of a service without a model that brings each a token every 2 ms. The client
 * is a process of its own; the CPU time is the server's. bench_door [STREAMS] [TOKENS] [TICK_US] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "tests/proto/door_client.h"

static double seconds_of(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec * 1e-6;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

/* Sends the streams to the port that comes through the pipe, reads them to the end. */
static int run_client(int port_fd, int n_streams, uint32_t n_tokens)
{
    struct fixture fixture = {0};
    uint16_t port;
    if (read(port_fd, &port, sizeof port) != sizeof port)
        return 1;
    (void)snprintf(fixture.target, sizeof fixture.target, "127.0.0.1:%u", port);
    struct grpc_client_options options = {.own_connection = true};
    if (grpc_client_open(fixture.target, &options, &fixture.client).code != ERR_OK)
        return 1;
    struct reply *replies = mem_alloc_array((size_t)n_streams, sizeof *replies);
    struct request request = text_request("bench", n_tokens, 1);
    int64_t start_ns = clock_now_ns(clock_monotonic());
    for (int i = 0; i < n_streams; i++)
        start_request(&fixture, GENERATE, &request, CLIENT_NO_TIMEOUT, &replies[i]);
    uint64_t tokens = 0, messages = 0;
    for (int i = 0; i < n_streams; i++) {
        wait_done(&fixture, &replies[i]);
        tokens += replies[i].n_tokens[0];
        messages += replies[i].n_messages;
    }
    double elapsed_s = (double)(clock_now_ns(clock_monotonic()) - start_ns) * 1e-9;
    printf("%d streams: %llu tokens in %llu messages, %.2f s, %.0f tokens/s; client CPU %.0f %% of a core\n",
           n_streams, (unsigned long long)tokens, (unsigned long long)messages, elapsed_s,
           (double)tokens / elapsed_s, 100 * cpu_seconds() / elapsed_s);
    grpc_client_close(fixture.client);
    mem_free(replies);
    return 0;
}

int main(int argc, char *argv[])
{
    int n_streams = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 256;
    uint32_t n_tokens = argc > 2 ? (uint32_t)strtol(argv[2], NULL, 10) : 1000;
    int64_t tick_us = argc > 3 ? strtol(argv[3], NULL, 10) : 2000;
    int port_pipe[2];
    if (pipe(port_pipe) != 0)
        return 1;
    pid_t child = fork(); /* before gRPC has threads */
    if (child == 0)
        return run_client(port_pipe[0], n_streams, n_tokens);
    struct fake_options fake_options = {.tick_ns = tick_us * 1000};
    struct grpc_door_options options = grpc_door_options_default();
    options.port = 0;
    struct fake_service *fake;
    struct grpc_door *door;
    if (fake_service_open(&fake_options, &fake).code != ERR_OK ||
        grpc_door_open(fake_service_of(fake), &options, &door).code != ERR_OK)
        return 1;
    uint16_t port = grpc_door_port(door);
    double cpu_before_s = cpu_seconds();
    int64_t start_ns = clock_now_ns(clock_monotonic());
    int status = 1;
    if (write(port_pipe[1], &port, sizeof port) == sizeof port)
        (void)waitpid(child, &status, 0);
    double elapsed_s = (double)(clock_now_ns(clock_monotonic()) - start_ns) * 1e-9;
    printf("server CPU %.0f %% of a core, %llu steps\n", 100 * (cpu_seconds() - cpu_before_s) / elapsed_s,
           (unsigned long long)fake_service_counts(fake).steps);
    grpc_door_close(door);
    fake_service_close(fake);
    return status != 0;
}
