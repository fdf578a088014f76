"""A model that `bantam quantize` wrote, served: it answers and says of itself what the original does, its weights are pages of the
file that servers share, and a new file in its place disturbs nobody."""

import re
import subprocess

import pytest

from bantam import user
from conftest import BIN, CALL_LIMIT_S

FLAGS = ("--quantization", "int4", "--max-model-len", "512", "--max-num-seqs", "4", "--served-model-name", "demo")
PROMPT = "The train to the coast leaves early, and whoever wants a seat"


def quantize(model, out, *flags):
    subprocess.run([BIN, "quantize", model, out, *flags], check=True, timeout=CALL_LIMIT_S)


@pytest.fixture(scope="module")
def packed_model(demo_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "demo"
    quantize(demo_model, path, "--quantization", "int4")
    return path


def answers(server):
    """Of a text and of a conversation: ids, logprobs, text, and who answered."""
    said = []
    for text, asked in ((PROMPT, {"seed": 7}), (None, {"messages": [user(PROMPT)], "temperature": 0.0})):
        whole = server.client.generate_whole(text, **asked, max_tokens=24, logprobs=2, timeout=CALL_LIMIT_S)
        said += [(one.token_ids, one.text, one.finish_reason, [entry.logprob for entry in one.output_logprobs], one.fingerprint)
                 for one in whole]
    return said


def mapping(server):
    """What the kernel counts of the file of weights in the server's memory, in KiB."""
    with open(f"/proc/{server.process.pid}/smaps", encoding="utf-8") as file:
        areas = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", file.read())
    (area,) = [area for area in areas if "model.bantam" in area.split("\n", 1)[0]]
    return {name: int(value) for name, value in re.findall(r"(?m)^(\w+): +(\d+) kB", area)}


def test_answers_are_those_of_the_original(start, demo_model, packed_model):
    original, packed = start(demo_model, *FLAGS), start(packed_model, *FLAGS[2:])
    assert answers(packed) == answers(original)
    assert packed.client.model_info() == original.client.model_info()


def test_servers_share_the_weights_and_keep_them(start, demo_model, packed_model):
    servers = [start(packed_model, *FLAGS[2:]) for _ in range(2)]
    before = [answers(server) for server in servers]
    assert before[0] == before[1]
    size = (packed_model / "model.bantam").stat().st_size // 1024
    for server in servers:
        memory = mapping(server)
        assert memory["Anonymous"] == 0 and memory["Private_Dirty"] == 0
        assert memory["Rss"] >= size // 2 and memory["Pss"] < memory["Rss"]
    # Other weights take the file's name: who has mapped the old ones goes on with them.
    quantize(demo_model, packed_model, "--quantization", "int8")
    assert answers(servers[0]) == before[0]
    assert answers(start(packed_model, *FLAGS[2:])) != before[0]
    quantize(demo_model, packed_model, "--quantization", "int4")
