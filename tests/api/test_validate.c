/* The validator: every field at its edges and just past them, and messages that name the field. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "api/validate.h"

enum { VOCAB = 1000, MODEL_LEN = 128 };

static const struct validate_limits LIMITS = {.vocab_size = VOCAB,
                                              .max_model_len = MODEL_LEN,
                                              .max_n = 8,
                                              .has_tokenizer = true,
                                              .has_chat_template = true};

static const uint32_t IDS[MODEL_LEN + 1] = {1, 2, 3};

static struct request good(void)
{
    return (struct request){.prompt_kind = PROMPT_TOKEN_IDS, .token_ids = IDS, .n_token_ids = 3};
}

static void accept_with(const struct request *request, const struct validate_limits *limits)
{
    err_t e = validate_request(request, limits);
    if (e.code != ERR_OK)
        fail_msg("refused: %s", e.message);
}

/* Refused as INVALID_ARGUMENT, and the message has all the words (separated by '|'). */
static void refuse_with(const struct request *request, const struct validate_limits *limits,
                        const char *words)
{
    err_t e = validate_request(request, limits);
    if (e.code == ERR_OK)
        fail_msg("accepted, though \"%s\"", words);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    char copy[256], *rest = NULL;
    (void)snprintf(copy, sizeof copy, "%s", words);
    for (char *word = strtok_r(copy, "|", &rest); word; word = strtok_r(NULL, "|", &rest))
        if (!strstr(e.message, word))
            fail_msg("\"%s\" does not say \"%s\"", e.message, word);
}

static void accept(const struct request *request)
{
    accept_with(request, &LIMITS);
}

static void refuse(const struct request *request, const char *words)
{
    refuse_with(request, &LIMITS, words);
}

/* ---- Scalars ---- */

static void test_floats(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t bit;
        size_t offset;
        float low, high;
        bool low_is_out;
    } fields[] = {
        {"temperature", SAMPLING_TEMPERATURE, offsetof(struct sampling_params, temperature), 0, 100, false},
        {"top_p", SAMPLING_TOP_P, offsetof(struct sampling_params, top_p), 0, 1, true},
        {"min_p", SAMPLING_MIN_P, offsetof(struct sampling_params, min_p), 0, 1, false},
        {"repetition_penalty", SAMPLING_REPETITION_PENALTY,
         offsetof(struct sampling_params, repetition_penalty), SAMPLING_REPETITION_PENALTY_MIN,
         SAMPLING_REPETITION_PENALTY_MAX, false},
        {"presence_penalty", SAMPLING_PRESENCE_PENALTY, offsetof(struct sampling_params, presence_penalty),
         -2, 2, false},
        {"frequency_penalty", SAMPLING_FREQUENCY_PENALTY, offsetof(struct sampling_params, frequency_penalty),
         -2, 2, false},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        struct request request = good();
        float *value = (float *)((char *)&request.sampling + fields[i].offset);
        const float below = nextafterf(fields[i].low, -INFINITY),
                    above = nextafterf(fields[i].high, INFINITY);
        const float bad[] = {below, above, -INFINITY, INFINITY, NAN, -1e30f, fields[i].low};
        const float fine[] = {nextafterf(fields[i].low, INFINITY), fields[i].high, 0.5f, fields[i].low};
        size_t n_bad = sizeof bad / sizeof *bad - !fields[i].low_is_out;
        size_t n_fine = sizeof fine / sizeof *fine - fields[i].low_is_out;
        for (size_t k = 0; k < n_bad; k++) {
            *value = bad[k];
            request.sampling.set = fields[i].bit;
            refuse(&request, fields[i].name);
            request.sampling.set = 0; /* what is unset is not looked at */
            accept(&request);
        }
        for (size_t k = 0; k < n_fine; k++) {
            *value = fine[k];
            request.sampling.set = fields[i].bit;
            accept(&request);
        }
    }
}

