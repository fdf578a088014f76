/* FlatBuffers bytes <-> requests and events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "base/philox.h"
#include "proto/codec_flatbuffers.h"

static const char *const stops[] = {"\n\n", "END"};
static const char *const bad_words[] = {"no"};
static const uint32_t some_ids[] = {1, 2, 3, 4000000000u};
static const struct logit_bias biases[] = {{7, -1.5f}, {8, 100.0f}};

static struct request full_request(void)
{
    static const struct chat_message messages[] = {{"system", "be brief", 8}, {"user", "hi\0there", 8}};
    struct request request = {
        .request_id = "id-1", .model = "m", .priority = -5, .prompt_kind = PROMPT_MESSAGES};
    request.messages = messages;
    request.n_messages = 2;
    request.no_special_tokens = true;
    request.no_generation_prompt = true;
    request.output_prefix_ids = some_ids;
    request.n_output_prefix_ids = 2;
    request.template_json = "{\"tools\":[]}";
    request.template_json_bytes = 12;
    request.sampling = (struct sampling_params){.set = (1u << 18) - 1,
                                                .temperature = 0.0f,
                                                .top_p = 1.0f,
                                                .min_p = 0.25f,
                                                .top_k = -1,
                                                .repetition_penalty = 1.1f,
                                                .presence_penalty = -2.0f,
                                                .frequency_penalty = 2.0f,
                                                .seed = UINT64_MAX,
                                                .max_tokens = 0,
                                                .min_tokens = 3,
                                                .n = 64,
                                                .logprobs = -1,
                                                .prompt_logprobs = 20,
                                                .ignore_eos = true,
                                                .skip_special_tokens = false,
                                                .include_stop_str_in_output = true,
                                                .spaces_between_special_tokens = false,
                                                .truncate_prompt_tokens = -1,
                                                .stop = stops,
                                                .n_stop = 2,
                                                .stop_token_ids = some_ids,
                                                .n_stop_token_ids = 4,
                                                .logit_bias = biases,
                                                .n_logit_bias = 2,
                                                .allowed_token_ids = some_ids + 1,
                                                .n_allowed_token_ids = 3,
                                                .bad_words = bad_words,
                                                .n_bad_words = 1};
    return request;
}

static void assert_same_sampling(const struct sampling_params *a, const struct sampling_params *b)
{
    assert_int_equal(a->set, b->set);
    assert_memory_equal(&a->temperature, &b->temperature, sizeof(float));
    assert_true(a->top_p == b->top_p && a->min_p == b->min_p && a->top_k == b->top_k);
    assert_true(a->repetition_penalty == b->repetition_penalty);
    assert_true(a->presence_penalty == b->presence_penalty && a->frequency_penalty == b->frequency_penalty);
    assert_true(a->seed == b->seed);
    assert_int_equal(a->max_tokens, b->max_tokens);
    assert_int_equal(a->min_tokens, b->min_tokens);
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->logprobs, b->logprobs);
    assert_int_equal(a->prompt_logprobs, b->prompt_logprobs);
    assert_int_equal(a->ignore_eos, b->ignore_eos);
    assert_int_equal(a->skip_special_tokens, b->skip_special_tokens);
    assert_int_equal(a->include_stop_str_in_output, b->include_stop_str_in_output);
    assert_int_equal(a->spaces_between_special_tokens, b->spaces_between_special_tokens);
    assert_int_equal(a->truncate_prompt_tokens, b->truncate_prompt_tokens);
    assert_int_equal(a->n_stop, b->n_stop);
    for (size_t i = 0; i < a->n_stop; i++)
        assert_string_equal(a->stop[i], b->stop[i]);
    assert_int_equal(a->n_bad_words, b->n_bad_words);
    for (size_t i = 0; i < a->n_bad_words; i++)
        assert_string_equal(a->bad_words[i], b->bad_words[i]);
    assert_int_equal(a->n_stop_token_ids, b->n_stop_token_ids);
    assert_memory_equal(a->stop_token_ids, b->stop_token_ids, a->n_stop_token_ids * sizeof(uint32_t));
    assert_int_equal(a->n_allowed_token_ids, b->n_allowed_token_ids);
    assert_memory_equal(a->allowed_token_ids, b->allowed_token_ids,
                        a->n_allowed_token_ids * sizeof(uint32_t));
    assert_int_equal(a->n_logit_bias, b->n_logit_bias);
    assert_memory_equal(a->logit_bias, b->logit_bias, a->n_logit_bias * sizeof *a->logit_bias);
}

/* Bytes at every alignment give the same request, and what was not set stays unset. */
static void request_round_trip(void **state)
{
    (void)state;
    struct request request = full_request();
    struct generate_options options = {.return_prompt_token_ids = true};
    struct codec_bytes bytes = codec_encode_generate(&request, &options);
    uint8_t *copy = mem_alloc(bytes.size + 8);
    for (size_t shift = 0; shift < 8; shift++) {
        struct codec_scratch scratch = {0};
        struct request out;
        struct generate_options out_options;
        memcpy(copy + shift, bytes.data, bytes.size);
        err_t e = codec_decode_generate(copy + shift, bytes.size, &scratch, &out, &out_options);
        assert_int_equal(e.code, ERR_OK);
        assert_true(out_options.return_prompt_token_ids);
        assert_string_equal(out.request_id, "id-1");
        assert_string_equal(out.model, "m");
        assert_string_equal(out.tenant, "");
        assert_int_equal(out.priority, -5);
        assert_true(out.deadline_ns == REQUEST_NO_DEADLINE);
        assert_true(out.no_special_tokens && out.no_generation_prompt);
        assert_int_equal(out.n_output_prefix_ids, 2);
        assert_memory_equal(out.output_prefix_ids, some_ids, 8);
        assert_int_equal(out.prompt_kind, PROMPT_MESSAGES);
        assert_int_equal(out.n_messages, 2);
        assert_string_equal(out.messages[0].role, "system");
        assert_int_equal(out.messages[1].content_bytes, 8);
        assert_memory_equal(out.messages[1].content, "hi\0there", 8);
        assert_int_equal(out.template_json_bytes, 12);
        assert_memory_equal(out.template_json, "{\"tools\":[]}", 12);
        assert_same_sampling(&out.sampling, &request.sampling);
        codec_scratch_free(&scratch);
        codec_scratch_free(&scratch);
    }
    mem_free(copy);
}

