"""A running `bantam bench provider`, the mock of a model provider with every fault."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request

from conftest import BIN, CALL_LIMIT_S, STOP_LIMIT_S


class Mock:
    def __init__(self, *flags: str):
        self.process = subprocess.Popen([str(BIN), "bench", "provider", "--port", "0", *flags], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), line
        self.address = line.split()[-1]

    @property
    def url(self) -> str:
        return f"http://{self.address}/v1"

    def state(self) -> dict[str, int]:
        with urllib.request.urlopen(f"http://{self.address}/mock/state", timeout=CALL_LIMIT_S) as answer:
            return json.load(answer)

    def order(self, fault: str, count: int | None = None) -> None:
        """The next `count` answers have it, or all from now on; "none": no more."""
        query = f"name={fault}" + (f"&count={count}" if count is not None else "")
        request = urllib.request.Request(f"http://{self.address}/mock/fault?{query}", b"", method="POST")
        with urllib.request.urlopen(request, timeout=CALL_LIMIT_S) as answer:
            assert json.load(answer)["mock"]

    def wait(self, **wanted: int) -> dict[str, int]:
        """Until the counts are so."""
        limit = time.monotonic() + CALL_LIMIT_S
        while True:
            state = self.state()
            if all(state[name] == value for name, value in wanted.items()):
                return state
            assert time.monotonic() < limit, (state, wanted)
            time.sleep(0.01)

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=STOP_LIMIT_S)
