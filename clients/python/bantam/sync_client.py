"""The client for threads."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Generic, Iterator, Mapping, Sequence, TypeVar

import grpc

from bantam import codec
from bantam.answers import Completion, Loads, ModelInfo, Output, ServerInfo
from bantam.codec import Method
from bantam.connection import MAX_ANSWER_BYTES, Connection, Metadata, Tls
from bantam.errors import cancelled_here, from_rpc_error
from bantam.health import HealthStatus, encode_check
from bantam.kv_events import KvEventBatch
from bantam.parameters import CallOptions, GenerateParams, MessageLike
from bantam.retry import Attempts, Retry

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

T = TypeVar("T")


class Stream(Generic[T], Iterator[T]):
    """The answers of a call as they come. Leaving it, by break, an exception, the end of a with block, close() or cancel(), ends
    the request on the server at once. One thread iterates; any may cancel."""

    def __init__(self, start: Callable[[float | None], Any], read: Callable[[bytes], T], attempts: Attempts):
        self._start = start
        self._read = read
        self._attempts = attempts
        self._has_begun = False
        self._left = threading.Event()
        self._call = start(attempts.remaining())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        while True:
            try:
                data = next(self._call)
            except grpc.RpcError as error:
                self._try_again(error)
                continue
            self._has_begun = True
            return self._read(data)

    def _try_again(self, error: grpc.RpcError) -> None:
        """Starts another attempt, or raises the error."""
        failure = from_rpc_error(error)
        delay = None if self._has_begun else self._attempts.delay_after(failure)
        if delay is None:
            raise failure from None
        if self._left.wait(delay):
            raise cancelled_here() from None
        self._call = self._start(self._attempts.remaining())
        if self._left.is_set():
            self._call.cancel()

    def cancel(self) -> None:
        """Ends the request; who iterates gets a CancelledError, unless the stream had ended. Harmless afterwards."""
        self._left.set()
        self._call.cancel()

    close = cancel

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def __del__(self) -> None:
        if hasattr(self, "_call"):
            self.cancel()


class Client:
    """A connection to a server, or to a balancer in front of several; any thread may use it. It connects with the first call.

    target: "host:port", or anything else that gRPC resolves, as "dns:///name:port" and "unix:/path"
    tls: None = in the clear; Tls() trusts public authorities
    api_key: sent as a bearer token. In the clear everybody on the way can read it
    timeout: seconds of a call that does not name its own; None = no deadline
    retry: None = a failed call is not made again
    metadata: headers of every call
    max_answer_bytes: whole answers with many logprobs are large
    keepalive: seconds between pings of a silent connection, at least 10; None = none
    channel_options: more of gRPC's own, e.g. ("grpc.lb_policy_name", "round_robin")
    """

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None = None,
        api_key: str | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
        metadata: Metadata = (),
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        keepalive: float | None = None,
        channel_options: Sequence[tuple[str, Any]] = (),
    ):
        self._connection = Connection(
            target,
            tls=tls,
            api_key=api_key,
            timeout=timeout,
            retry=retry,
            metadata=metadata,
            max_answer_bytes=max_answer_bytes,
            keepalive=keepalive,
            channel_options=channel_options,
        )
        options = self._connection.options
        if self._connection.credentials is None:
            self.channel = grpc.insecure_channel(target, options)
        else:
            self.channel = grpc.secure_channel(target, self._connection.credentials, options)

    def close(self) -> None:
        """Ends all calls that are under way."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def generate(self, text: str | None = None, **params: Unpack[GenerateParams]) -> Stream[Output]:
        """Streams what is new; each choice ends with a Completion."""
        return self._stream(codec.GENERATE, codec.encode_generate(text, params), params, GenerateParams)

    def generate_whole(self, text: str | None = None, **params: Unpack[GenerateParams]) -> list[Completion]:
        """All choices, when they have ended."""
        return self._unary(codec.GENERATE_WHOLE, codec.encode_generate(text, params), params, GenerateParams)

    def tokenize(
        self,
        text: str | None = None,
        *,
        messages: Sequence[MessageLike] | None = None,
        add_special_tokens: bool | None = None,
        add_generation_prompt: bool | None = None,
        model: str | None = None,
        template_json: Mapping[str, Any] | str | None = None,
        **options: Unpack[CallOptions],
    ) -> list[int]:
        """The token ids of a text, or of messages through the model's template."""
        request = codec.encode_tokenize(text, messages, add_special_tokens, add_generation_prompt, model, template_json)
        return self._unary(codec.TOKENIZE, request, options)

    def detokenize(
        self, input_ids: Sequence[int], *, skip_special_tokens: bool | None = None, **options: Unpack[CallOptions]
    ) -> str:
        return self._unary(codec.DETOKENIZE, codec.encode_detokenize(input_ids, skip_special_tokens), options)

    def abort(self, *request_ids: str, **options: Unpack[CallOptions]) -> list[bool]:
        """Ends requests of the caller's tenant: they answer with finish_reason "abort". Whether there was such a request, each."""
        return self._unary(codec.ABORT, codec.encode_abort(request_ids), options)

    def model_info(self, **options: Unpack[CallOptions]) -> ModelInfo:
        return self._unary(codec.MODEL_INFO, codec.EMPTY, options)

    def server_info(self, **options: Unpack[CallOptions]) -> ServerInfo:
        return self._unary(codec.SERVER_INFO, codec.EMPTY, options)

    def loads(self, **options: Unpack[CallOptions]) -> Loads:
        return self._unary(codec.GET_LOADS, codec.EMPTY, options)

    def watch_loads(self, interval_ms: int | None = None, **options: Unpack[CallOptions]) -> Stream[Loads]:
        """Loads every so many milliseconds, 10 to 60000 [1000], until the stream is left. The client's timeout is not its own."""
        options.setdefault("timeout", None)
        return self._stream(codec.WATCH_LOADS, codec.encode_watch_loads(interval_ms), options)

    def subscribe_kv_events(self, start_sequence_number: int = 0, **options: Unpack[CallOptions]) -> Stream[KvEventBatch]:
        """What the prefix cache holds and how it changes, until the stream is left: 0 = a snapshot first, else all from this
        batch on (OutOfRangeError: start with 0). The client's timeout is not its own."""
        options.setdefault("timeout", None)
        return self._stream(codec.SUBSCRIBE_KV_EVENTS, codec.encode_subscribe_kv_events(start_sequence_number), options)

    def health(self, service: str = "", **options: Unpack[CallOptions]) -> HealthStatus:
        """grpc.health.v1 Check."""
        return self._unary(codec.HEALTH_CHECK, encode_check(service), options)

    def unary(self, path: str, data: bytes, timeout: float | None = None, metadata: Metadata = ()) -> bytes:
        """A method that this package does not know, bytes for bytes, once; grpc's own errors. The client's headers are sent."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(path)
        return call(data, timeout=timeout, metadata=(*self._connection.metadata, *metadata))

    def stream(self, path: str, data: bytes, timeout: float | None = None, metadata: Metadata = ()) -> Any:
        """The same with a stream of answers: grpc's call, which iterates over them and has cancel()."""
        call: grpc.UnaryStreamMultiCallable[bytes, bytes] = self.channel.unary_stream(path)
        return call(data, timeout=timeout, metadata=(*self._connection.metadata, *metadata))

    def _unary(self, method: Method[T], request: bytes, options: Mapping[str, Any], kind: type = CallOptions) -> T:
        attempts, headers = self._connection.prepare(options, kind)
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(method.path)
        while True:
            try:
                data = call(request, timeout=attempts.remaining(), metadata=headers)
                break
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
                delay = attempts.delay_after(failure)
                if delay is None:
                    raise failure from None
                time.sleep(delay)
        return method.read(data)

    def _stream(self, method: Method[T], request: bytes, options: Mapping[str, Any], kind: type = CallOptions) -> Stream[T]:
        attempts, headers = self._connection.prepare(options, kind)
        call: grpc.UnaryStreamMultiCallable[bytes, bytes] = self.channel.unary_stream(method.path)
        return Stream(lambda timeout: call(request, timeout=timeout, metadata=headers), method.read, attempts)