static void unset_stays_unset(void **state)
{
    (void)state;
    struct request request = {.prompt_kind = PROMPT_TEXT, .text = "", .text_bytes = 0}, out;
    struct codec_bytes bytes = codec_encode_generate(&request, NULL);
    struct codec_scratch scratch = {0};
    struct generate_options options;
    assert_int_equal(codec_decode_generate(bytes.data, bytes.size, &scratch, &out, &options).code, ERR_OK);
    assert_int_equal(out.sampling.set, 0);
    assert_int_equal(out.prompt_kind, PROMPT_TEXT);
    assert_int_equal(out.text_bytes, 0);
    assert_null(out.request_id);
    assert_null(out.model);
    assert_false(options.return_prompt_token_ids);
    assert_false(out.no_special_tokens || out.no_generation_prompt);
    codec_scratch_free(&scratch);
    request.prompt_kind = PROMPT_NONE;
    bytes = codec_encode_generate(&request, NULL);
    assert_int_equal(codec_decode_generate(bytes.data, bytes.size, &scratch, &out, &options).code, ERR_OK);
    assert_int_equal(out.prompt_kind, PROMPT_NONE); /* which the validator refuses */
    codec_scratch_free(&scratch);
}

static void nul_in_a_name_is_refused(void **state)
{
    (void)state;
    const char *const with_mark[] = {"a~b"};
    struct request cases[4] = {{0}};
    for (int i = 0; i < 4; i++) {
        cases[i].prompt_kind = PROMPT_TEXT;
        cases[i].text = "t";
        cases[i].text_bytes = 1;
    }
    cases[0].request_id = "a~b";
    cases[1].model = "a~b";
    cases[2].sampling.stop = with_mark;
    cases[2].sampling.n_stop = 1;
    cases[3].sampling.bad_words = with_mark;
    cases[3].sampling.n_bad_words = 1;
    for (int i = 0; i < 4; i++) {
        struct codec_bytes bytes = codec_encode_generate(&cases[i], NULL);
        uint8_t copy[512];
        assert_true(bytes.size <= sizeof copy);
        memcpy(copy, bytes.data, bytes.size);
        uint8_t *mark = memchr(copy, '~', bytes.size);
        assert_non_null(mark);
        *mark = '\0';
        struct codec_scratch scratch = {0};
        struct request out;
        struct generate_options options;
        err_t e = codec_decode_generate(copy, bytes.size, &scratch, &out, &options);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
        assert_non_null(strstr(e.message, "NUL"));
        codec_scratch_free(&scratch);
    }
}

