"""Bytes of requests, and typed values of answers' bytes, over what flatc makes of proto/bantam.fbs."""

from __future__ import annotations

import dataclasses
import json
import math
import operator
from dataclasses import dataclass
from typing import Any, Callable, Generic, Iterable, Mapping, Sequence, TypeVar, cast

import flatbuffers
import grpc

from bantam import bantam_generated as wire
from bantam import health, kv_events
from bantam.answers import (
    AnswerSource,
    Completion,
    FinishReason,
    Loads,
    ModelInfo,
    Output,
    ServerInfo,
    Timings,
    TokenLogprob,
    ToolCall,
    TopToken,
)
from bantam.errors import error_of
from bantam.parameters import GenerateParams, MessageLike

T = TypeVar("T")

UINT32 = (0, 2**32 - 1)
INT32 = (-(2**31), 2**31 - 1)
UINT64 = (0, 2**64 - 1)
FLOAT32_MAX = 3.4028234663852886e38

# What of SamplingParams is a number, with its range in the schema; the others are below by name.
INTEGERS = {
    "top_k": INT32,
    "max_tokens": UINT32,
    "min_tokens": UINT32,
    "n": UINT32,
    "seed": UINT64,
    "logprobs": INT32,
    "prompt_logprobs": INT32,
    "truncate_prompt_tokens": INT32,
}
FLOATS = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
BOOLS = ("ignore_eos", "skip_special_tokens", "include_stop_str_in_output", "spaces_between_special_tokens")


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


# Requests


def integer(name: str, value: Any, limits: tuple[int, int]) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}: an integer is meant") from None
    if not limits[0] <= number <= limits[1]:
        raise ValueError(f"{name} is {number}: {limits[0]} to {limits[1]}")
    return number


def real(name: str, value: Any) -> float:
    if isinstance(value, str):
        raise TypeError(f"{name} is {value!r}: a number is meant")
    number = float(value)
    if math.isfinite(number) and abs(number) > FLOAT32_MAX:
        raise ValueError(f"{name} is {number}: beyond what 32-bit numbers hold")
    return number


def token_ids(name: str, values: Iterable[int] | None) -> list[int] | None:
    if values is None:
        return None
    try:
        ids = list(map(operator.index, values))
    except TypeError:
        raise TypeError(f"{name}: a list of token ids is meant") from None
    if ids and not (min(ids) >= 0 and max(ids) <= UINT32[1]):
        raise ValueError(f"{name}: a token id is {min(ids) if min(ids) < 0 else max(ids)}, which none can be")
    return ids


def strings(name: str, values: str | Iterable[str] | None) -> list[str] | None:
    if values is None:
        return None
    texts = [values] if isinstance(values, str) else list(values)
    for text in texts:
        string(name, text)
    return texts


def string(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} has {value!r}: a string is meant")
    return value


def chat_messages(messages: Sequence[MessageLike] | None) -> list[Any] | None:
    if messages is None:
        return None
    turns = []
    for message in messages:
        turn = wire.ChatMessageT()
        if isinstance(message, Mapping):
            role, content = message["role"], message["content"]
        else:
            role, content = message
        turn.role, turn.content = string("a message's role", role), string("a message's content", content)
        turns.append(turn)
    return turns


def pack(message: Any) -> bytes:
    builder = flatbuffers.Builder(256)
    builder.Finish(message.Pack(builder))
    return bytes(builder.Output())


def sampling_params(params: Mapping[str, Any]) -> Any:
    sampling = wire.SamplingParamsT()
    for name, limits in INTEGERS.items():
        if params.get(name) is not None:
            setattr(sampling, camel(name), integer(name, params[name], limits))
    for name in FLOATS:
        if params.get(name) is not None:
            setattr(sampling, camel(name), real(name, params[name]))
    for name in BOOLS:
        if params.get(name) is not None:
            setattr(sampling, camel(name), bool(params[name]))
    sampling.stop = strings("stop", params.get("stop"))
    sampling.badWords = strings("bad_words", params.get("bad_words"))
    sampling.stopTokenIds = token_ids("stop_token_ids", params.get("stop_token_ids"))
    sampling.allowedTokenIds = token_ids("allowed_token_ids", params.get("allowed_token_ids"))
    if params.get("logit_bias") is not None:
        sampling.logitBias = []
        for token_id, bias in params["logit_bias"].items():
            entry = wire.LogitBiasT()
            entry.tokenId, entry.bias = integer("logit_bias", token_id, UINT32), real("logit_bias", bias)
            sampling.logitBias.append(entry)
    return sampling


