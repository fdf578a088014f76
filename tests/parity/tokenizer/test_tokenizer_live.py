"""`bantam tokenize` beside the `tokenizers` library: the demo's tokenizer on 10,000 seeded strings, and back."""

import json
import os
import pathlib
import random
import subprocess

import pytest
import tokenizers

ROOT = pathlib.Path(__file__).resolve().parents[3]
BANTAM = os.environ.get("BANTAM_BIN", str(ROOT / "build/release/bantam"))
MODEL = ROOT / "demo/model"
COUNT = 1_000 if os.environ.get("BANTAM_SANITIZED") == "1" else 10_000
PIECES = (
    "the invoice", " Ticket:", "naïve", "don't", "I'LL", "🙂", "👩‍👩‍👧", "e\u0301", "\u200b", "\ufeff", "\t", "\n\n", "   ", "\r\n", "12345",
    "3.14", "if (x->y) { return 0; }", "漢字", "かな", "العربية", "עברית", "हिन्दी", "ก็", "<|eot_id|>", "<|begin_of_text|>", "<|eot", "\ufffd",
    "A" * 40, "_" * 9, "#!/bin/sh", "\u00a0", "\u3000", "½", "²", "Ⅷ", "ß", "İ", "\U0001f1e9\U0001f1ea", "\U00020000",
)


def random_text(rng):
    parts = []
    for _ in range(rng.randint(0, 12)):
        if rng.random() < 0.6:
            parts.append(rng.choice(PIECES))
        else:
            top = rng.choice((0x7F, 0x2FF, 0xFFFF, 0x1FFFF, 0x10FFFF))
            points = (rng.randint(1, top) for _ in range(rng.randint(1, 6)))
            parts.append("".join(chr(p) for p in points if not 0xD800 <= p <= 0xDFFF))
    return "".join(parts)


@pytest.fixture(scope="module")
def texts():
    rng = random.Random(20260)
    return [random_text(rng) for _ in range(COUNT)]


@pytest.fixture(scope="module")
def reference():
    return tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))


def tokenize(lines, *flags):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run([BANTAM, "tokenize", str(MODEL), *flags], input=text, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n") if line]


@pytest.mark.parametrize("special", [True, False])
def test_ids_are_identical(texts, reference, special):
    got = tokenize(texts, *([] if special else ["--no-special"]))
    assert len(got) == len(texts)
    for text, ids in zip(texts, got):
        assert ids == reference.encode(text, add_special_tokens=special).ids, repr(text)


def test_decoding_is_identical(texts, reference):
    ids = [reference.encode(text, add_special_tokens=False).ids for text in texts]
    for text, row, got in zip(texts, ids, tokenize(ids, "--decode")):
        assert got == reference.decode(row, skip_special_tokens=False), repr(text)
        assert got == text