/* Any corruption gives a request or an error; never a crash, never a pointer outside (ASan watches). */
static void corrupted_requests_are_harmless(void **state)
{
    (void)state;
    struct request request = full_request(), out;
    struct generate_options options;
    struct codec_bytes bytes = codec_encode_generate(&request, NULL);
    uint8_t *copy = mem_alloc(bytes.size);
    struct rng rng = rng_make(1);
    size_t refused = 0;
    enum { ROUNDS = 20000 };
    for (int round = 0; round < ROUNDS; round++) {
        struct codec_scratch scratch = {0};
        memcpy(copy, bytes.data, bytes.size);
        for (int i = 0; i < 3; i++)
            copy[rng_below(&rng, (uint32_t)bytes.size)] ^= (uint8_t)(1u << rng_below(&rng, 8));
        size_t size = round % 4 == 0 ? rng_below(&rng, (uint32_t)bytes.size) : bytes.size;
        err_t e = codec_decode_generate(copy, size, &scratch, &out, &options);
        assert_true(e.code == ERR_OK || e.code == ERR_INVALID_ARGUMENT);
        refused += e.code != ERR_OK;
        for (size_t i = 0; e.code == ERR_OK && i < out.n_messages; i++)
            assert_true(strlen(out.messages[i].role) <= size && out.messages[i].content_bytes <= size);
        codec_scratch_free(&scratch);
    }
    assert_true(refused > ROUNDS / 8);
    mem_free(copy);
}

static void too_many_messages_are_refused(void **state)
{
    (void)state;
    enum { N = CODEC_TABLES_MAX + 1 };
    struct chat_message *messages = mem_alloc_array(N, sizeof *messages);
    for (size_t i = 0; i < N; i++)
        messages[i] = (struct chat_message){"user", "x", 1};
    for (int i = 0; i < 2; i++) {
        struct request out, request = {.prompt_kind = PROMPT_MESSAGES, .messages = messages};
        request.n_messages = i == 0 ? REQUEST_MESSAGES_MAX : N;
        struct codec_bytes bytes = codec_encode_generate(&request, NULL);
        struct codec_scratch scratch = {0};
        struct generate_options options;
        err_t e = codec_decode_generate(bytes.data, bytes.size, &scratch, &out, &options);
        assert_int_equal(e.code, i == 0 ? ERR_OK : ERR_INVALID_ARGUMENT);
        codec_scratch_free(&scratch);
    }
    mem_free(messages);
}

static void no_memory_is_an_error(void **state)
{
    (void)state;
    struct request request = full_request(), out;
    struct generate_options options;
    struct codec_bytes bytes = codec_encode_generate(&request, NULL);
    uint8_t *copy = mem_alloc(bytes.size + 1);
    memcpy(copy + 1, bytes.data, bytes.size);
    for (int nth = 0; nth < 2; nth++) {
        struct codec_scratch scratch = {0};
        mem_fail_nth(nth);
        assert_int_equal(codec_decode_generate(copy + 1, bytes.size, &scratch, &out, &options).code,
                         ERR_RESOURCE_EXHAUSTED);
        mem_fail_nth(-1);
        codec_scratch_free(&scratch);
    }
    mem_free(copy);
}

