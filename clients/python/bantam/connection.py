"""What both clients' connections have in common: TLS, options, headers."""

from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass
from typing import Any, Mapping, Sequence, Union

import grpc

from bantam.parameters import check_names
from bantam.retry import Attempts, Retry
from bantam.version import __version__

PemSource = Union[bytes, str, "os.PathLike[str]"]
"""PEM text as bytes, or the path of a file with it."""

Metadata = Sequence["tuple[str, str | bytes]"]
"""Header names in lower case; values of names that end in -bin are bytes."""
MAX_ANSWER_BYTES = 64 << 20
MIN_KEEPALIVE_S = 10.0
KEEPALIVE_TIMEOUT_MS = 20000
ROUTES = ("model", "priority", "session", "tenant")


@dataclass(frozen=True)
class Tls:
    """How the server proves who it is, and with certificate and key (mTLS) this client too."""

    ca: PemSource | None = None
    """Who signs the server's certificate; None = the authorities that gRPC ships"""
    certificate: PemSource | None = None
    """This client's certificate with its chain"""
    key: PemSource | None = None
    """The certificate's private key, without a pass phrase"""
    server_name: str | None = None
    """The name that the server's certificate has, where it is not the target's host"""


def read_pem(source: PemSource | None) -> bytes | None:
    return source if source is None or isinstance(source, bytes) else pathlib.Path(source).read_bytes()


class Connection:
    """The settings of one client."""

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None,
        api_key: str | None,
        timeout: float | None,
        retry: Retry | None,
        metadata: Metadata,
        max_answer_bytes: int,
        keepalive: float | None,
        channel_options: Sequence[tuple[str, Any]],
    ):
        if keepalive is not None and not keepalive >= MIN_KEEPALIVE_S:
            raise ValueError(f"keepalive is {keepalive}: at least {MIN_KEEPALIVE_S} s, a server cuts off who pings more often")
        self.target = target
        self.timeout = timeout
        self.retry = retry
        keys = [("authorization", f"Bearer {api_key}")] if api_key else []
        self.metadata: tuple[tuple[str, str | bytes], ...] = (*metadata, *keys)
        self.credentials = None if tls is None else self.make_credentials(tls)
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", max_answer_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_retries", 0),  # Retry is what this package does instead
            ("grpc.primary_user_agent", f"bantam-client/{__version__}"),
        ]
        if keepalive is not None:
            options += [("grpc.keepalive_time_ms", int(keepalive * 1000)), ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS)]
            options += [("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0)]
        if tls is not None and tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        self.options = [*options, *channel_options]

    @staticmethod
    def make_credentials(tls: Tls) -> grpc.ChannelCredentials:
        if (tls.certificate is None) != (tls.key is None):
            raise ValueError("certificate and key of a client go together")
        return grpc.ssl_channel_credentials(read_pem(tls.ca), read_pem(tls.key), read_pem(tls.certificate))

    def prepare(self, options: Mapping[str, Any], kind: type) -> tuple[Attempts, tuple[tuple[str, str | bytes], ...]]:
        """The attempts of a call that begins now, and its headers. options: keyword arguments of a call, in which names that
        kind, a TypedDict, does not have are refused. What proxies may route by (docs/load-balancing.md) is said in headers as in
        the request."""
        check_names(options, kind)
        routes = [(f"x-bantam-{name}", str(options[name])) for name in ROUTES if options.get(name) is not None]
        attempts = Attempts(self.retry, options.get("timeout", self.timeout))
        return attempts, (*self.metadata, *routes, *options.get("metadata", ()))