def json_object(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is {value!r}: a mapping, or JSON as a string, is meant")
    return json.dumps(value)


def encode_generate(text: str | None, params: GenerateParams) -> bytes:
    """A GenerateRequest. Call options among params are no part of it."""
    request = wire.GenerateRequestT()
    request.text = string("text", text)
    request.inputIds = token_ids("input_ids", params.get("input_ids"))
    request.messages = chat_messages(params.get("messages"))
    request.outputPrefixIds = token_ids("output_prefix_ids", params.get("output_prefix_ids"))
    request.requestId = string("request_id", params.get("request_id"))
    request.model = string("model", params.get("model"))
    if params.get("priority") is not None:
        request.priority = integer("priority", params["priority"], INT32)
    request.addSpecialTokens = params.get("add_special_tokens")
    request.addGenerationPrompt = params.get("add_generation_prompt")
    request.returnPromptTokenIds = params.get("return_prompt_token_ids")
    request.openaiJson = json_object("openai_json", params.get("openai_json"))
    request.templateJson = json_object("template_json", params.get("template_json"))
    request.samplingParams = sampling_params(params)
    return pack(request)


def encode_tokenize(
    text: str | None,
    messages: Sequence[MessageLike] | None,
    add_special_tokens: bool | None,
    add_generation_prompt: bool | None,
    model: str | None,
    template_json: Mapping[str, Any] | str | None,
) -> bytes:
    request = wire.TokenizeRequestT()
    request.templateJson = json_object("template_json", template_json)
    request.text, request.messages, request.model = string("text", text), chat_messages(messages), string("model", model)
    request.addSpecialTokens, request.addGenerationPrompt = add_special_tokens, add_generation_prompt
    return pack(request)


def encode_detokenize(input_ids: Sequence[int], skip_special_tokens: bool | None) -> bytes:
    request = wire.DetokenizeRequestT()
    request.inputIds, request.skipSpecialTokens = token_ids("input_ids", input_ids), skip_special_tokens
    return pack(request)


def encode_abort(request_ids: Sequence[str]) -> bytes:
    request = wire.AbortRequestT()
    request.requestIds = strings("request_ids", request_ids)
    return pack(request)


def encode_watch_loads(interval_ms: int | None) -> bytes:
    request = wire.WatchLoadsRequestT()
    if interval_ms is not None:
        request.intervalMs = integer("interval_ms", interval_ms, UINT32)
    return pack(request)


def encode_subscribe_kv_events(start_sequence_number: int) -> bytes:
    request = wire.SubscribeKvEventsRequestT()
    request.startSequenceNumber = integer("start_sequence_number", start_sequence_number, UINT64)
    return pack(request)


# Answers. A table's accessors are named after its fields in camel case: TokenIds(i) and TokenIdsLength().


def plain(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def plain_string(value: bytes | None) -> str:
    return "" if value is None else value.decode("utf-8", "replace")


def vector(table: Any, name: str) -> list[Any]:
    get = getattr(table, name)
    return [get(i) for i in range(getattr(table, name + "Length")())]


def optional_vector(table: Any, name: str) -> list[Any] | None:
    return None if getattr(table, name + "IsNone")() else vector(table, name)


def read_logprobs(table: Any) -> list[TokenLogprob] | None:
    """Of an OutputLogProbs or InputLogProbs, whose lists have an entry a token."""
    if table is None:
        return None
    ids, logprobs, ranks = vector(table, "TokenIds"), vector(table, "TokenLogprobs"), vector(table, "Ranks")
    tops: list[tuple[TopToken, ...]] = [
        tuple(map(TopToken, vector(top, "TokenIds"), vector(top, "Values"))) for top in vector(table, "TopLogprobs")
    ]
    n = len(ids)
    ranks, tops = ranks or [0] * n, tops or [()] * n
    if not n == len(logprobs) == len(ranks) == len(tops):
        raise ValueError("lists of logprobs differ in length")
    return list(map(TokenLogprob, ids, logprobs, ranks, tops))


def read_fields(table: Any, kind: type[T]) -> dict[str, Any]:
    """The fields of a dataclass from a table or struct that has them all: numbers, strings and lists of numbers."""
    fields = {}
    for field in dataclasses.fields(cast(Any, kind)):
        name = camel("_" + field.name)
        is_vector = hasattr(table, name + "Length")
        fields[field.name] = vector(table, name) if is_vector else plain(getattr(table, name)())
    return fields


def read_source(table: Any) -> AnswerSource | None:
    if table is None:
        return None
    return AnswerSource(
        provider=plain_string(table.Provider()),
        model=plain_string(table.Model()),
        reason=plain_string(table.Reason()),
        rule=plain_string(table.Rule()),
        cache=plain_string(table.Cache()),
        fingerprint=plain_string(table.Fingerprint()),
        dropped=plain_string(table.Dropped()),
        decision_id=plain_string(table.DecisionId()),
        cost_nanodollars=table.CostNanodollars(),
        attempts=table.Attempts(),
    )


def read_pieces(table: Any) -> dict[str, Any]:
    """What only others than Bantam's own engine answer, of a chunk and a complete alike."""
    calls = [
        ToolCall(call.Index(), plain(call.Id()), plain(call.Name()), plain_string(call.Arguments()))
        for call in vector(table, "ToolCalls")
    ]
    return dict(
        tool_calls=calls,
        refusal=plain(table.Refusal()),
        reasoning=plain(table.Reasoning()),
        source=read_source(table.Source()),
    )


def read_chunk(request_id: str, chunk: Any) -> Output:
    return Output(
        request_id=request_id,
        index=chunk.Index(),
        text=plain_string(chunk.Text()),
        token_ids=vector(chunk, "TokenIds"),
        prompt_tokens=chunk.PromptTokens(),
        completion_tokens=chunk.CompletionTokens(),
        output_logprobs=read_logprobs(chunk.OutputLogprobs()),
        input_logprobs=read_logprobs(chunk.InputLogprobs()),
        prompt_token_ids=optional_vector(chunk, "PromptTokenIds"),
        **read_pieces(chunk),
        finish_reason=None,
    )


def read_complete(request_id: str, complete: Any) -> Completion:
    return Completion(
        request_id=request_id,
        index=complete.Index(),
        text=plain_string(complete.Text()),
        token_ids=vector(complete, "OutputIds"),
        prompt_tokens=complete.PromptTokens(),
        completion_tokens=complete.CompletionTokens(),
        output_logprobs=read_logprobs(complete.OutputLogprobs()),
        input_logprobs=read_logprobs(complete.InputLogprobs()),
        prompt_token_ids=optional_vector(complete, "PromptTokenIds"),
        **read_pieces(complete),
        finish_reason=cast(FinishReason, plain_string(complete.FinishReason())),
        matched_stop_str=plain(complete.MatchedStopStr()),
        matched_token_id=complete.MatchedTokenId(),
        cached_tokens=complete.CachedTokens(),
        preemptions=complete.Preemptions(),
        timings=Timings(**read_fields(complete.Timings(), Timings)),
        fingerprint=plain_string(complete.Fingerprint()),
        model=plain_string(complete.Model()),
        usage_unknown=bool(complete.UsageUnknown()),
    )


def decode_generate(data: bytes) -> Output:
    response = wire.GenerateResponse.GetRootAs(data, 0)
    request_id, chunk = plain_string(response.RequestId()), response.Chunk()
    return read_chunk(request_id, chunk) if chunk is not None else read_complete(request_id, response.Complete())


def decode_generate_whole(data: bytes) -> list[Completion]:
    response = wire.GenerateWholeResponse.GetRootAs(data, 0)
    request_id = plain_string(response.RequestId())
    return [read_complete(request_id, choice) for choice in vector(response, "Choices")]


def decode_tokenize(data: bytes) -> list[int]:
    return vector(wire.TokenizeResponse.GetRootAs(data, 0), "InputIds")


def decode_detokenize(data: bytes) -> str:
    return plain_string(wire.DetokenizeResponse.GetRootAs(data, 0).Text())


def decode_abort(data: bytes) -> list[bool]:
    return list(map(bool, vector(wire.AbortResponse.GetRootAs(data, 0), "Aborted")))


def decode_model_info(data: bytes) -> ModelInfo:
    table = wire.ModelInfoResponse.GetRootAs(data, 0)
    return ModelInfo(**read_fields(table, ModelInfo))


def decode_server_info(data: bytes) -> ServerInfo:
    return ServerInfo(**read_fields(wire.ServerInfoResponse.GetRootAs(data, 0), ServerInfo))


def decode_loads(data: bytes) -> Loads:
    return Loads(**read_fields(wire.LoadsResponse.GetRootAs(data, 0), Loads))


def decode_kv_events(data: bytes) -> kv_events.KvEventBatch:
    return kv_events.read_batch(wire.KvEventBatch.GetRootAs(data, 0))


@dataclass(frozen=True)
class Method(Generic[T]):
    """A path, and what an answer's bytes mean."""

    path: str
    decode: Callable[[bytes], T]

    def read(self, data: bytes) -> T:
        try:
            return self.decode(data)
        except Exception as error:  # flatbuffers checks nothing: what bytes of another kind lead to is anything
            message = f"what {self.path} answered is not the message that it should be ({error!r})"
            raise error_of(grpc.StatusCode.INTERNAL, message, ()) from error


SERVICE = "/bantam.Bantam/"
GENERATE = Method(SERVICE + "Generate", decode_generate)
GENERATE_WHOLE = Method(SERVICE + "GenerateWhole", decode_generate_whole)
TOKENIZE = Method(SERVICE + "Tokenize", decode_tokenize)
DETOKENIZE = Method(SERVICE + "Detokenize", decode_detokenize)
ABORT = Method(SERVICE + "Abort", decode_abort)
MODEL_INFO = Method(SERVICE + "ModelInfo", decode_model_info)
SERVER_INFO = Method(SERVICE + "ServerInfo", decode_server_info)
GET_LOADS = Method(SERVICE + "GetLoads", decode_loads)
WATCH_LOADS = Method(SERVICE + "WatchLoads", decode_loads)
SUBSCRIBE_KV_EVENTS = Method(SERVICE + "SubscribeKvEvents", decode_kv_events)
HEALTH_CHECK = Method(health.SERVICE + "Check", health.decode_check)

# Requests without fields: a table without any, behind its offset.
EMPTY = pack(wire.ServerInfoRequestT())
