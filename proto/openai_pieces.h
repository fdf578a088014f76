/* Parts of OpenAI's answers that no engine of ours gives: calls of tools, refusals, reasoning, who answered.
 * All append to *out and return false at its limit or without memory. */
#pragma once

#include "proto/codec_openai.h"

/* Is there any of it in the event? */
bool openai_has_pieces(const struct event *event);
/* As fields behind others of a delta: ,"tool_calls":[...] and the like; nothing for what is not there. */
bool openai_encode_delta_pieces(const struct event *event, struct buffer *out);
/* Likewise of a message, which has all of it; "refusal" is always there. */
bool openai_encode_message_pieces(const struct event *event, struct buffer *out);
/* "bantam":{...} */
bool openai_encode_source(const struct answer_source *source, struct buffer *out);
