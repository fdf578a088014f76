/* Over HTTP: handlers run on the egress thread. */
#include <stdio.h>
#include <string.h>
#include "router/gate/eval_ask_internal.h"
#include "router/policy/request_signals.h"

static err_t take_piece(void *context, const struct answer_piece *piece, bool *pause)
{
    struct eval_slot *slot = context;
    (void)pause;
    if (piece->choice_index != 0)
        return err_ok();
    bool has_room = true;
    if (piece->kind == ANSWER_TEXT || piece->kind == ANSWER_REFUSAL) {
        eval_slot_saw(slot);
        has_room = buffer_append(&slot->text, piece->text, piece->text_bytes);
    } else if (piece->kind == ANSWER_TOOL_CALL) {
        eval_slot_saw(slot);
        has_room = eval_slot_call(slot, piece->tool_index, piece->tool_name, piece->text, piece->text_bytes);
    }
    return has_room
               ? err_ok()
               : err_new(ERR_RESOURCE_EXHAUSTED, "the answer is longer than %d bytes", EVAL_ANSWER_BYTES_MAX);
}

static void take_end(void *context, const struct provider_result *result)
{
    struct eval_slot *slot = context;
    slot->answer->usage = result->usage;
    slot->may_retry = result->may_retry;
    const struct egress_head *head = &result->head;
    bool is_router = head->answered_provider[0] != '\0';
    (void)snprintf(slot->answer->model, sizeof slot->answer->model, "%.63s",
                   is_router ? head->answered_by : result->model);
    slot->answer->cost = result->told_cost;
    slot->answer->is_from_strong = is_router && strcmp(head->answered_provider, "local") != 0;
    eval_slot_end(slot, result->error);
}

static const struct provider_handler HANDLER = {.piece = take_piece, .end = take_end};

/* Whoever evaluates an endpoint has named it for these requests, so that there is no policy to ask; but what
 * says of itself that it must stay on this machine is not asked elsewhere. */
static err_t release(const json_t *request, struct shareable *out)
{
    struct route_hints hints = ROUTE_HINTS_NONE;
    TRY(route_hints_of_body(request, &hints));
    const struct policy_decision decision = {.local_only = hints.local_only};
    return privacy_release(&decision, false, request, out)
               ? err_ok()
               : err_new(ERR_PERMISSION_DENIED, "it must not leave this machine");
}

err_t eval_http_start(struct eval_slot *slot, const json_t *request)
{
    struct eval_endpoint *endpoint = slot->endpoint;
    struct provider_dropped dropped;
    uint64_t number;
    struct shareable shareable;
    TRY(provider_request_check(endpoint->model, request));
    TRY(release(request, &shareable));
    err_t e = provider_call_start(endpoint->egress, endpoint->provider, endpoint->model, &shareable, true,
                                  &HANDLER, slot, &dropped, &number);
    shareable_free(&shareable);
    return e;
}