static void test_integers(void **state)
{
    (void)state;
    struct request request = good();
    struct sampling_params *p = &request.sampling;
    p->set = SAMPLING_TOP_K;
    for (int32_t top_k = -3; top_k <= 2; top_k++) {
        p->top_k = top_k;
        if (top_k < -1)
            refuse(&request, "top_k|-1");
        else
            accept(&request);
    }
    p->top_k = INT32_MAX;
    accept(&request);
    p->top_k = INT32_MIN;
    refuse(&request, "top_k");
    p->set = SAMPLING_N;
    p->n = 0;
    refuse(&request, "n is 0|1 to 8");
    p->n = 8;
    accept(&request);
    p->n = 9;
    refuse(&request, "n is 9|1 to 8");
    struct validate_limits wide = LIMITS;
    wide.max_n = 1000;
    p->n = SAMPLING_N_MAX;
    accept_with(&request, &wide);
    p->n = SAMPLING_N_MAX + 1;
    refuse_with(&request, &wide, "n is 65|1 to 64");
    p->n = UINT32_MAX;
    refuse(&request, "n is 4294967295");
    p->set = SAMPLING_LOGPROBS;
    for (int32_t k = -2; k <= SAMPLING_LOGPROBS_MAX + 1; k++) {
        p->logprobs = k;
        if (k < -1 || k > SAMPLING_LOGPROBS_MAX)
            refuse(&request, "logprobs|-1 to 20");
        else
            accept(&request);
    }
    p->set = SAMPLING_PROMPT_LOGPROBS;
    p->prompt_logprobs = SAMPLING_LOGPROBS_MAX;
    accept(&request);
    p->prompt_logprobs++;
    refuse(&request, "prompt_logprobs|-1 to 20");
    p->prompt_logprobs = INT32_MIN;
    refuse(&request, "prompt_logprobs");
    request = good();
    request.priority = REQUEST_PRIORITY_LIMIT;
    accept(&request);
    request.priority++;
    refuse(&request, "priority|1000001");
    request.priority = -REQUEST_PRIORITY_LIMIT - 1;
    refuse(&request, "priority");
}

/* ---- Prompts and names ---- */

static void test_names(void **state)
{
    (void)state;
    char text[REQUEST_MODEL_BYTES_MAX + 2];
    static const struct {
        const char *name;
        size_t offset, max_bytes;
    } fields[] = {
        {"request_id", offsetof(struct request, request_id), REQUEST_ID_BYTES_MAX},
        {"model", offsetof(struct request, model), REQUEST_MODEL_BYTES_MAX},
        {"tenant", offsetof(struct request, tenant), REQUEST_TENANT_BYTES_MAX},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        struct request request = good();
        *(const char **)((char *)&request + fields[i].offset) = text;
        memset(text, 'x', sizeof text);
        text[fields[i].max_bytes] = '\0';
        accept(&request);
        text[fields[i].max_bytes] = 'x';
        text[fields[i].max_bytes + 1] = '\0';
        refuse(&request, fields[i].name);
        memcpy(text, "a\xc3\xa9\xe2\x82\xac", 7);
        accept(&request);
        memcpy(text, "a\xc3", 3);
        refuse(&request, fields[i].name);
        memcpy(text, "a\nb", 4);
        refuse(&request, fields[i].name);
        memcpy(text, "a\x7f", 3);
        refuse(&request, fields[i].name);
        text[0] = '\0';
        accept(&request);
    }
}

