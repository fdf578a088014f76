"""Every abuse at length, with somebody well-behaved beside it: his times before and during, and what the server holds before
and after. By hand:  build/venv/bin/python tests/e2e/abuse_at_length.py [PART OF "DOOR: NAME"]"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import grpc

from conftest import DUMMY_CONFIG, DUMMY_FLAGS, Server  # first: it says where the client is
import abuse_grpc
import abuse_http
from abuse_grpc import Abuse
from abuse_tools import cpu_s, descriptors, resident_kib
from bantam import Client
from raw_http2 import Http2, PREFACE

BEFORE_S = 3
DURING_S = 3  # an abuse that is over sooner is done again
PAUSE_S = 0.005


def stand_by(grpc_port, http_port):
    """Asks both doors again and again; a line for each answer: when, which door, how long, or "failed"."""
    client = Client(f"127.0.0.1:{grpc_port}")

    def ask_grpc():
        client.generate_whole(input_ids=[1, 2], max_tokens=1, timeout=100)

    def ask_http():
        body = json.dumps({"prompt": [1, 2], "max_tokens": 1}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{http_port}/v1/completions", body,
                                         {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=100).read()

    def run(door, ask):
        while True:
            start = time.monotonic()
            try:
                ask()
                outcome = f"{time.monotonic() - start:.6f}"
            except grpc.RpcError as failure:
                outcome = f"failed {failure.code().name}"
            except Exception as failure:  # whatever it is, it is reported
                outcome = f"failed {type(failure).__name__}{getattr(failure, 'code', '')}"
            os.write(1, f"{start:.6f} {door} {outcome}\n".encode())  # one call: two threads write
            time.sleep(PAUSE_S)

    for door, ask in (("grpc", ask_grpc), ("http", ask_http)):
        threading.Thread(target=run, args=(door, ask), daemon=True).start()
    sys.stdin.read()


def half_open(data, hold_s=12):
    """n connections that say this and then nothing."""
    def run(port, n):
        crowd, refused = [], 0
        for _ in range(n):
            try:
                crowd.append(socket.create_connection(("127.0.0.1", port)))
                crowd[-1].sendall(data)
            except OSError:
                refused += 1
        end = time.monotonic() + hold_s
        while time.monotonic() < end:
            time.sleep(0.1)
        for one in crowd:
            one.close()
        return f"{n - refused} taken at first"
    return run


def drip(start, byte, hold_s=12):
    """n connections that say one byte a second."""
    def run(port, n):
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(n)]
        alive = 0
        for data in (start, *[byte] * hold_s):
            alive = 0
            for one in crowd:
                try:
                    one.sendall(data)
                    alive += 1
                except OSError:
                    pass
            time.sleep(1)
        for one in crowd:
            one.close()
        return f"{alive} of {n} alive after {hold_s} s"
    return run


def connect_and_go(port, n):
    for _ in range(n):
        socket.create_connection(("127.0.0.1", port)).close()
    return "taken"


def drip_of_message(port, n):
    """n calls whose message comes byte by byte."""
    with Http2(port) as connection:
        for i in range(n):
            connection.send(abuse_grpc.open_request(2 * i + 1))
        for _ in range(10):
            for i in range(n):
                connection.send(abuse_grpc.frame(abuse_grpc.DATA, 0, 2 * i + 1, b"\0"))
            time.sleep(1)
        return "goes on" if connection.alive() else "closed"


CONNECTIONS_GRPC = [
    Abuse("6,000 connections, silent", half_open(b""), (), long=6000),
    Abuse("6,000 half prefaces", half_open(PREFACE[:10]), (), long=6000),
    Abuse("6,000 prefaces without SETTINGS", half_open(PREFACE), (), long=6000),
    Abuse("500 prefaces, a byte a second", drip(b"", b"P"), (), long=500),
    Abuse("500 messages, a byte a second", drip_of_message, (), long=500),
    Abuse("10,000 times connect and go", connect_and_go, (), long=10000),
]
CONNECTIONS_HTTP = [
    Abuse("3,000 connections, silent", half_open(b""), (), long=3000),
    Abuse("3,000 half lines", half_open(b"GET /hea"), (), long=3000),
    Abuse("500 heads, a byte a second", drip(abuse_http.HEALTH + b"X: ", b"y"), (), long=500),
    Abuse("500 bodies, a byte a second", drip(abuse_http.POST + b"Content-Length: 100\r\n\r\n", b" "), (), long=500),
    Abuse("10,000 times connect and go", connect_and_go, (), long=10000),
]


def percentiles(lines, door, start, end):
    found = [line.split() for line in lines]
    mine = [fields for fields in found if fields[1] == door and start <= float(fields[0]) < end]
    times = sorted(float(fields[2]) for fields in mine if fields[2] != "failed")
    failures = [fields[3] for fields in mine if fields[2] == "failed"]
    failed = f"{len(failures)} failed: {', '.join(sorted(set(failures)))}"
    if not times:
        return f"none ({failed})"
    text = f"{1e3 * times[len(times) // 2]:.1f}/{1e3 * times[min(len(times) - 1, len(times) * 99 // 100)]:.1f}"
    return text + (f" ({failed})" if failures else "")


def measure(server, bystander_log, door, port, abuse):
    start = time.monotonic()
    time.sleep(BEFORE_S)
    rss, fds, cpu = resident_kib(server), descriptors(server), cpu_s(server)
    middle = time.monotonic()
    rounds, answers = 0, set()
    while time.monotonic() < middle + DURING_S:
        answers.add(abuse.run(port, abuse.long))
        rounds += 1
    end = time.monotonic()
    time.sleep(1)
    lines = [line for line in bystander_log.read_text().splitlines() if len(line.split()) >= 3]
    beside = "; ".join(f"{name} {percentiles(lines, name, start, middle)} -> {percentiles(lines, name, middle, end)}"
                       for name in ("grpc", "http"))
    loads = server.client.loads()
    print(f"| {door}: {abuse.name} | {rounds} x {abuse.long:,} | {', '.join(sorted(answers))} | {beside} | "
          f"{rss / 1024:.0f} -> {resident_kib(server) / 1024:.0f} | {fds} -> {descriptors(server)} | "
          f"{(cpu_s(server) - cpu) / (end - middle):.2f} | {loads.kv_blocks_used} |", flush=True)


def main(word=""):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "config.json").write_text(json.dumps(DUMMY_CONFIG))
        server = Server(folder, folder, *DUMMY_FLAGS, "--max-num-seqs", "8")
        log = folder / "bystander.log"
        bystander = subprocess.Popen([sys.executable, __file__, "--stand-by", str(server.port), str(server.http_port)],
                                     stdin=subprocess.PIPE, stdout=open(log, "w"))
        print("| abuse | n | answer | a bystander's answers, p50/p99 in ms, before -> during | RSS, MiB | descriptors | "
              "CPUs | blocks |\n|---|---|---|---|---|---|---|---|", flush=True)
        try:
            for door, port, abuses in (("gRPC", server.port, abuse_grpc.FLOODS + CONNECTIONS_GRPC),
                                       ("HTTP", server.http_port, abuse_http.FLOODS + CONNECTIONS_HTTP),
                                       ("operator", server.metrics_port, abuse_http.FLOODS + CONNECTIONS_HTTP)):
                for abuse in abuses:
                    if word in f"{door}: {abuse.name}":
                        measure(server, log, door, port, abuse)
        finally:
            bystander.stdin.close()
            bystander.wait()
            time.sleep(11)  # the timeouts of connections that were left
            loads = server.wait_idle()
            print(f"afterwards: {loads.kv_blocks_used} blocks, {loads.requests_total - loads.requests_finished} requests, "
                  f"{descriptors(server)} descriptors, {resident_kib(server) / 1024:.0f} MiB")
            server.stop()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stand-by"]:
        stand_by(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
