"""HTTP/2 by hand: a frame writer that says whatever it is told, and reads what comes back. No compression: literals alone."""

import collections
import socket
import ssl
import struct

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
INITIAL_WINDOW_SIZE = 4
CANCEL = 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES_MAX = 16384  # what a peer takes that has not said otherwise
ERRORS = ["NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
          "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
          "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"]

Frame = collections.namedtuple("Frame", "kind flags stream payload")


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def integer(value, prefix_bits, first=0):
    """HPACK's integers (RFC 7541, 5.1)."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    out = bytearray([first | limit])
    value -= limit
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return integer(len(data), 7) + data


def literal(name, value, indexed=False):
    """A header that is not compressed; indexed: it enters the peer's table."""
    return (b"\x40" if indexed else b"\0") + text(name) + text(value)


def request_fields(path, **more):
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test", "content-type": "application/grpc",
              "te": "trailers"}
    return b"".join(literal(name, value) for name, value in fields.items()) + b"".join(
        literal(name.replace("_", "-"), value) for name, value in more.items())


def message(data):
    """As gRPC frames one."""
    return b"\0" + len(data).to_bytes(4, "big") + data


def call(stream, path, data, **more):
    """A whole unary request; data fits one frame."""
    return (frame(HEADERS, END_HEADERS, stream, request_fields(path, **more))
            + frame(DATA, END_STREAM, stream, message(data)))


def setting(key, value):
    return struct.pack("!HI", key, value)


class Http2:
    """One connection. Settings are sent at once, acknowledgements by nobody unless asked for."""

    def __init__(self, port, settings=b"", preface=True, receive_bytes=None, timeout=100, context=None):
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.buffer = b""
        if preface:
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        """False when the server has had enough."""
        try:
            self.socket.sendall(data)
            return True
        except (ConnectionError, TimeoutError, ssl.SSLError):
            return False

    def read_frame(self):
        """The next one; None at the end of the connection."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            try:
                data = self.socket.recv(65536)
            except (ConnectionError, ssl.SSLError):
                return None
            if not data:
                return None
            self.buffer += data
        size = int.from_bytes(self.buffer[:3], "big")
        read = Frame(self.buffer[3], self.buffer[4], int.from_bytes(self.buffer[5:9], "big") & 0x7FFFFFFF,
                     self.buffer[9:9 + size])
        self.buffer = self.buffer[9 + size:]
        return read

    def unread(self, read):
        """Puts a frame back."""
        self.buffer = frame(*read) + self.buffer

    def answer(self, stream=1):
        """What the server makes of it in the end, in words: how the stream ended, or the connection."""
        while (read := self.read_frame()) is not None:
            if read.kind == GOAWAY:
                return "GOAWAY " + ERRORS[int.from_bytes(read.payload[4:8], "big")]
            if read.kind == RST_STREAM and read.stream == stream:
                return "RST_STREAM " + ERRORS[int.from_bytes(read.payload, "big")]
            if read.kind == HEADERS and read.stream == stream and read.flags & END_STREAM:
                return "status " + status_in(read.payload)
        return "closed"

    def alive(self):
        """Whether a ping comes back."""
        if not self.send(frame(PING, 0, 0, b"are you?")):
            return False
        while (read := self.read_frame()) is not None:
            if read.kind == PING and read.flags & ACK and read.payload == b"are you?":
                return True
        return False


def status_in(block):
    """The status in a header block, of which core compresses no text the first time."""
    name = b"\x0bgrpc-status"
    at = block.find(name)
    if at < 0:
        return "0"  # indexed in core's static part
    size = block[at + len(name)]
    return block[at + len(name) + 1:][:size].decode()