static struct model_info model = {.model = "served", .fingerprint = "00ff00ff00ff00ff", .bos_token_id = -1};

static void chunk_round_trip(void **state)
{
    (void)state;
    struct position_logprobs lps[2] = {
        {.chosen = {5, -0.5f}, .rank = 3, .n_top = 2, .top = {{1, -0.1f}, {2, -0.2f}}},
        {.chosen = {6, -1.5f}, .rank = 1}};
    struct position_logprobs prompt_lps[1] = {{.chosen = {9, NAN}}};
    struct event event = {.kind = EVENT_TOKENS,
                          .choice_index = 2,
                          .token_ids = some_ids,
                          .n_token_ids = 2,
                          .text = "hé",
                          .text_bytes = 3,
                          .logprobs = lps,
                          .n_logprobs = 2,
                          .prompt_token_ids = some_ids,
                          .n_prompt_token_ids = 1,
                          .prompt_logprobs = prompt_lps,
                          .n_prompt_logprobs = 1};
    struct codec_answer answer = {
        .request_id = "r", .model = &model, .prompt_tokens = 1, .with_prompt_token_ids = true};
    struct codec_bytes bytes = codec_encode_event(&answer, &event, 17);
    struct codec_scratch scratch = {0};
    struct event out;
    struct codec_origin origin;
    assert_int_equal(codec_decode_response(bytes.data, bytes.size, &scratch, &origin, &out).code, ERR_OK);
    assert_string_equal(origin.request_id, "r");
    assert_string_equal(origin.fingerprint, "");
    assert_int_equal(out.kind, EVENT_TOKENS);
    assert_int_equal(out.choice_index, 2);
    assert_int_equal(out.n_token_ids, 2);
    assert_memory_equal(out.token_ids, some_ids, 8);
    assert_int_equal(out.text_bytes, 3);
    assert_memory_equal(out.text, "hé", 3);
    assert_int_equal(out.usage.completion_tokens, 17);
    assert_int_equal(out.usage.prompt_tokens, 1);
    assert_int_equal(out.n_logprobs, 2);
    assert_memory_equal(out.logprobs, lps, sizeof lps);
    assert_int_equal(out.n_prompt_logprobs, 1);
    assert_true(isnan(out.prompt_logprobs[0].chosen.logprob));
    assert_int_equal(out.n_prompt_token_ids, 1);
    codec_scratch_free(&scratch);
}

static void complete_round_trip(void **state)
{
    (void)state;
    struct event events[2] = {{.kind = EVENT_FINISHED,
                               .text = "",
                               .finish_reason = FINISH_STOP,
                               .stop_string = "END",
                               .stop_token_id = -1,
                               .usage = {10, 20, 5, 1},
                               .timings = {1, -1, 3}},
                              {.kind = EVENT_FINISHED,
                               .choice_index = 1,
                               .text = "x",
                               .text_bytes = 1,
                               .finish_reason = FINISH_ABORT,
                               .stop_token_id = 0}};
    struct codec_answer answer = {.request_id = "r", .model = &model};
    struct codec_bytes bytes = codec_encode_whole(&answer, events, 2);
    struct codec_scratch scratch = {0};
    const struct event *out;
    size_t n_events;
    struct codec_origin origin;
    assert_int_equal(codec_decode_whole(bytes.data, bytes.size, &scratch, &origin, &out, &n_events).code,
                     ERR_OK);
    assert_int_equal(n_events, 2);
    assert_string_equal(origin.request_id, "r");
    assert_string_equal(origin.model, model.model);
    assert_string_equal(origin.fingerprint, model.fingerprint);
    assert_int_equal(out[0].finish_reason, FINISH_STOP);
    assert_string_equal(out[0].stop_string, "END");
    assert_int_equal(out[0].stop_token_id, -1);
    assert_memory_equal(&out[0].usage, &events[0].usage, sizeof events[0].usage);
    assert_memory_equal(&out[0].timings, &events[0].timings, sizeof events[0].timings);
    assert_int_equal(out[1].finish_reason, FINISH_ABORT);
    assert_int_equal(out[1].stop_token_id, 0);
    assert_null(out[1].stop_string);
    assert_int_equal(out[1].choice_index, 1);
    codec_scratch_free(&scratch);
    bytes = codec_encode_event(&answer, &events[1], 0);
    struct event one;
    assert_int_equal(codec_decode_response(bytes.data, bytes.size, &scratch, &origin, &one).code, ERR_OK);
    assert_int_equal(one.kind, EVENT_FINISHED);
    codec_scratch_free(&scratch);
}

