/* The router's bench over HTTP: chat completions, as many connections as are needed at once. */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/buffer.h"
#include "benchmarks/http_pool.h"
#include "benchmarks/router_load.h"

enum { REQUEST_BYTES_MAX = 4 << 10, ANSWER_BYTES_MAX = 64 << 20 };

struct http_driver {
    const struct router_bench_options *options;
    struct http_pool *pool;
    struct http_answer *idle, *all;
};

struct http_answer {
    struct http_driver *driver;
    struct http_answer *next_idle, *next;
    struct router_request *request;
    struct buffer in; /* whole answers as they are; of streams what no whole event is yet */
    bool is_done;     /* [DONE] has come */
};

static err_t on_body(void *context, const char *data, size_t size_bytes, int64_t now_ns);
static void on_done(void *context, const err_t *error, int64_t now_ns);
static const struct http_pool_handler HANDLER = {.on_body = on_body, .on_done = on_done};

static err_t open_http(const struct router_bench_options *options, const struct router_target *target,
                       void **out)
{
    char address[32];
    struct http_driver *driver = mem_alloc(sizeof *driver);
    if (!driver)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory");
    driver->options = options;
    *out = driver;
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", target->port);
    return http_pool_open(address, &HANDLER, &driver->pool);
}

static err_t new_answer(struct http_driver *driver, struct http_answer **out)
{
    struct http_answer *answer = driver->idle;
    if (answer) {
        driver->idle = answer->next_idle;
    } else {
        answer = mem_alloc(sizeof *answer);
        if (!answer)
            return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for an answer");
        *answer =
            (struct http_answer){.driver = driver, .in.limit_bytes = ANSWER_BYTES_MAX, .next = driver->all};
        driver->all = answer;
    }
    *out = answer;
    return err_ok();
}

static void release(struct http_answer *answer)
{
    answer->request = NULL;
    answer->next_idle = answer->driver->idle;
    answer->driver->idle = answer;
}

static err_t start_http(void *context, struct router_request *request)
{
    struct http_driver *driver = context;
    const struct router_bench_options *options = driver->options;
    struct http_answer *answer = NULL;
    TRY(new_answer(driver, &answer));
    char prompt[200], body[REQUEST_BYTES_MAX / 2], text[REQUEST_BYTES_MAX];
    (void)router_prompt_write(request, prompt, sizeof prompt);
    int body_bytes = snprintf(
        body, sizeof body,
        "{\"model\":\"%.256s\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}],\"max_tokens\":%u%s}",
        options->model, prompt, request->n_tokens, request->is_stream ? ",\"stream\":true" : "");
    int size =
        snprintf(text, sizeof text,
                 "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
                 "%s%.256s%scontent-length: %d\r\n\r\n%s",
                 options->api_key ? "authorization: Bearer " : "", options->api_key ? options->api_key : "",
                 options->api_key ? "\r\n" : "", body_bytes, body);
    answer->request = request;
    answer->is_done = false;
    buffer_clear(&answer->in);
    err_t e = http_pool_send(driver->pool, answer, text, (size_t)size);
    if (e.code != ERR_OK)
        release(answer);
    return e;
}

/* --- answers */

/* Whole events are looked at and dropped. */
static err_t take_stream(struct http_answer *answer, int64_t now_ns)
{
    static const char CONTENT[] = "\"content\":\"";
    struct buffer *in = &answer->in;
    const char *content = in->data;
    while ((content = strstr(content, CONTENT)) != NULL) {
        content += sizeof CONTENT - 1;
        if (*content != '"' && *content != '\0') {
            router_load_chunk(answer->request, now_ns);
            break;
        }
    }
    if (strstr(in->data, "\"error\":"))
        return err_new(ERR_UNAVAILABLE, "%.180s", in->data);
    answer->is_done = answer->is_done || strstr(in->data, "[DONE]") != NULL;
    const char *last = NULL;
    for (const char *at = in->data; (at = strstr(at, "\n\n")) != NULL; at += 2)
        last = at;
    if (last) {
        size_t n = (size_t)(last - in->data);
        memmove(in->data, last, in->size - n + 1);
        in->size -= n;
    }
    return err_ok();
}

static err_t on_body(void *context, const char *data, size_t size_bytes, int64_t now_ns)
{
    struct http_answer *answer = context;
    if (!buffer_append(&answer->in, data, size_bytes))
        return err_new(ERR_RESOURCE_EXHAUSTED, "an answer of more than %d bytes", ANSWER_BYTES_MAX);
    return answer->request->is_stream ? take_stream(answer, now_ns) : err_ok();
}

static void on_done(void *context, const err_t *error, int64_t now_ns)
{
    struct http_answer *answer = context;
    struct router_request *request = answer->request;
    const char *text = answer->in.size > 0 ? answer->in.data : "";
    err_t e = *error;
    if (e.code == ERR_OK && request->is_stream && !answer->is_done)
        e = err_new(ERR_DATA_LOSS, "a stream ended without [DONE]: %.120s", text);
    else if (e.code == ERR_OK && !request->is_stream && !strstr(text, "\"choices\""))
        e = err_new(ERR_DATA_LOSS, "no answer: %.150s", text);
    release(answer);
    router_load_done(request, &e, now_ns);
}

static err_t poll_http(void *context, int64_t timeout_ns)
{
    struct http_driver *driver = context;
    return http_pool_poll(driver->pool, timeout_ns);
}

static void close_http(void *context)
{
    struct http_driver *driver = context;
    http_pool_close(driver->pool);
    while (driver->all) {
        struct http_answer *answer = driver->all;
        driver->all = answer->next;
        buffer_free(&answer->in);
        mem_free(answer);
    }
    mem_free(driver);
}

const struct router_driver router_driver_http = {open_http, start_http, poll_http, close_http};
