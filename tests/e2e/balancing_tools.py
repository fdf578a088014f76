"""What the tests of metrics and balancing share: programs from build/tools, ports, and waiting."""

import os
import pathlib
import random
import socket
import subprocess
import time

from conftest import CALL_LIMIT_S, ROOT, Server

TOOLS = pathlib.Path(ROOT) / "build/tools"  # scripts/setup test puts nginx and Prometheus there

NGINX = """
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  upstream bantam_grpc {{ {grpc_servers} }}
  upstream bantam_http {{ {http_servers} keepalive 16; }}
  server {{
    listen 127.0.0.1:{grpc_port} http2;
    location / {{
      grpc_pass grpc://bantam_grpc;
      grpc_next_upstream error timeout invalid_header http_502 http_503 non_idempotent;
      grpc_read_timeout 1h;
    }}
  }}
  server {{
    listen 127.0.0.1:{http_port};
    location / {{
      proxy_pass http://bantam_http;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_next_upstream error timeout invalid_header http_502 http_503 non_idempotent;
      proxy_read_timeout 1h;
    }}
    location = /metrics {{ return 404; }}
  }}
}}
"""


# Whom nobody answers on: no other test's server can get this port.
NOBODY = "127.0.0.1:1"
PORTS_A_WORKER = 1000
given_ports: set[int] = set()


def free_port() -> int:
    """Below the range from which connections get theirs, so that it is still free when a server comes back; no other test of
    this run gets it, be it of another worker of pytest's."""
    first = 10240 + PORTS_A_WORKER * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 20)
    while True:
        port = random.choice([port for port in range(first, first + PORTS_A_WORKER) if port not in given_ports])
        given_ports.add(port)
        try:
            socket.create_server(("127.0.0.1", port)).close()
            return port
        except OSError:
            continue


def listens(port) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    except OSError:
        return False


def wait_until(condition, every_s=0.02) -> None:
    limit = time.monotonic() + CALL_LIMIT_S
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(every_s)


class Replica:
    """A server that comes back on the same ports."""

    def __init__(self, directory, model, *flags):
        self.arguments = directory, model, *flags
        self.ports = free_port(), free_port()
        self.server = None
        self.start()

    def start(self):
        grpc_port, http_port = self.ports
        self.server = Server(*self.arguments, "--port", str(grpc_port), "--http-port", str(http_port))

    def restart(self):
        """As an orchestrator does it: a signal, and the next one starts when the last is gone."""
        self.server.stop()
        self.start()


class Nginx:
    """nginx in front of replicas: round robin, and the next one when one refuses."""

    def __init__(self, directory, replicas):
        self.grpc_port, self.http_port = free_port(), free_port()
        self.directory = directory
        servers = [" ".join(f"server 127.0.0.1:{replica.ports[i]} max_fails=0;" for replica in replicas) for i in (0, 1)]
        config = directory / "nginx.conf"
        config.write_text(NGINX.format(directory=directory, grpc_servers=servers[0], http_servers=servers[1],
                                       grpc_port=self.grpc_port, http_port=self.http_port))
        command = [TOOLS / "usr/sbin/nginx", "-p", directory, "-e", directory / "error.log", "-c", config]
        self.process = subprocess.Popen(command)
        wait_until(self.listens)

    def listens(self):
        assert self.process.poll() is None, self.log()
        return listens(self.grpc_port)

    def log(self):
        return (self.directory / "error.log").read_text()

    def stop(self):
        self.process.terminate()
        self.process.wait(CALL_LIMIT_S)
