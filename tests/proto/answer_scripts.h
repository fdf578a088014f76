/* Answers that only a service which passes requests on gives, for the doors' tests. */
#pragma once

#include "api/event.h"

#define SCRIPT_BYTES(text) (text), sizeof(text) - 1

static const struct answer_source script_source = {.provider = "mock",
                                                   .model = "strong-1",
                                                   .reason = "rule",
                                                   .rule = "tools",
                                                   .cache = "miss",
                                                   .fingerprint = "fp_7",
                                                   .dropped = "top_k,min_p",
                                                   .decision_id = "d-1",
                                                   .cost_nanodollars = -1,
                                                   .attempts = 1};
static const struct answer_source script_paid_source = {.provider = "mock",
                                                        .model = "strong-1",
                                                        .reason = "rule",
                                                        .rule = "tools",
                                                        .cache = "miss",
                                                        .fingerprint = "fp_7",
                                                        .dropped = "top_k,min_p",
                                                        .decision_id = "d-1",
                                                        .cost_nanodollars = 1500000,
                                                        .attempts = 2};

static const struct tool_call script_first_calls[] = {{0, "call_a", "look", SCRIPT_BYTES("{\"at\":")}};
static const struct tool_call script_more_calls[] = {{0, NULL, NULL, SCRIPT_BYTES("\"x\"}")},
                                                     {1, "call_b", "wait", SCRIPT_BYTES("{}")}};

/* Text, then reasoning, then two calls in three pieces; the end has what it cost. */
static const struct event script_tool_answer[] = {
    {.kind = EVENT_TOKENS, .text = "Let me ", .text_bytes = 7, .stop_token_id = -1, .source = &script_source},
    {.kind = EVENT_TOKENS,
     .text = "",
     .stop_token_id = -1,
     .reasoning = "hm",
     .reasoning_bytes = 2,
     .tool_calls = script_first_calls,
     .n_tool_calls = 1},
    {.kind = EVENT_FINISHED,
     .last = true,
     .text = "see",
     .text_bytes = 3,
     .stop_token_id = -1,
     .tool_calls = script_more_calls,
     .n_tool_calls = 2,
     .finish_reason = FINISH_TOOL_CALLS,
     .usage = {.prompt_tokens = 11, .completion_tokens = 7, .cached_tokens = 4},
     .timings = {-1, -1, -1},
     .source = &script_paid_source},
};

/* Whoever answers would not, and did not count. */
static const struct event script_refusal[] = {
    {.kind = EVENT_TOKENS,
     .text = "",
     .stop_token_id = -1,
     .refusal = "I will ",
     .refusal_bytes = 7,
     .source = &script_source},
    {.kind = EVENT_FINISHED,
     .last = true,
     .text = "",
     .stop_token_id = -1,
     .refusal = "not",
     .refusal_bytes = 3,
     .finish_reason = FINISH_CONTENT_FILTER,
     .usage = {.is_unknown = true},
     .timings = {-1, -1, -1},
     .source = &script_source},
};

/* Two choices; the first one's end tells what both took. */
static const struct event script_two_choices[] = {
    {.kind = EVENT_TOKENS,
     .choice_index = 1,
     .text = "b",
     .text_bytes = 1,
     .stop_token_id = -1,
     .source = &script_source},
    {.kind = EVENT_FINISHED,
     .text = "a",
     .text_bytes = 1,
     .stop_token_id = -1,
     .finish_reason = FINISH_STOP,
     .usage = {.prompt_tokens = 5, .completion_tokens = 9},
     .timings = {-1, -1, -1},
     .source = &script_paid_source},
    {.kind = EVENT_FINISHED,
     .last = true,
     .choice_index = 1,
     .text = "",
     .stop_token_id = -1,
     .finish_reason = FINISH_LENGTH,
     .timings = {-1, -1, -1},
     .source = &script_paid_source},
};

/* It breaks in its middle, and was paid for. */
static const struct event script_break[] = {
    {.kind = EVENT_TOKENS, .text = "Let me ", .text_bytes = 7, .stop_token_id = -1, .source = &script_source},
    {.kind = EVENT_FINISHED,
     .last = true,
     .text = "",
     .stop_token_id = -1,
     .finish_reason = FINISH_ERROR,
     .source = &script_paid_source,
     .error = {.code = ERR_UNAVAILABLE, .message = "mock broke off"}},
};

/* Nobody could be asked. */
static const struct event script_failure[] = {
    {.kind = EVENT_FINISHED,
     .last = true,
     .text = "",
     .stop_token_id = -1,
     .finish_reason = FINISH_ERROR,
     .source = &script_source,
     .error = {.code = ERR_UNAVAILABLE, .retry_after_ms = 1700, .message = "mock is down"}},
};
