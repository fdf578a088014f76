#include "benchmarks/doors_bench.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/assert.h"
#include "benchmarks/doors_internal.h"

const char *doors_kind_name(enum doors_kind kind)
{
    static const char *const names[DOOR_KINDS] = {"native", "facade", "http"};
    return names[kind];
}

uint32_t doors_stream_tokens(const struct doors_options *options)
{
    static const double SPARE_S = 5; /* until all have begun */
    return (uint32_t)((options->seconds + SPARE_S) * 1e9 / (double)options->step_ns) + 1;
}

void doors_fail(struct doors_shared *shared, const err_t *error)
{
    if (atomic_load(&shared->failed))
        return;
    shared->error = *error;
    atomic_store(&shared->failed, true);
}

static err_t failed(const char *what)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "%s: %s", what, strerror(errno));
}

/* In a new process: 0. It ends with its parent. */
static pid_t fork_child(const struct doors_options *options)
{
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            options->end_process(1);
    }
    return child;
}

struct server_process {
    pid_t pid;
    int stop_fd; /* closed: it ends */
};

/* Returns when the server is open, or has failed. */
static err_t start_server(const struct doors_options *options, struct doors_shared *shared,
                          struct server_process *out)
{
    int ready[2], stop[2];
    if (pipe(ready) != 0)
        return failed("pipe");
    if (pipe(stop) != 0) {
        (void)close(ready[0]);
        (void)close(ready[1]);
        return failed("pipe");
    }
    out->pid = fork_child(options);
    if (out->pid == 0) {
        (void)close(ready[0]);
        (void)close(stop[1]);
        doors_serve(options, shared, ready[1], stop[0]);
        options->end_process(atomic_load(&shared->failed));
    }
    (void)close(ready[1]);
    (void)close(stop[0]);
    out->stop_fd = stop[1];
    char byte;
    bool heard = out->pid > 0 && read(ready[0], &byte, 1) == 1;
    (void)close(ready[0]);
    if (out->pid < 0)
        return failed("fork");
    if (atomic_load(&shared->failed))
        return shared->error;
    return heard ? err_ok() : err_new(ERR_INTERNAL, "the server's process ended before it was open");
}

static void stop_server(const struct server_process *server)
{
    int status;
    (void)close(server->stop_fd);
    if (server->pid > 0)
        (void)waitpid(server->pid, &status, 0);
}

static err_t run_client(const struct doors_options *options, enum doors_kind kind, pid_t server,
                        struct doors_shared *shared)
{
    pid_t client = fork_child(options);
    if (client == 0) {
        doors_client_run(options, kind, server, shared);
        options->end_process(atomic_load(&shared->failed));
    }
    int status = 0;
    if (client < 0 || waitpid(client, &status, 0) != client)
        return failed("fork");
    if (atomic_load(&shared->failed))
        return shared->error;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_new(ERR_INTERNAL, "the client's process died");
    return err_ok();
}

static err_t measure_door(const struct doors_options *options, enum doors_kind kind, struct doors_result *out)
{
    struct doors_shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return failed("mmap");
    struct server_process server = {.stop_fd = -1};
    err_t e = start_server(options, shared, &server);
    if (e.code == ERR_OK)
        e = run_client(options, kind, server.pid, shared);
    if (server.stop_fd >= 0)
        stop_server(&server);
    *out = shared->result;
    (void)munmap(shared, sizeof *shared);
    return e.code == ERR_OK ? e : err_prefix(e, "%s", doors_kind_name(kind));
}

err_t doors_bench_run(const struct doors_options *options, struct doors_result out[DOOR_KINDS])
{
    ASSERT(options->n_streams >= 1 && options->n_streams <= DOORS_STREAMS_MAX);
    ASSERT(options->input_len >= 1 && options->input_len <= DOORS_INPUT_MAX);
    memset(out, 0, DOOR_KINDS * sizeof *out);
    for (int kind = 0; kind < DOOR_KINDS; kind++)
        if (options->wanted[kind])
            TRY(measure_door(options, kind, &out[kind]));
    return err_ok();
}
