"""grpc.health.v1 Check by hand: a request with one string, an answer with one number."""

from __future__ import annotations

from typing import Literal

HealthStatus = Literal["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"]

SERVICE = "/grpc.health.v1.Health/"
NAMES: tuple[HealthStatus, ...] = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


def encode_check(service: str) -> bytes:
    """HealthCheckRequest: field 1, the service's name."""
    name = service.encode()
    if not name:
        return b""
    length, size = bytearray(), len(name)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return b"\x0a" + bytes(length) + name


def decode_check(data: bytes) -> HealthStatus:
    """HealthCheckResponse: field 1, an enum that is not sent when it is 0."""
    if not data:
        return "UNKNOWN"
    if len(data) < 2 or data[0] != 0x08 or data[1] >= len(NAMES):
        raise ValueError("the answer is not a grpc.health.v1.HealthCheckResponse")
    return NAMES[data[1]]
