"""A small client for Bantam's gRPC door: one file over grpcio and what flatc makes of proto/bantam.fbs.

    from bantam_client import Client

    client = Client("127.0.0.1:50051")
    for output in client.generate("The sea is", max_tokens=32, temperature=0):
        print(output.text, end="", flush=True)

Errors are grpc.RpcError, with the status codes of docs/wire.md. The build puts this file and bantam_generated.py side by
side into <build directory>/clients/python; both are all that a client needs besides grpcio and flatbuffers.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Iterator, Mapping, Sequence

import flatbuffers
import grpc

import bantam_generated as wire

SERVICE = "/bantam.Bantam/"
HEALTH = "/grpc.health.v1.Health/"
HEALTH_NAMES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
MAX_ANSWER_BYTES = 64 << 20


@dataclasses.dataclass
class Output:
    """New output of a choice, or with a finish_reason ("stop", "length", "abort") its end."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None
    raw: Any  # wire.GenerateStreamChunkT or wire.GenerateCompleteT: usage, logprobs, timings, fingerprint


def pack(message: Any) -> bytes:
    """The bytes of an object of the generated module."""
    builder = flatbuffers.Builder(256)
    builder.Finish(message.Pack(builder))
    return bytes(builder.Output())


def unpack(name: str, data: bytes) -> Any:
    """The object of the generated module that the bytes hold: unpack("LoadsResponse", data)."""
    return getattr(wire, name + "T").InitFromObj(getattr(wire, name).GetRootAs(data, 0))


