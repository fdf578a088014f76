"""What no client should do to the gRPC port: HTTP/2 by hand. Each abuse says how it was answered; docs/wire.md
has the table."""

import dataclasses
import os
from typing import Callable

import raw_http2 as h2
from native_wire import SERVICE, generate_bytes
from raw_http2 import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_BYTES_MAX, GOAWAY, HEADERS, Http2, PADDED, PING,
                       PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, call, frame, integer, literal,
                       message, request_fields, setting)

WHOLE = SERVICE + "GenerateWhole"
FACADE = "/vllm.grpc.engine.VllmEngine/Generate"
REQUEST = generate_bytes(input_ids=[5, 6, 7, 8], max_tokens=2, ignore_eos=True)
LONG_REQUEST = generate_bytes(input_ids=[5, 6, 7, 8], max_tokens=6000, ignore_eos=True, logprobs=20)
BATCH = 100  # frames in one write
ENDED = ("closed", "status 14")  # with the connection, which may or may not have said so of the stream
CUT = (*ENDED, "GOAWAY PROTOCOL_ERROR", "GOAWAY COMPRESSION_ERROR", "GOAWAY FRAME_SIZE_ERROR", "GOAWAY FLOW_CONTROL_ERROR",
       "GOAWAY INTERNAL_ERROR")


@dataclasses.dataclass
class Abuse:
    """run(port, n) -> how it was answered, one of `answers`. n: as many frames, streams or MiB, for the suite and at length."""
    name: str
    run: Callable[[int, int], str]
    answers: tuple[str, ...]
    short: int = 1
    long: int = 1


def open_request(stream=1, flags=END_HEADERS, path=WHOLE):
    return frame(HEADERS, flags, stream, request_fields(path))


def after(*frames, stream=1):
    """How a connection is answered that says this: "goes on" when a ping comes back before anything ends."""
    def run(port, _):
        with Http2(port) as connection:
            for one in frames:
                connection.send(one)
            connection.send(frame(PING, 0, 0, b"are you?"))
            while (read := connection.read_frame()) is not None:
                if read.kind == PING and read.flags & ACK:
                    return "goes on"
                connection.unread(read)
                if read.kind in (GOAWAY, RST_STREAM) or (read.kind == HEADERS and read.flags & END_STREAM):
                    return connection.answer(stream)
                connection.read_frame()
            return "closed"
    return run


def served(*frames):
    """How the stream ends that these begin."""
    def run(port, _):
        with Http2(port) as connection:
            for one in frames:
                connection.send(one)
            return connection.answer(1)
    return run


def opening(data):
    """What becomes of a connection that begins so."""
    def run(port, _):
        with Http2(port, preface=False) as connection:
            connection.send(data)
            return connection.answer(1)
    return run


def repeated(make):
    """n frames, unread until all are sent: the connection goes on, or is ended in good order."""
    def run(port, n):
        with Http2(port) as connection:
            for first in range(0, n, BATCH):
                if not connection.send(b"".join(make(first + i) for i in range(BATCH))):
                    return "closed"
            connection.send(frame(PING, 0, 0, b"are you?"))
            while (read := connection.read_frame()) is not None:
                if read.kind == PING and read.flags & ACK and read.payload == b"are you?":
                    return "goes on"
                if read.kind == GOAWAY:
                    return "GOAWAY " + h2.ERRORS[int.from_bytes(read.payload[4:8], "big")]
            return "closed"
    return run


def ping_flood(port, n):
    with Http2(port) as connection:
        for _ in range(0, n, BATCH):
            if not connection.send(frame(PING, 0, 0, b"and now?") * BATCH):
                break
        return connection.answer()


def block_of_headers(block_of):
    """One request whose header block is long."""
    def run(port, n):
        with Http2(port) as connection:
            connection.send(frame(HEADERS, 0, 1, request_fields(WHOLE)))
            for i in range(n):
                if not connection.send(frame(CONTINUATION, 0, 1, block_of(i))):
                    return "closed"
            connection.send(frame(CONTINUATION, END_HEADERS, 1))
            connection.send(frame(DATA, END_STREAM, 1, message(REQUEST)))
            return connection.answer(1)
    return run


