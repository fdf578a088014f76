/* A load as OpenAI-compatible HTTP: streams of completions. An arrival of text counts as one token, for the
 * gaps between tokens and the tokens of a second; how many an answer had is what the server says at its end.
 */
#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include "base/alloc.h"
#include "base/buffer.h"
#include "benchmarks/http_pool.h"
#include "benchmarks/serve_internal.h"

enum { REQUEST_BYTES_MAX = 64 << 20, EVENT_BYTES_MAX = 16 << 20 };
static const char SCHEME[] = "http://";

struct http_driver {
    const struct serve_bench_options *options;
    struct serve_load *load;
    struct http_pool *pool;
    struct http_stream *idle, *all;
    char address[HTTP_POOL_ADDRESS_BYTES_MAX + 1];
};

struct http_stream {
    struct http_driver *driver;
    struct http_stream *next_idle, *next;
    size_t index;
    struct buffer in; /* what no whole event is yet */
    struct usage usage;
    bool has_text, is_done; /* done: [DONE] has come */
};

static err_t on_body(void *context, const char *data, size_t size_bytes, int64_t now_ns);
static void on_done(void *context, const err_t *error, int64_t now_ns);
static const struct http_pool_handler HANDLER = {.on_body = on_body, .on_done = on_done};

/* "http://127.0.0.1:8080", and a path that is "/v1" or nothing. */
static err_t parse_url(const char *url, char address[HTTP_POOL_ADDRESS_BYTES_MAX + 1])
{
    bool is_http = strncmp(url, SCHEME, sizeof SCHEME - 1) == 0;
    const char *host = is_http ? url + sizeof SCHEME - 1 : "", *path = host + strcspn(host, "/");
    size_t size = (size_t)(path - host);
    bool is_bare = strcmp(path, "") == 0 || strcmp(path, "/") == 0 || strcmp(path, "/v1") == 0;
    if (size == 0 || size > HTTP_POOL_ADDRESS_BYTES_MAX || !is_bare)
        return err_new(ERR_INVALID_ARGUMENT, "--openai-url \"%.200s\": expected http://HOST:PORT", url);
    memcpy(address, host, size);
    address[size] = '\0';
    return err_ok();
}

static err_t open_http(const struct serve_bench_options *options, struct serve_load *load, void **out)
{
    *out = NULL;
    if (options->timeout_ns >= 0)
        return err_new(ERR_INVALID_ARGUMENT, "--request-timeout is of gRPC, which --openai-url is not");
    struct http_driver *driver = mem_alloc(sizeof *driver);
    if (!driver)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory");
    *driver = (struct http_driver){.options = options, .load = load};
    *out = driver;
    TRY(parse_url(options->openai_url, driver->address));
    return http_pool_open(driver->address, &HANDLER, &driver->pool);
}

/* --- requests */

static bool write_prompt(const struct bench_prompt *prompt, struct buffer *out)
{
    if (!prompt->token_ids) {
        bool good =
            buffer_append_text(out, prompt->as_message ? "\"messages\":[{\"role\":\"user\",\"content\":"
                                                       : "\"prompt\":") &&
            buffer_append_json_string(out, prompt->text, strlen(prompt->text));
        return good && (!prompt->as_message || buffer_append_text(out, "}]"));
    }
    bool good = buffer_append_text(out, "\"prompt\":[");
    for (size_t i = 0; good && i < prompt->n_token_ids; i++)
        good = buffer_append_format(out, i ? ",%" PRIu32 : "%" PRIu32, prompt->token_ids[i]);
    return good && buffer_append_text(out, "]");
}

static bool write_body(const struct serve_bench_options *options, const struct bench_prompt *prompt,
                       struct buffer *out)
{
    bool good = buffer_append_text(out, "{");
    if (options->model)
        good = good && buffer_append_text(out, "\"model\":") &&
               buffer_append_json_string(out, options->model, strlen(options->model)) &&
               buffer_append_text(out, ",");
    return good && write_prompt(prompt, out) &&
           buffer_append_format(out,
                                ",\"max_tokens\":%" PRIu32 ",\"temperature\":%g,\"ignore_eos\":%s,"
                                "\"stream\":true,\"stream_options\":{\"include_usage\":true}}",
                                prompt->output_len, options->load.temperature,
                                options->load.ignore_eos ? "true" : "false");
}

static bool write_request(const struct http_driver *driver, const struct bench_prompt *prompt,
                          struct buffer *out)
{
    const char *key = driver->options->client.api_key;
    struct buffer body = {.limit_bytes = REQUEST_BYTES_MAX};
    bool good =
        write_body(driver->options, prompt, &body) &&
        buffer_append_format(out, "POST /v1/%s HTTP/1.1\r\nhost: %s\r\n",
                             prompt->as_message ? "chat/completions" : "completions", driver->address) &&
        (!key || buffer_append_format(out, "authorization: Bearer %s\r\n", key)) &&
        buffer_append_format(out, "content-type: application/json\r\ncontent-length: %zu\r\n\r\n",
                             body.size) &&
        buffer_append(out, body.data, body.size);
    buffer_free(&body);
    return good;
}