static void test_prompts(void **state)
{
    (void)state;
    struct validate_limits bare = LIMITS;
    bare.has_tokenizer = bare.has_chat_template = false;
    struct request request = {.prompt_kind = PROMPT_NONE};
    refuse(&request, "no prompt");
    request.prompt_kind = (enum prompt_kind)99;
    refuse(&request, "prompt_kind|99");
    request = (struct request){.prompt_kind = PROMPT_TEXT, .text = "text", .text_bytes = 4};
    accept(&request);
    refuse_with(&request, &bare, "text|tokenizer");
    request.text = "te\xff";
    refuse(&request, "text|UTF-8");
    request.text = NULL;
    refuse(&request, "text");
    request.text_bytes = 0; /* the template or BOS may still make tokens of it */
    accept(&request);
    request = good();
    request.n_token_ids = 0;
    refuse(&request, "token_ids");
    request.n_token_ids = MODEL_LEN - 1;
    accept(&request);
    request.n_token_ids = MODEL_LEN;
    refuse(&request, "128|127");
    request.n_token_ids = SIZE_MAX;
    refuse(&request, "prompt");
    request.n_token_ids = 3;
    request.token_ids = NULL;
    refuse(&request, "token_ids");
    const uint32_t ids[] = {0, VOCAB - 1, VOCAB};
    request.token_ids = ids;
    request.n_token_ids = 2;
    accept(&request);
    request.n_token_ids = 3;
    refuse(&request, "token_ids[2]|1000|999");
    request = good();
    request.output_prefix_ids = ids;
    request.n_output_prefix_ids = 2;
    accept(&request);
    request.n_output_prefix_ids = 3;
    refuse(&request, "output_prefix_ids[2]|1000");
    request.n_output_prefix_ids = 2;
    request.sampling.set = SAMPLING_N;
    request.sampling.n = 1;
    accept(&request);
    request.sampling.n = 2;
    refuse(&request, "output_prefix_ids|n is 2");
    request = good();
    request.output_prefix_ids = IDS;
    request.n_output_prefix_ids = MODEL_LEN + 1;
    refuse(&request, "output_prefix_ids|129");
}

/* Only the end of a prompt counts, however long it is; how much of it, the resolved parameters say. */
static void test_truncation(void **state)
{
    (void)state;
    static uint32_t ids[MODEL_LEN + 50];
    struct request request = good();
    struct sampling_params *p = &request.sampling;
    request.token_ids = ids;
    request.n_token_ids = MODEL_LEN + 50;
    refuse(&request, "the model's length");
    p->set = SAMPLING_TRUNCATE_PROMPT_TOKENS;
    for (int32_t last = -2; last <= MODEL_LEN + 1; last++) {
        p->truncate_prompt_tokens = last;
        request.n_token_ids = last == 0 ? 3 : MODEL_LEN + 50;
        if (last == -1 || (last >= 1 && last <= MODEL_LEN))
            accept(&request);
        else
            refuse(&request, "truncate_prompt_tokens|-1 for what fits");
    }
    static const struct {
        int32_t last;
        uint32_t max_tokens;
        size_t n, kept;
    } CASES[] = {
        {SAMPLING_TRUNCATE_NOTHING, 5, 500, 500},
        {7, 5, 500, 7},
        {7, 5, 6, 6},
        {SAMPLING_TRUNCATE_TO_FIT, 5, 500, MODEL_LEN - 5},
        {SAMPLING_TRUNCATE_TO_FIT, 5, 3, 3},
        {SAMPLING_TRUNCATE_TO_FIT, 0, 500, MODEL_LEN - 1},
        {SAMPLING_TRUNCATE_TO_FIT, MODEL_LEN, 500, 1},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct sampling_params resolved = {
            .set = UINT32_MAX, .truncate_prompt_tokens = CASES[i].last, .max_tokens = CASES[i].max_tokens};
        assert_int_equal(validate_truncated(&resolved, CASES[i].n, &LIMITS), CASES[i].kept);
    }
}

