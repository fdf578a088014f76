"""A GGUF file behind the server: a stream of text pieces. Needs Gemma 3 270M: scripts/setup gemma."""

import json
import pathlib
import sys

import pytest
from conftest import SANITIZED

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "parity/gemma"))
import gemma_model  # noqa: E402

COST_S = 60
CASES = json.loads((gemma_model.ROOT / "tests/parity/gemma/gemma_goldens.json").read_text(encoding="utf-8"))["cases"]


@pytest.fixture
def server(start):
    path, why = gemma_model.find()
    if path is None:
        pytest.skip(why)
    if SANITIZED:
        pytest.skip("a quarter of a billion weights take too long under a sanitizer")
    return start(path, "--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "4")


def test_streams_english_and_code(server):
    """The reference's greedy text, where no step of it is a near tie, in pieces as it comes."""
    assert server.client.model_info().vocab_size == 262144
    clear = [case for case in CASES if len(case["prompt_token_ids"]) < 100 and
             all(step["top_logprobs"][0] - step["top_logprobs"][1] > 0.02 for step in case["answer"])]
    assert len(clear) >= 2
    for case in clear:
        outputs = server.client.generate(input_ids=case["prompt_token_ids"], max_tokens=len(case["answer"]), temperature=0.0, ignore_eos=True)
        pieces = [output.text for output in outputs]
        assert "".join(pieces) == case["text"]
        assert len([piece for piece in pieces if piece]) > 4, pieces
