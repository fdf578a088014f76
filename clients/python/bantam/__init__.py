"""Bantam's Python client: native gRPC with FlatBuffers messages, for threads (Client) and for asyncio (AsyncClient).

    from bantam import Client

    with Client("127.0.0.1:50051") as client:
        for output in client.generate("The sea is", max_tokens=32, temperature=0):
            print(output.text, end="", flush=True)
"""

from bantam.answers import AnswerSource, Completion, FinishReason, Loads, ModelInfo, Output, ServerInfo, Timings, TokenLogprob, ToolCall, TopToken
from bantam.async_client import AsyncClient, AsyncStream
from bantam.connection import Tls
from bantam.errors import (
    BantamError,
    CancelledError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from bantam.health import HealthStatus
from bantam.kv_events import (
    KvBlock,
    KvBlocksRemoved,
    KvBlocksStored,
    KvCacheCleared,
    KvCacheEvent,
    KvEventBatch,
    KvSnapshotChunk,
)
from bantam.parameters import CallOptions, GenerateParams, Message, MessageLike, SamplingParams, assistant, system, user
from bantam.retry import Retry
from bantam.sync_client import Client, Stream
from bantam.version import __version__

__all__ = [
    "AnswerSource",
    "AsyncClient",
    "AsyncStream",
    "BantamError",
    "CallOptions",
    "CancelledError",
    "Client",
    "Completion",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "FinishReason",
    "GenerateParams",
    "HealthStatus",
    "InternalError",
    "InvalidArgumentError",
    "KvBlock",
    "KvBlocksRemoved",
    "KvBlocksStored",
    "KvCacheCleared",
    "KvCacheEvent",
    "KvEventBatch",
    "KvSnapshotChunk",
    "Loads",
    "Message",
    "MessageLike",
    "ModelInfo",
    "NotFoundError",
    "OutOfRangeError",
    "Output",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "Retry",
    "SamplingParams",
    "ServerInfo",
    "Stream",
    "Timings",
    "Tls",
    "TokenLogprob",
    "ToolCall",
    "TopToken",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "__version__",
    "assistant",
    "system",
    "user",
]
