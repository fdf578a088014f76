/* The doors' bench over gRPC: FlatBuffers and the protobuf service, all streams on one connection. */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "benchmarks/doors_internal.h"
#include "proto/codec_flatbuffers.h"
#include "proto/grpc_client.h"
#include "proto/protobuf_fields.h"

enum { MESSAGE_IDS_MAX = 1024 };

struct grpc_wire {
    const char *stream_path, *whole_path;
    struct codec_bytes (*encode)(const struct doors_request *request);
    err_t (*take)(struct doors_request *request, const uint8_t *bytes, size_t size_bytes, int64_t now_ns);
};

struct grpc_driver {
    struct grpc_client *client;
    const struct grpc_wire *wire;
};

static bool on_message(void *context, const uint8_t *bytes, size_t size_bytes)
{
    struct doors_request *request = context;
    const struct grpc_driver *driver = request->transport;
    int64_t now_ns = clock_now_ns(clock_monotonic());
    err_t e = driver->wire->take(request, bytes, size_bytes, now_ns);
    if (e.code != ERR_OK)
        doors_client_done(request, &e);
    return e.code == ERR_OK;
}

static void on_done(void *context, const struct client_status *status)
{
    err_t e = err_ok();
    if (status->code != GRPC_STATUS_OK)
        e = err_new(ERR_UNAVAILABLE, "status %d: %.400s", (int)status->code, status->message);
    doors_client_done(context, &e);
}

static const struct client_handler HANDLER = {.on_message = on_message, .on_done = on_done};

static err_t open_wire(struct doors_client *client, const struct grpc_wire *wire, void **out)
{
    char target[32];
    (void)snprintf(target, sizeof target, "127.0.0.1:%u", client->shared->grpc_port);
    struct grpc_driver *driver = mem_alloc(sizeof *driver);
    if (!driver)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory");
    driver->wire = wire;
    const struct grpc_client_options options = {.own_connection = true};
    err_t e = grpc_client_open(target, &options, &driver->client);
    if (e.code != ERR_OK)
        mem_free(driver);
    else
        *out = driver;
    return e;
}

static err_t start(void *context, struct doors_request *request)
{
    struct grpc_driver *driver = context;
    request->transport = driver;
    struct codec_bytes bytes = driver->wire->encode(request);
    return grpc_client_start(driver->client,
                             request->whole ? driver->wire->whole_path : driver->wire->stream_path,
                             bytes.data, bytes.size, CLIENT_NO_TIMEOUT, &HANDLER, request, NULL);
}

static err_t poll_driver(void *context, int64_t timeout_ns)
{
    (void)grpc_client_poll(((struct grpc_driver *)context)->client, timeout_ns);
    return err_ok();
}

static void close_driver(void *context)
{
    struct grpc_driver *driver = context;
    grpc_client_close(driver->client);
    mem_free(driver);
}

/* --- bantam.Bantam */

static struct codec_bytes encode_native(const struct doors_request *request)
{
    const struct request wanted = {
        .deadline_ns = REQUEST_NO_DEADLINE,
        .prompt_kind = PROMPT_TOKEN_IDS,
        .token_ids = request->prompt_ids,
        .n_token_ids = request->client->options->input_len,
        .sampling = {.set = SAMPLING_MAX_TOKENS | SAMPLING_TEMPERATURE | SAMPLING_IGNORE_EOS,
                     .max_tokens = request->max_tokens,
                     .ignore_eos = true},
    };
    const struct generate_options options = {.return_prompt_token_ids = false};
    return codec_encode_generate(&wanted, &options);
}

static err_t take_native(struct doors_request *request, const uint8_t *bytes, size_t size_bytes,
                         int64_t now_ns)
{
    struct codec_scratch scratch = {0};
    struct codec_origin origin;
    struct event event;
    const struct event *events = &event;
    size_t n_events = 1;
    err_t e = request->whole ? codec_decode_whole(bytes, size_bytes, &scratch, &origin, &events, &n_events)
                             : codec_decode_response(bytes, size_bytes, &scratch, &origin, &event);
    for (size_t i = 0; e.code == ERR_OK && i < n_events; i++)
        doors_client_ids(request, events[i].token_ids, events[i].n_token_ids, now_ns);
    codec_scratch_free(&scratch);
    return e;
}

static const struct grpc_wire NATIVE = {"/bantam.Bantam/Generate", "/bantam.Bantam/GenerateWhole",
                                        encode_native, take_native};

static err_t open_native(struct doors_client *client, void **out)
{
    return open_wire(client, &NATIVE, out);
}

const struct doors_driver doors_driver_native = {open_native, start, poll_driver, close_driver};