static void small_messages(void **state)
{
    (void)state;
    struct codec_scratch scratch = {0};
    struct abort_request abort_request = {.request_ids = stops, .n_request_ids = 2}, aborted;
    struct codec_bytes bytes = codec_encode_abort(&abort_request);
    assert_int_equal(codec_decode_abort(bytes.data, bytes.size, &scratch, &aborted).code, ERR_OK);
    assert_int_equal(aborted.n_request_ids, 2);
    assert_string_equal(aborted.request_ids[1], "END");
    abort_request.n_request_ids = 0;
    bytes = codec_encode_abort(&abort_request);
    assert_int_equal(codec_decode_abort(bytes.data, bytes.size, &scratch, &aborted).code,
                     ERR_INVALID_ARGUMENT);
    struct detokenize_request detokenize = {some_ids, 4, false}, detokenized;
    bytes = codec_encode_detokenize(&detokenize);
    assert_int_equal(codec_decode_detokenize(bytes.data, bytes.size, &scratch, &detokenized).code, ERR_OK);
    assert_int_equal(detokenized.n_token_ids, 4);
    assert_false(detokenized.skip_special_tokens);
    uint32_t interval_ms;
    assert_int_equal(codec_decode_watch_loads(NULL, 0, &scratch, &interval_ms).code, ERR_OK);
    assert_int_equal(interval_ms, CODEC_WATCH_INTERVAL_DEFAULT_MS);
    bytes = codec_encode_watch_loads(CODEC_WATCH_INTERVAL_MAX_MS + 1);
    assert_int_equal(codec_decode_watch_loads(bytes.data, bytes.size, &scratch, &interval_ms).code,
                     ERR_INVALID_ARGUMENT);
    bytes = codec_encode_watch_loads(CODEC_WATCH_INTERVAL_MAX_MS);
    assert_int_equal(codec_decode_watch_loads(bytes.data, bytes.size, &scratch, &interval_ms).code, ERR_OK);
    assert_int_equal(codec_decode_empty(NULL, 0, &scratch).code, ERR_OK);
    assert_int_equal(codec_decode_empty((const uint8_t *)"abcd", 4, &scratch).code, ERR_INVALID_ARGUMENT);
    codec_scratch_free(&scratch);
}

/* A chain, blocks of another tenant, and what is gone: as it was, and as few events on the wire as there are
 * runs. */
