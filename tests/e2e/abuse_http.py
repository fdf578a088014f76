"""What no client should do to a port of HTTP/1.1, the operator's or everybody's. Each abuse says how it was answered;
docs/http.md has the table."""

import socket

from abuse_grpc import Abuse
from raw_http2 import PREFACE, SETTINGS, frame

HEALTH = b"GET /health HTTP/1.1\r\nHost: t\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
DRAIN = POST.replace(b"/v1/completions", b"/drain")
LINE_S = 100


def statuses(port, *parts, n_answers=1):
    """The statuses of the answers; "cut" for a connection that ends without one. Nobody reads before all is sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=LINE_S) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:
            pass  # it has had enough; what it said is still to be read
        seen = []
        try:
            with connection.makefile("rb") as stream:
                while len(seen) < n_answers and (line := stream.readline()):
                    seen.append(line.split()[1].decode())
                    size = 0
                    while (line := stream.readline().strip()):
                        if line.lower().startswith(b"content-length:"):
                            size = int(line.split(b":")[1])
                    stream.read(size)
        except OSError:
            pass
        return " ".join(seen) or "cut"


def asked(*make, n_answers=1):
    """Each part is bytes, or a function of n that makes them."""
    return lambda port, n: statuses(port, *(part(n) if callable(part) else part for part in make), n_answers=n_answers)


def pipelined(port, n):
    """n requests at once, none of whose answers is read before all were sent or the server reads no more."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        sent = 0
        try:
            for _ in range(n):
                sent += connection.send((HEALTH + b"\r\n") * 100)
        except TimeoutError:
            pass
        connection.settimeout(LINE_S)
        with connection.makefile("rb") as stream:
            return stream.readline().split()[1].decode()


FLOODS = [
    Abuse("one giant header", asked(HEALTH + b"X: ", lambda n: b"y" * (n << 20)), ("431",), 4, 1024),
    Abuse("many headers", asked(HEALTH, lambda n: b"".join(b"x-%d: y\r\n" % i for i in range(n)), b"\r\n"), ("431",),
          500, 100000),
    Abuse("a path without end", asked(b"GET /", lambda n: b"a" * (n << 20)), ("414", "431"), 1, 256),
    Abuse("blank lines first", asked(lambda n: b"\r\n" * n, HEALTH + b"\r\n"), ("200", "400"), 100000, 10000000),
    Abuse("chunks of one byte", asked(POST + b"Transfer-Encoding: chunked\r\n\r\n", lambda n: b"1\r\nx\r\n" * n, b"0\r\n\r\n"),
          ("400", "404", "413"), 50000, 500000),
    Abuse("a chunk's extension without end", asked(POST + b"Transfer-Encoding: chunked\r\n\r\n1;", lambda n: b"a" * (n << 20)),
          ("400", "404"), 1, 256),
    Abuse("trailers without end", asked(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", lambda n: b"x: y\r\n" * n),
          ("400", "404"), 50000, 10000000),
    Abuse("requests in a row, unread", pipelined, ("200",), 100, 5000),
]

ODDITIES = [
    Abuse("HTTP/2", asked(PREFACE + frame(SETTINGS, 0, 0)), ("505",)),
    Abuse("no HTTP", asked(b"\xa5" * 4000 + b"\r\n\r\n"), ("400",)),
    Abuse("a line without CR", asked(HEALTH.replace(b"\r", b"") + b"\n"), ("400",)),
    Abuse("two lengths", asked(POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), ("400",)),
    Abuse("a length and chunks", asked(POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"), ("400",)),
    Abuse("a negative length", asked(POST + b"Content-Length: -2\r\n\r\n{}"), ("400",)),
    Abuse("a length of 2^64", asked(POST + b"Content-Length: 18446744073709551616\r\n\r\n{}"), ("400", "413")),
    Abuse("a chunk of 2^64", asked(POST + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n"), ("400", "404")),
    Abuse("a header folded over lines", asked(HEALTH + b"X: y\r\n z\r\n\r\n"), ("400",)),
    Abuse("a NUL in a header", asked(HEALTH + b"X: a\0b\r\n\r\n"), ("400",)),
    Abuse("no host", asked(b"GET /health HTTP/1.1\r\n\r\n"), ("400",)),
    Abuse("another protocol's upgrade", asked(HEALTH + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"), ("200",)),
]