/* --- vllm.grpc.engine.VllmEngine: the numbers of its fields are those of proto/vllm_engine.proto */

enum {
    REQUEST_TOKENIZED = 2,
    REQUEST_SAMPLING = 4,
    REQUEST_STREAM = 5,
    TOKENIZED_IDS = 2,
    SAMPLING_TEMPERATURE_F32 = 1,
    SAMPLING_MOST_TOKENS = 8,
    SAMPLING_NO_EOS = 14,
    RESPONSE_CHUNK = 1,
    RESPONSE_COMPLETE = 2,
    ANSWER_IDS = 1, /* of both */
};

static uint8_t *write_flag(uint8_t *out, unsigned number, uint64_t value)
{
    return wire_write_varint(wire_write_varint(out, WIRE_KEY(number, WIRE_VARINT)), value);
}

static uint8_t *write_body(uint8_t *out, unsigned number, const uint8_t *body, size_t size_bytes)
{
    out = wire_write_varint(wire_write_varint(out, WIRE_KEY(number, WIRE_BYTES)), size_bytes);
    memcpy(out, body, size_bytes);
    return out + size_bytes;
}

static struct codec_bytes encode_facade(const struct doors_request *request)
{
    enum { IDS_BYTES_MAX = DOORS_INPUT_MAX * WIRE_VARINT_BYTES_MAX, HEADS_BYTES_MAX = 128 };
    static uint8_t message[IDS_BYTES_MAX + 2 * HEADS_BYTES_MAX]; /* the client has one thread */
    static uint8_t ids[IDS_BYTES_MAX], part[IDS_BYTES_MAX + HEADS_BYTES_MAX];
    ASSERT(request->client->options->input_len <= DOORS_INPUT_MAX);
    uint8_t *end = ids;
    for (uint32_t i = 0; i < request->client->options->input_len; i++)
        end = wire_write_varint(end, request->prompt_ids[i]);
    end = write_body(part, TOKENIZED_IDS, ids, (size_t)(end - ids));
    uint8_t *out = write_body(message, REQUEST_TOKENIZED, part, (size_t)(end - part));
    end = wire_write_varint(part, WIRE_KEY(SAMPLING_TEMPERATURE_F32, WIRE_FIXED32));
    memset(end, 0, sizeof(float));
    end = write_flag(end + sizeof(float), SAMPLING_MOST_TOKENS, request->max_tokens);
    end = write_flag(end, SAMPLING_NO_EOS, true);
    out = write_body(out, REQUEST_SAMPLING, part, (size_t)(end - part));
    out = write_flag(out, REQUEST_STREAM, !request->whole);
    return (struct codec_bytes){message, (size_t)(out - message)};
}

/* Packed varints. */
static size_t read_ids(struct wire_reader body, uint32_t ids[MESSAGE_IDS_MAX])
{
    size_t n = 0;
    uint32_t id = 0;
    unsigned shift = 0;
    for (; body.at < body.end && n < MESSAGE_IDS_MAX; body.at++) {
        id |= (uint32_t)(*body.at & 0x7f) << (shift & 31);
        shift += 7;
        if (*body.at & 0x80)
            continue;
        ids[n++] = id;
        id = shift = 0;
    }
    return n;
}

static err_t take_facade(struct doors_request *request, const uint8_t *bytes, size_t size_bytes,
                         int64_t now_ns)
{
    struct wire_reader message = {bytes, bytes + size_bytes};
    struct wire_field answer, field;
    bool malformed = false, any = false;
    while (wire_read_field(&message, &answer, &malformed)) {
        if (answer.key != WIRE_KEY(RESPONSE_CHUNK, WIRE_BYTES) &&
            answer.key != WIRE_KEY(RESPONSE_COMPLETE, WIRE_BYTES))
            continue;
        any = true;
        while (wire_read_field(&answer.body, &field, &malformed)) {
            uint32_t ids[MESSAGE_IDS_MAX];
            if (field.key == WIRE_KEY(ANSWER_IDS, WIRE_BYTES))
                doors_client_ids(request, ids, read_ids(field.body, ids), now_ns);
        }
    }
    if (malformed || !any)
        return err_new(ERR_DATA_LOSS, "a message came that is no GenerateResponse");
    return err_ok();
}

static const struct grpc_wire FACADE = {"/vllm.grpc.engine.VllmEngine/Generate",
                                        "/vllm.grpc.engine.VllmEngine/Generate", encode_facade, take_facade};

static err_t open_facade(struct doors_client *client, void **out)
{
    return open_wire(client, &FACADE, out);
}

const struct doors_driver doors_driver_facade = {open_facade, start, poll_driver, close_driver};