static void kv_events_round_trip(void **state)
{
    (void)state;
    static const struct kv_event events[] = {
        {.kind = KV_ALL_CLEARED},
        {.kind = KV_BLOCK_STORED, .block_hash = INT64_MIN, .token_ids = some_ids},
        {.kind = KV_BLOCK_STORED,
         .block_hash = 7,
         .has_parent = true,
         .parent_block_hash = INT64_MIN,
         .token_ids = some_ids + 2},
        {.kind = KV_BLOCK_STORED,
         .block_hash = -9,
         .has_parent = true,
         .parent_block_hash = 7,
         .token_ids = some_ids,
         .cache_salt = "tenant b"},
        {.kind = KV_BLOCK_STORED,
         .block_hash = 10,
         .has_parent = true,
         .parent_block_hash = 7,
         .token_ids = some_ids},
        {.kind = KV_BLOCK_REMOVED, .block_hash = INT64_MAX},
        {.kind = KV_BLOCK_REMOVED, .block_hash = -1},
    };
    enum { N = sizeof events / sizeof events[0], RUNS = 5 };
    struct kv_event_batch batch = {.sequence_number = 1795764773284034,
                                   .unix_ns = 1500000000,
                                   .block_tokens = 2,
                                   .events = events,
                                   .n_events = N,
                                   .is_snapshot = true,
                                   .snapshot_index = 2,
                                   .snapshot_count = 3,
                                   .snapshot_blocks = 2050};
    struct codec_scratch scratch = {0};
    struct kv_event_batch read;
    uint64_t last_event_id = 40, sequence_number;
    struct codec_bytes bytes = codec_encode_kv_events(&batch, &last_event_id);
    assert_int_equal(last_event_id, 40); /* a snapshot's have no numbers */
    assert_int_equal(codec_decode_kv_events(bytes.data, bytes.size, &scratch, &read).code, ERR_OK);
    assert_int_equal(read.sequence_number, batch.sequence_number);
    assert_int_equal(read.unix_ns, batch.unix_ns);
    assert_int_equal(read.block_tokens, 2);
    assert_true(read.is_snapshot);
    assert_int_equal(read.snapshot_index, 2);
    assert_int_equal(read.snapshot_count, 3);
    assert_int_equal(read.snapshot_blocks, 2050);
    assert_int_equal(read.n_events, N);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(read.events[i].kind, events[i].kind);
        assert_int_equal(read.events[i].block_hash, events[i].block_hash);
        assert_int_equal(read.events[i].has_parent, events[i].has_parent);
        assert_int_equal(read.events[i].parent_block_hash, events[i].parent_block_hash);
        if (events[i].kind == KV_BLOCK_STORED)
            assert_memory_equal(read.events[i].token_ids, events[i].token_ids, 2 * sizeof(uint32_t));
        assert_int_equal(read.events[i].cache_salt != NULL, events[i].cache_salt != NULL);
    }
    assert_string_equal(read.events[3].cache_salt, "tenant b");
    codec_scratch_free(&scratch);
    batch.is_snapshot = false;
    bytes = codec_encode_kv_events(&batch, &last_event_id);
    assert_int_equal(last_event_id, 40 + RUNS);
    assert_int_equal(codec_decode_kv_events(bytes.data, bytes.size, &scratch, &read).code, ERR_OK);
    assert_false(read.is_snapshot);
    codec_scratch_free(&scratch);
    assert_int_equal(codec_decode_kv_events((const uint8_t *)"abcd", 4, &scratch, &read).code, ERR_DATA_LOSS);
    codec_scratch_free(&scratch);
    bytes = codec_encode_kv_subscribe(UINT64_MAX);
    assert_int_equal(codec_decode_kv_subscribe(bytes.data, bytes.size, &scratch, &sequence_number).code,
                     ERR_OK);
    assert_true(sequence_number == UINT64_MAX);
    assert_int_equal(codec_decode_kv_subscribe(NULL, 0, &scratch, &sequence_number).code, ERR_OK);
    assert_int_equal(sequence_number, 0);
    codec_scratch_free(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_round_trip),
        cmocka_unit_test(unset_stays_unset),
        cmocka_unit_test(nul_in_a_name_is_refused),
        cmocka_unit_test(corrupted_requests_are_harmless),
        cmocka_unit_test(too_many_messages_are_refused),
        cmocka_unit_test(no_memory_is_an_error),
        cmocka_unit_test(chunk_round_trip),
        cmocka_unit_test(complete_round_trip),
        cmocka_unit_test(small_messages),
        cmocka_unit_test(kv_events_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