def text_of(value: bytes | str | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""


def ids_of(value: Any) -> list[int]:
    return [] if value is None else [int(item) for item in value]


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def set_fields(message: Any, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if not hasattr(message, camel(name)):
            raise TypeError(f"unknown parameter {name!r} of {type(message).__name__}")
        setattr(message, camel(name), value)


def chat_message(role: str, content: str) -> Any:
    message = wire.ChatMessageT()
    message.role, message.content = role, content
    return message


def generate_request(
    text: str | None = None,
    *,
    input_ids: Sequence[int] | None = None,
    messages: Sequence[tuple[str, str]] | None = None,
    logit_bias: Mapping[int, float] | None = None,
    **parameters: Any,
) -> Any:
    """A wire.GenerateRequestT. parameters: fields of GenerateRequest and of SamplingParams, as proto/bantam.fbs names them."""
    request = wire.GenerateRequestT()
    sampling = wire.SamplingParamsT()
    request.text = text
    request.inputIds = None if input_ids is None else list(input_ids)
    if messages is not None:
        request.messages = [chat_message(role, content) for role, content in messages]
    own = {name: value for name, value in parameters.items() if hasattr(request, camel(name))}
    set_fields(request, own)
    set_fields(sampling, {name: value for name, value in parameters.items() if name not in own})
    if logit_bias is not None:
        sampling.logitBias = []
        for token_id, bias in logit_bias.items():
            entry = wire.LogitBiasT()
            entry.tokenId, entry.bias = token_id, bias
            sampling.logitBias.append(entry)
    request.samplingParams = sampling
    return request


def output_of(message: Any) -> Output:
    finished = isinstance(message, wire.GenerateCompleteT)
    return Output(
        index=message.index,
        text=text_of(message.text),
        token_ids=ids_of(message.outputIds if finished else message.tokenIds),
        finish_reason=text_of(message.finishReason) if finished else None,
        raw=message,
    )


def route_metadata(parameters: Mapping[str, Any], session: str | None) -> list[tuple[str, str]]:
    """What proxies may route by (docs/load-balancing.md), said in headers as in the request."""
    routes = {"model": parameters.get("model"), "priority": parameters.get("priority"), "session": session}
    return [(f"x-bantam-{name}", str(value)) for name, value in routes.items() if value is not None]


class Client:
    """One connection; any thread may use it. Every call takes timeout in seconds, None = no deadline. credentials: of
    grpc.ssl_channel_credentials, for a server with TLS."""

    def __init__(
        self,
        target: str,
        options: Sequence[tuple[str, Any]] = (),
        *,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str | None = None,
    ):
        defaults = [("grpc.max_receive_message_length", MAX_ANSWER_BYTES), ("grpc.enable_retries", 0)]
        if credentials is None:
            self.channel = grpc.insecure_channel(target, options=[*defaults, *options])
        else:
            self.channel = grpc.secure_channel(target, credentials, options=[*defaults, *options])
        self.metadata = [("authorization", f"Bearer {api_key}")] if api_key else []

    def close(self) -> None:
        self.channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def unary(self, path: str, data: bytes, timeout: float | None = None, metadata: Sequence[tuple[str, str]] = ()) -> bytes:
        return self.channel.unary_unary(path)(data, timeout=timeout, metadata=[*self.metadata, *metadata])

    def stream(self, path: str, data: bytes, timeout: float | None = None, metadata: Sequence[tuple[str, str]] = ()) -> Any:
        """The call: iterate over it for the messages, cancel() it to stop."""
        return self.channel.unary_stream(path)(data, timeout=timeout, metadata=[*self.metadata, *metadata])

    def generate(self, text: str | None = None, *, timeout: float | None = None, session: str | None = None,
                 **parameters: Any) -> Iterator[Output]:
        """Streams the outputs; each choice ends with one that has a finish_reason. Closing the iterator cancels. session: a
        name for proxies that send a conversation where its prefix is cached."""
        request = pack(generate_request(text, **parameters))
        call = self.stream(SERVICE + "Generate", request, timeout, route_metadata(parameters, session))
        try:
            for data in call:
                response = unpack("GenerateResponse", data)
                yield output_of(response.chunk or response.complete)
        finally:
            call.cancel()

    def generate_whole(self, text: str | None = None, *, timeout: float | None = None, session: str | None = None,
                       **parameters: Any) -> list[Output]:
        """One Output a choice, with all of it."""
        request = pack(generate_request(text, **parameters))
        data = self.unary(SERVICE + "GenerateWhole", request, timeout, route_metadata(parameters, session))
        return [output_of(choice) for choice in unpack("GenerateWholeResponse", data).choices]

    def call(self, method: str, request: Any, answer: str, timeout: float | None = None) -> Any:
        return unpack(answer, self.unary(SERVICE + method, pack(request), timeout))

    def tokenize(self, text: str | None = None, *, messages: Sequence[tuple[str, str]] | None = None, **fields: Any) -> list[int]:
        request = wire.TokenizeRequestT()
        request.text = text
        if messages is not None:
            request.messages = [chat_message(role, content) for role, content in messages]
        set_fields(request, fields)
        return ids_of(self.call("Tokenize", request, "TokenizeResponse").inputIds)

    def detokenize(self, input_ids: Sequence[int], **fields: Any) -> str:
        request = wire.DetokenizeRequestT()
        request.inputIds = list(input_ids)
        set_fields(request, fields)
        return text_of(self.call("Detokenize", request, "DetokenizeResponse").text)

    def abort(self, *request_ids: str) -> list[bool]:
        request = wire.AbortRequestT()
        request.requestIds = list(request_ids)
        return [bool(one) for one in self.call("Abort", request, "AbortResponse").aborted]

    def model_info(self) -> Any:
        return self.call("ModelInfo", wire.ModelInfoRequestT(), "ModelInfoResponse")

    def server_info(self) -> Any:
        return self.call("ServerInfo", wire.ServerInfoRequestT(), "ServerInfoResponse")

    def loads(self) -> Any:
        return self.call("GetLoads", wire.GetLoadsRequestT(), "LoadsResponse")

    def watch_loads(self, interval_ms: int = 1000) -> Iterator[Any]:
        request = wire.WatchLoadsRequestT()
        request.intervalMs = interval_ms
        call = self.stream(SERVICE + "WatchLoads", pack(request))
        try:
            for data in call:
                yield unpack("LoadsResponse", data)
        finally:
            call.cancel()

    def health(self, service: str = "", timeout: float | None = None) -> str:
        """grpc.health.v1 Check: "SERVING", "NOT_SERVING"."""
        name = service.encode()
        request = b"\x0a" + bytes([len(name)]) + name if name else b""
        answer = self.unary(HEALTH + "Check", request, timeout)
        return HEALTH_NAMES[answer[1] if answer else 0]