def giant_header(port, n):
    """Of n MiB, whose end has not come when it is given up."""
    with Http2(port) as connection:
        connection.send(frame(HEADERS, 0, 1, request_fields(WHOLE) + b"\0" + h2.text("x-giant") + integer(n << 20, 7)))
        for _ in range((n << 20) // FRAME_BYTES_MAX):
            if not connection.send(frame(CONTINUATION, 0, 1, b"y" * FRAME_BYTES_MAX)):
                return "closed"
        connection.send(frame(CONTINUATION, END_HEADERS, 1))
        connection.send(frame(DATA, END_STREAM, 1, message(REQUEST)))
        return connection.answer(1)


def table_bomb(port, n):
    """A header of 4,000 bytes in the server's table, named n * 16,384 times by one byte each."""
    with Http2(port) as connection:
        connection.send(frame(HEADERS, 0, 1, request_fields(WHOLE) + literal("x", "y" * 4000, indexed=True)))
        for _ in range(n):
            connection.send(frame(CONTINUATION, 0, 1, b"\xbe" * FRAME_BYTES_MAX))
        connection.send(frame(CONTINUATION, END_HEADERS, 1))
        connection.send(frame(DATA, END_STREAM, 1, message(REQUEST)))
        return connection.answer(1)


def streams_without_message(port, n):
    """n calls begun and left: the oldest give their places to others."""
    with Http2(port) as connection:
        for first in range(0, n, BATCH):
            connection.send(b"".join(open_request(2 * (first + i) + 1) for i in range(BATCH)))
        return connection.answer(1)


def unread_refusals(port, n):
    """n calls that are refused, by a client that does not read."""
    with Http2(port, receive_bytes=4096) as connection:
        for first in range(0, n, BATCH):
            if not connection.send(b"".join(open_request(2 * (first + i) + 1, END_HEADERS | END_STREAM) for i in range(BATCH))):
                return "closed"
        return connection.answer(1)


def incomplete_messages(port, n):
    """n MiB of messages of 4 MiB whose last bytes do not come, read or not: until the server takes no more."""
    with Http2(port, timeout=2) as connection:
        start = b"\0" + (4 << 20).to_bytes(4, "big")
        chunks = (4 << 20) // FRAME_BYTES_MAX
        for stream in range(1, n // 2, 2):
            connection.send(open_request(stream))
            for i in range(chunks - 1):
                if not connection.send(frame(DATA, 0, stream, start + b"z" * (FRAME_BYTES_MAX - 5) if i == 0
                                             else b"z" * FRAME_BYTES_MAX)):
                    return "held up"
        return "goes on"


def zero_windows(port, n):
    """n answers that nobody makes room for."""
    with Http2(port, setting(h2.INITIAL_WINDOW_SIZE, 0)) as connection:
        for i in range(n):
            connection.send(call(2 * i + 1, WHOLE if i % 2 else SERVICE + "Generate", LONG_REQUEST if i % 2 == 0 else REQUEST))
        return "goes on" if connection.alive() else "closed"


def reset(with_message):
    def make(i):
        stream = 2 * i + 1
        path = FACADE if i % 2 else WHOLE
        data = frame(DATA, END_STREAM, stream, message(REQUEST)) if with_message else b""
        return open_request(stream, path=path) + data + frame(RST_STREAM, 0, stream, h2.CANCEL.to_bytes(4, "big"))
    return make


def word(number):
    return number.to_bytes(4, "big")


FLOODS = [
    Abuse("many headers", block_of_headers(lambda i: b"".join(literal(f"x-{i}-{j}", "y" * 100) for j in range(20))),
          ("status 8", *ENDED), 20, 200),
    Abuse("one giant header", giant_header, ENDED, 1, 8),
    Abuse("CONTINUATION without end", block_of_headers(lambda i: literal("x", "y") if i % 2 else b""), ("status 8", *CUT),
          2000, 100000),
    Abuse("a table entry named again and again", table_bomb, ("status 8", *CUT), 8, 64),
    Abuse("rapid reset", repeated(reset(False)), ("closed",), 2000, 100000),
    Abuse("rapid reset, with messages", repeated(reset(True)), ("closed",), 2000, 50000),
    Abuse("PING flood", ping_flood, ("GOAWAY ENHANCE_YOUR_CALM", "closed"), 2000, 200000),
    Abuse("SETTINGS flood", repeated(lambda i: frame(SETTINGS, 0, 0, setting(h2.INITIAL_WINDOW_SIZE, 65535 + i % 2))),
          ("goes on", "closed"), 2000, 200000),
    Abuse("SETTINGS acknowledged unasked", repeated(lambda i: frame(SETTINGS, ACK, 0)), ("goes on", *CUT), 2000, 200000),
    Abuse("PRIORITY flood", repeated(lambda i: frame(PRIORITY, 0, 2 * i + 1, word(0) + b"\x10")), ("goes on",), 2000, 200000),
    Abuse("WINDOW_UPDATE flood", repeated(lambda i: frame(WINDOW_UPDATE, 0, 0, word(1))), ("goes on",), 2000, 200000),
    Abuse("frames of unknown types", repeated(lambda i: frame(0xFA, 0, 0, b"what?")), ("goes on",), 2000, 200000),
    Abuse("empty DATA of no stream", repeated(lambda i: frame(DATA, 0, 1)), ("goes on", *CUT), 2000, 200000),
    Abuse("calls without their message", streams_without_message, ENDED, 5000, 100000),
    Abuse("refusals that nobody reads", unread_refusals, ("status 3", *ENDED), 2000, 100000),
    Abuse("messages without their end", incomplete_messages, ("held up", "goes on"), 40, 400),
    Abuse("windows of zero", zero_windows, ("goes on",), 60, 1000),
]

ODDITIES = [
    Abuse("HTTP/1.1", opening(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"), CUT),
    Abuse("a TLS hello", opening(bytes.fromhex("16030102000100 01fc0303") + b"\x55" * 508), CUT),
    Abuse("random bytes", opening(os.urandom(1000)), CUT),
    Abuse("no SETTINGS first", opening(PREFACE + open_request()), CUT),
    Abuse("WINDOW_UPDATE by 0", after(frame(WINDOW_UPDATE, 0, 0, word(0))), CUT),
    Abuse("WINDOW_UPDATE by 0 for a stream", after(open_request(), frame(WINDOW_UPDATE, 0, 1, word(0))), CUT),
    Abuse("a window past 2^31", after(*[frame(WINDOW_UPDATE, 0, 0, word(0x7FFFFFFF))] * 2), ("goes on", *CUT)),
    Abuse("a stream's window past 2^31", after(open_request(), *[frame(WINDOW_UPDATE, 0, 1, word(0x7FFFFFFF))] * 2),
          ("goes on", "RST_STREAM FLOW_CONTROL_ERROR", *CUT)),
    Abuse("an initial window of 2^31", after(frame(SETTINGS, 0, 0, setting(4, 1 << 31))), CUT),
    Abuse("a frame size of 0", after(frame(SETTINGS, 0, 0, setting(5, 0))), CUT),
    Abuse("SETTINGS of 5 bytes", after(frame(SETTINGS, 0, 0, b"12345")), CUT),
    Abuse("SETTINGS of a stream", after(frame(SETTINGS, 0, 1)), CUT),
    Abuse("PING of 7 bytes", after(frame(PING, 0, 0, b"1234567")), CUT),
    Abuse("a stream that depends on itself", after(frame(PRIORITY, 0, 1, word(1) + b"\x10")), ("goes on", *CUT)),
    Abuse("an even stream", after(call(2, WHOLE, REQUEST)), ("goes on", *CUT)),
    Abuse("headers of stream 0", after(open_request(0)), ("goes on", *CUT)),
    Abuse("stream 3 after stream 5", after(open_request(5), open_request(3)), ("goes on", *CUT)),
    Abuse("DATA of stream 0", after(frame(DATA, 0, 0, b"x")), ("goes on", *CUT)),
    Abuse("RST_STREAM of an idle stream", after(frame(RST_STREAM, 0, 1, word(0))), ("goes on", *CUT)),
    Abuse("PUSH_PROMISE", after(frame(PUSH_PROMISE, END_HEADERS, 1, word(2))), ("goes on", *CUT)),
    Abuse("a frame past the size", after(frame(DATA, 0, 1, b"x" * 100000)), CUT),
    Abuse("CONTINUATION of nothing", after(frame(CONTINUATION, END_HEADERS, 1)), CUT),
    Abuse("PING amid headers", after(open_request(1, 0), frame(PING, 0, 0, b"12345678")), CUT),
    Abuse("broken HPACK", after(frame(HEADERS, END_HEADERS, 1, b"\xff" * 8)), CUT),
    Abuse("an HPACK index of nothing", after(frame(HEADERS, END_HEADERS, 1, b"\xe4")), CUT),
    Abuse("padding past the frame", served(open_request(), frame(DATA, PADDED, 1, b"\xffx")),
          ("RST_STREAM PROTOCOL_ERROR", *CUT)),
    Abuse("no :path", served(frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(":method", "POST"))), ("status 2", *CUT)),
    Abuse("no such method", served(open_request(1, END_HEADERS | END_STREAM).replace(b"POST", b"GETT")), ("status 2", *CUT)),
    Abuse("no message", served(open_request(1, END_HEADERS | END_STREAM)), ("status 3",)),
    Abuse("half a message", served(open_request(), frame(DATA, END_STREAM, 1, message(REQUEST)[:-3])),
          ("status 3", "status 13")),
    Abuse("two messages", served(open_request(), frame(DATA, END_STREAM, 1, message(REQUEST) * 2)), ("status 0",)),
    Abuse("a message of 4 GiB", served(open_request(), frame(DATA, 0, 1, b"\0\xff\xff\xff\xffxx"),
                                        frame(DATA, END_STREAM, 1)), ("status 8", "status 3", *CUT)),
]