static err_t new_stream(struct http_driver *driver, struct http_stream **out)
{
    struct http_stream *stream = driver->idle;
    if (stream) {
        driver->idle = stream->next_idle;
    } else {
        stream = mem_alloc(sizeof *stream);
        if (!stream)
            return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for a stream");
        *stream =
            (struct http_stream){.driver = driver, .in.limit_bytes = EVENT_BYTES_MAX, .next = driver->all};
        driver->all = stream;
    }
    *out = stream;
    return err_ok();
}

static err_t start_http(void *context, const struct bench_prompt *prompt, size_t index)
{
    struct http_driver *driver = context;
    struct http_stream *stream = NULL;
    TRY(new_stream(driver, &stream));
    stream->index = index;
    stream->has_text = stream->is_done = false;
    stream->usage = (struct usage){0};
    buffer_clear(&stream->in);
    struct buffer request = {.limit_bytes = REQUEST_BYTES_MAX};
    err_t e = write_request(driver, prompt, &request)
                  ? http_pool_send(driver->pool, stream, request.data, request.size)
                  : err_new(ERR_RESOURCE_EXHAUSTED, "a request of more than %d bytes", REQUEST_BYTES_MAX);
    buffer_free(&request);
    if (e.code == ERR_OK)
        return e;
    /* A server that is gone is its requests' failure, as over gRPC. */
    stream->next_idle = driver->idle;
    driver->idle = stream;
    serve_load_done(driver->load, index, e.message);
    return err_ok();
}

/* --- answers */

static uint32_t count_in(const json_t *usage, const char *name)
{
    json_int_t n = json_integer_value(json_object_get(usage, name));
    return n < 0 ? 0 : n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static void take_usage(struct http_stream *stream, const json_t *usage)
{
    stream->usage.prompt_tokens = count_in(usage, "prompt_tokens");
    stream->usage.completion_tokens = count_in(usage, "completion_tokens");
    stream->usage.cached_tokens = count_in(json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
}

static void take_choice(struct http_stream *stream, const json_t *choice)
{
    const json_t *text = json_object_get(choice, "text");
    if (!text)
        text = json_object_get(json_object_get(choice, "delta"), "content");
    if (json_string_length(text) == 0)
        return;
    stream->has_text = true;
    stream->usage.completion_tokens++; /* until the server counts */
    serve_load_tokens(stream->driver->load, stream->index, 1);
}

/* The data of one event. */
static err_t take_event(struct http_stream *stream, const char *data, size_t size)
{
    if (size >= 6 && memcmp(data, "[DONE]", 6) == 0) {
        stream->is_done = true;
        return err_ok();
    }
    json_t *event = json_loadb(data, size, 0, NULL);
    bool is_error = !json_is_object(event) || json_object_get(event, "error");
    if (!is_error) {
        take_choice(stream, json_array_get(json_object_get(event, "choices"), 0));
        if (json_is_object(json_object_get(event, "usage")))
            take_usage(stream, json_object_get(event, "usage"));
    }
    json_decref(event);
    return is_error ? err_new(ERR_UNAVAILABLE, "the server sent %.*s", size < 200 ? (int)size : 200, data)
                    : err_ok();
}

static err_t on_body(void *context, const char *data, size_t size_bytes, int64_t now_ns)
{
    static const char START[] = "data: ";
    struct http_stream *stream = context;
    struct buffer *in = &stream->in;
    (void)now_ns;
    if (!buffer_append(in, data, size_bytes))
        return err_new(ERR_DATA_LOSS, "an event of more than %d bytes", EVENT_BYTES_MAX);
    const char *at = in->data, *end;
    while ((end = strstr(at, "\n\n")) != NULL) {
        if (strncmp(at, START, sizeof START - 1) == 0)
            TRY(take_event(stream, at + sizeof START - 1, (size_t)(end - at) - (sizeof START - 1)));
        at = end + 2;
    }
    in->size -= (size_t)(at - in->data);
    memmove(in->data, at, in->size + 1);
    return err_ok();
}

static void on_done(void *context, const err_t *error, int64_t now_ns)
{
    struct http_stream *stream = context;
    struct http_driver *driver = stream->driver;
    (void)now_ns;
    const char *failure = error->code != ERR_OK ? error->message
                          : !stream->is_done    ? "a stream ended without [DONE]"
                                                : NULL;
    if (!failure) {
        serve_load_usage(driver->load, stream->index, &stream->usage);
        if (!stream->has_text) /* bytes that are no character: its end is all that can be seen of it */
            serve_load_tokens(driver->load, stream->index, 1);
    }
    stream->next_idle = driver->idle;
    driver->idle = stream;
    serve_load_done(driver->load, stream->index, failure);
}

static err_t poll_http(void *context, int64_t timeout_ns)
{
    struct http_driver *driver = context;
    return http_pool_poll(driver->pool, timeout_ns);
}

static int64_t http_retries(const void *context)
{
    (void)context;
    return -1;
}

static void close_http(void *context)
{
    struct http_driver *driver = context;
    if (!driver)
        return;
    http_pool_close(driver->pool);
    while (driver->all) {
        struct http_stream *stream = driver->all;
        driver->all = stream->next;
        buffer_free(&stream->in);
        mem_free(stream);
    }
    mem_free(driver);
}

const struct serve_driver serve_driver_http = {open_http, start_http, poll_http, http_retries, close_http};
