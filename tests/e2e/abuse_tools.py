"""What a server holds, seen from outside."""

import os
import pathlib
import re
import urllib.request

from balancing_tools import wait_until
from conftest import CALL_LIMIT_S


def resident_kib(server):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1))


def descriptors(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def cpu_s(server):
    fields = pathlib.Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for_descriptors(server, n):
    wait_until(lambda: descriptors(server) <= n)


def metrics_text(server, peer=None):
    """Asked over a connection of HTTP that exists, or a new one."""
    if peer:
        peer.socket.sendall(b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n")
        return peer.read()[2].decode()
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=CALL_LIMIT_S) as answer:
        return answer.read().decode()


def refused(server, door, peer=None):
    """Connections that the door has refused."""
    return float(re.search(rf'bantam:connections_refused_total{{[^}}]*door="{door}"}} (\S+)', metrics_text(server, peer)).group(1))


def evicted(server):
    """Connections of the HTTP door that gave way to new ones."""
    return float(re.search(r"bantam:http_connections_evicted_total{[^}]*} (\S+)", metrics_text(server)).group(1))


def refusals(server):
    """Requests that were refused, at every door and for whatever reason."""
    return sum(map(float, re.findall(r"^bantam:refusals_total\S* (\S+)$", metrics_text(server), re.M)))


def cut(server):
    """Connections that the gRPC door has ended."""
    return float(re.search(r"bantam:grpc_connections_cut_total{[^}]*} (\S+)", metrics_text(server)).group(1))
