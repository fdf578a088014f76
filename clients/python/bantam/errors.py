"""Errors of calls: one class a gRPC status, as docs/wire.md lists them. All are grpc.RpcError too."""

from __future__ import annotations

from typing import Any, Sequence, Union

import grpc

Trailer = tuple[str, Union[str, bytes]]
PUSHBACK = "grpc-retry-pushback-ms"


class BantamError(grpc.RpcError):
    """A call failed. message is the server's, for people: it names the field, its value and what would be right."""

    def __init__(self, message: str, status: grpc.StatusCode, trailers: Sequence[Trailer] = ()):
        super().__init__(message, status, trailers)
        self.message = message
        self.status = status
        self.trailers = tuple(trailers)

    def __str__(self) -> str:
        return f"{self.status.name}: {self.message}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    # As grpc's own errors have it.

    def code(self) -> grpc.StatusCode:
        return self.status

    def details(self) -> str:
        return self.message

    def trailing_metadata(self) -> Any:
        return self.trailers

    @property
    def pushback(self) -> float | None:
        """Seconds that the server wants this call to stay away, negative = for ever; None when it said nothing."""
        for key, value in self.trailers:
            if key == PUSHBACK:
                try:
                    return int(value) / 1000
                except ValueError:
                    return -1.0  # gRPC's rule: what is no number means never
        return None

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the server wants the call again; None when it said nothing, or said never."""
        pushback = self.pushback
        return pushback if pushback is not None and pushback >= 0 else None

    @property
    def is_retryable(self) -> bool:
        """The same call may go through later, or elsewhere: the server is full and said when to come back, or is not there."""
        pushback = self.pushback
        if pushback is not None:
            return pushback >= 0
        return self.status is grpc.StatusCode.UNAVAILABLE


class InvalidArgumentError(BantamError):
    """A bad parameter, or a prompt that can never fit."""


class UnauthenticatedError(BantamError):
    """No API key, or none that the server knows."""


class PermissionDeniedError(BantamError):
    """A client certificate that is not let in, or a method for administrators."""


class NotFoundError(BantamError):
    """An unknown model, or the health of an unknown service."""


class ResourceExhaustedError(BantamError):
    """With retry_after: the queue is full, or the tenant over a limit. Without: a message is too large, or too many calls are
    under way."""


class UnavailableError(BantamError):
    """Nobody answers at the address, or the server drains, was shut down, or has lost its device."""


class DeadlineExceededError(BantamError):
    """The timeout has passed, or will before a first token can come."""


class CancelledError(BantamError):
    """Cancelled by this client; or by the server, whose answer nobody read for too long."""


class UnimplementedError(BantamError):
    """The server does not do this."""


class FailedPreconditionError(BantamError):
    """The server has no tokenizer."""


class OutOfRangeError(BantamError):
    """A batch of KV events to go on from that the server has not kept, or is yet to come."""


class InternalError(BantamError):
    """Something failed that should not have."""


CLASSES: dict[grpc.StatusCode, type[BantamError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.CANCELLED: CancelledError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRangeError,
    grpc.StatusCode.INTERNAL: InternalError,
}


def error_of(status: grpc.StatusCode, message: str | None, trailers: Sequence[Trailer] | None) -> BantamError:
    return CLASSES.get(status, BantamError)(message or "", status, [(key, value) for key, value in trailers or ()])


def from_rpc_error(error: grpc.RpcError) -> BantamError:
    """The typed error of one that grpc or grpc.aio raised."""
    call: Any = error  # both have these methods, and neither's base class says so
    return error_of(call.code(), call.details(), call.trailing_metadata())


def cancelled_here() -> BantamError:
    return error_of(grpc.StatusCode.CANCELLED, "cancelled by this client", ())
