"""Native messages as bytes, for tests that make calls by hand: Client.unary and Client.stream."""

from bantam import codec
from bantam.codec import SERVICE
from bantam.health import SERVICE as HEALTH

__all__ = ["HEALTH", "SERVICE", "generate_bytes", "read_output", "read_whole"]

read_output = codec.decode_generate
read_whole = codec.decode_generate_whole


def generate_bytes(text=None, **parameters) -> bytes:
    return codec.encode_generate(text, parameters)