static void test_messages(void **state)
{
    (void)state;
    struct validate_limits bare = LIMITS, no_template = LIMITS;
    bare.has_tokenizer = bare.has_chat_template = false;
    no_template.has_chat_template = false;
    struct chat_message messages[2] = {{"user", "hello", 5}, {"assistant", NULL, 0}};
    struct request request = {.prompt_kind = PROMPT_MESSAGES, .messages = messages, .n_messages = 2};
    accept(&request);
    refuse_with(&request, &bare, "messages|tokenizer");
    refuse_with(&request, &no_template, "messages|template");
    request.n_messages = 0;
    refuse(&request, "messages|0");
    request.n_messages = REQUEST_MESSAGES_MAX + 1;
    refuse(&request, "messages|4097|4096");
    request.n_messages = 2;
    request.messages = NULL;
    refuse(&request, "messages");
    request.messages = messages;
    messages[1].content_bytes = 3;
    refuse(&request, "messages[1].content");
    messages[1].content = "a\xf0\x9f";
    refuse(&request, "messages[1].content|UTF-8");
    messages[1] = (struct chat_message){NULL, "x", 1};
    refuse(&request, "messages[1].role");
    messages[1].role = "";
    refuse(&request, "messages[1].role");
    messages[1].role = "a-role-of-more-than-32-characters";
    refuse(&request, "messages[1].role|32");
    messages[1].role = "us\ter";
    refuse(&request, "messages[1].role");
    messages[1].role = "tool";
    accept(&request);
    request.template_json = "{}";
    request.template_json_bytes = 2;
    accept(&request);
    request = good();
    request.template_json = "{}";
    refuse(&request, "template_json|messages");
}

/* ---- Lists ---- */

static void test_texts(void **state)
{
    (void)state;
    struct validate_limits bare = LIMITS;
    bare.has_tokenizer = bare.has_chat_template = false;
    char longest[SAMPLING_STOP_BYTES_MAX + 2];
    memset(longest, 's', sizeof longest);
    longest[SAMPLING_STOP_BYTES_MAX] = '\0';
    const char *texts[SAMPLING_BAD_WORDS_MAX + 1];
    for (size_t i = 0; i < SAMPLING_BAD_WORDS_MAX + 1; i++)
        texts[i] = longest;
    for (int which = 0; which < 2; which++) {
        struct request request = good();
        const char *name = which ? "bad_words" : "stop";
        size_t max = which ? SAMPLING_BAD_WORDS_MAX : SAMPLING_STOP_MAX;
        const char *const **list = which ? &request.sampling.bad_words : &request.sampling.stop;
        size_t *n = which ? &request.sampling.n_bad_words : &request.sampling.n_stop;
        *list = texts;
        *n = max;
        accept(&request);
        refuse_with(&request, &bare, name);
        *n = max + 1;
        refuse(&request, name);
        *n = 2;
        const char *const bad[] = {"", NULL, "\xc0\x80", "\xed\xa0\x80"};
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            texts[1] = bad[i];
            refuse(&request, which ? "bad_words[1]" : "stop[1]");
        }
        texts[1] = longest;
        longest[SAMPLING_STOP_BYTES_MAX] = 's';
        longest[SAMPLING_STOP_BYTES_MAX + 1] = '\0';
        refuse(&request, which ? "bad_words[0]|256" : "stop[0]|256");
        longest[SAMPLING_STOP_BYTES_MAX] = '\0';
        *list = NULL;
        refuse(&request, name);
    }
}

static void test_id_lists(void **state)
{
    (void)state;
    static uint32_t ids[SAMPLING_ALLOWED_IDS_MAX + 1];
    struct request request = good();
    struct sampling_params *p = &request.sampling;
    p->stop_token_ids = ids;
    p->n_stop_token_ids = SAMPLING_STOP_IDS_MAX;
    accept(&request);
    p->n_stop_token_ids++;
    refuse(&request, "stop_token_ids|65|64");
    p->n_stop_token_ids = 2;
    ids[1] = VOCAB;
    refuse(&request, "stop_token_ids[1]|1000|999");
    p->stop_token_ids = NULL;
    refuse(&request, "stop_token_ids");
    p->n_stop_token_ids = 0;
    ids[1] = 0;
    p->allowed_token_ids = ids;
    p->n_allowed_token_ids = SAMPLING_ALLOWED_IDS_MAX;
    accept(&request);
    p->n_allowed_token_ids++;
    refuse(&request, "allowed_token_ids|262145");
    p->n_allowed_token_ids = 2;
    ids[1] = UINT32_MAX;
    refuse(&request, "allowed_token_ids[1]|4294967295");
}

static void test_logit_bias(void **state)
{
    (void)state;
    static struct logit_bias bias[SAMPLING_LOGIT_BIAS_MAX + 1];
    struct request request = good();
    struct sampling_params *p = &request.sampling;
    p->logit_bias = bias;
    p->n_logit_bias = SAMPLING_LOGIT_BIAS_MAX;
    accept(&request);
    p->n_logit_bias++;
    refuse(&request, "logit_bias|1025|1024");
    p->n_logit_bias = 2;
    const float fine[] = {-100, 100, 0.5f}, bad[] = {NAN, INFINITY, -INFINITY, 100.5f, -101};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        bias[1].bias = fine[i];
        accept(&request);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bias[1].bias = bad[i];
        refuse(&request, "logit_bias[1]|100");
    }
    bias[1] = (struct logit_bias){VOCAB, 0};
    refuse(&request, "logit_bias[1]|1000|999");
    p->logit_bias = NULL;
    refuse(&request, "logit_bias");
}

/* ---- After tokenising ---- */

static void test_resolved(void **state)
{
    (void)state;
    struct sampling_params p = sampling_params_builtin();
    assert_int_equal(validate_resolved(&p, 0, 0, &LIMITS).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(validate_resolved(&p, MODEL_LEN, 0, &LIMITS).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(validate_resolved(&p, SIZE_MAX, 0, &LIMITS).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(validate_resolved(&p, SIZE_MAX, SIZE_MAX, &LIMITS).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(validate_resolved(&p, MODEL_LEN - 5, 5, &LIMITS).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(validate_resolved(&p, MODEL_LEN - 1, 0, &LIMITS).code, ERR_OK);
    assert_int_equal(p.max_tokens, 1); /* lowered to what the model's length leaves */
    p.max_tokens = 0;
    assert_int_equal(validate_resolved(&p, 28, 10, &LIMITS).code, ERR_OK);
    assert_int_equal(p.max_tokens, 100); /* the handed-over output is part of it */
    p.max_tokens = 50;
    assert_int_equal(validate_resolved(&p, 28, 49, &LIMITS).code, ERR_OK);
    assert_int_equal(p.max_tokens, 50);
    err_t e = validate_resolved(&p, 28, 50, &LIMITS);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "output_prefix_ids"));
    p.min_tokens = 50;
    assert_int_equal(validate_resolved(&p, 28, 0, &LIMITS).code, ERR_OK);
    p.min_tokens = 51;
    e = validate_resolved(&p, 28, 0, &LIMITS);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "min_tokens is 51"));
    assert_non_null(strstr(e.message, "50"));
}

static void test_too_long(void **state)
{
    (void)state;
    struct sampling_params p = sampling_params_builtin();
    uint64_t n_tokens = 0;
    err_t e = validate_resolved(&p, MODEL_LEN + 7, 0, &LIMITS);
    assert_true(validate_is_too_long(&e, &n_tokens));
    assert_int_equal(n_tokens, MODEL_LEN + 7);
    e = err_prefix(validate_resolved(&p, MODEL_LEN, 5, &LIMITS), "127.0.0.1:50051");
    assert_true(validate_is_too_long(&e, &n_tokens));
    assert_int_equal(n_tokens, MODEL_LEN + 5);
    e.code = ERR_UNAVAILABLE;
    assert_false(validate_is_too_long(&e, &n_tokens));
    e = validate_resolved(&p, 0, 0, &LIMITS);
    assert_false(validate_is_too_long(&e, &n_tokens));
    e = err_new(ERR_INVALID_ARGUMENT, "the prompt has words; the model's length is none");
    assert_false(validate_is_too_long(&e, &n_tokens));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floats),   cmocka_unit_test(test_integers),   cmocka_unit_test(test_names),
        cmocka_unit_test(test_prompts),  cmocka_unit_test(test_truncation), cmocka_unit_test(test_messages),
        cmocka_unit_test(test_texts),    cmocka_unit_test(test_id_lists),   cmocka_unit_test(test_logit_bias),
        cmocka_unit_test(test_resolved), cmocka_unit_test(test_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
