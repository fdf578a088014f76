#!/usr/bin/env python3
"""Golden files for the tokenizer: what the `tokenizers` library (PyPI, 0.20 or later) says about 10,000 strings.

Run by hand:  python -m venv V && V/bin/pip install tokenizers && V/bin/python tests/parity/tokenizer/make_tokenizer_goldens.py

Writes into goldens/ beside this script, everything from one seed:
  strings.bin    per string: u32 length, UTF-8 bytes
  NAME.json      a tokenizer.json, trained here on text generated here
  NAME.bin       per string: u64 FNV-1a of the ids (each as u32), u32 of the low bits of the FNV-1a of decode(ids);
                 ids with add_special_tokens, decode with skip_special_tokens
`make_tokenizer_goldens.py --show NAME INDEX` prints string, ids and tokens, to look into a difference.
"""
import json
import random
import struct
import sys
import unicodedata
from pathlib import Path

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

SEED = 20240611
COUNT = 10_000
OUT = Path(__file__).parent / "goldens"

PATTERN_LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                  r"|\s*[\r\n]+|\s+(?!\S)|\s+")
PATTERN_QWEN2 = PATTERN_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN_O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTION}"
                 r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PATTERN_TEKKEN = PATTERN_O200K.replace(CONTRACTION, "").replace(r"\p{N}{1,3}", r"\p{N}")

WORDS = """the of and to in is was for on that with as it at by from are this be an have not or which one you were
all her she there would their we him been has when who will no more if out so up said what its about than into them can
only other time new some could these two may first then do any like my now over such our man me even most made after
also well before must through back years where much your way down should because long each just state people those too
mister little good world make very year still see own work men day get here old life both between being under three
never know same last another while us off might great go come since against right came take used himself few house use
order invoice ticket refund login password shipping delivery customer urgent message account error printer screen
update please thanks hello attached number total amount price cancel return replace broken late wrong color size""".split()
FOREIGN = """привет мир человек время день рука дело жизнь вопрос страна γεια κόσμος άνθρωπος χρόνος 你好 世界 我们 时间
人 年 大学 中国 今天 天气 こんにちは 世界 ありがとう カタカナ 日本語 안녕하세요 세계 사람 시간 مرحبا بالعالم كتاب وقت
שלום עולם ספר नमस्ते दुनिया समय สวัสดี โลก ຂອບໃຈ ქართული հայերեն naïve café über straße señor façade Ångström œuvre
İstanbul ǅungla ﬁne ２０２４ ½ ²³ Ⅷ ① e\u0301te\u0301 a\u0308 o\u0302\u0323""".split()
CODE = ["def f(x):\n    return x + 1\n", "for (int i = 0; i < n; i++) {\n\tsum += a[i];\n}\n", "SELECT * FROM t WHERE id=42;",
        "<div class=\"a\">&nbsp;</div>\r\n", "{\"key\": [1, 2.5e-3, null, true]}", "if (p != NULL && *p == '\\0') break;",
        "#include <stdio.h>\n\n\nint main(void) { }\n", "import os, sys\n\n\tif True:\n\t\tpass\n", "x = y ** 2 // 3 % 7",
        "https://example.org/a?b=c&d=%20#e", "user@example.org", "C:\\Users\\me\\file.txt", "--flag=value -x", "// comment\n/* c */"]
CONTRACTIONS = ["I'm", "you're", "he's", "we'll", "I'd", "they've", "can't", "I'M", "YOU'RE", "HE'S", "'\u017f", "it'S", "o'clock",
                "''s", "'tis", "rock'n'roll", "d'accord", "'LL", "'Ve", "x'l", "'r", "'"]
SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|im_start|>", "<|im_end|>", "<s>",
            "</s>", "<unk>", "<pad>", "<|endoftext|>", "[INST]", "[/INST]", "<bos>", "<start_of_turn>", "<0x0A>", "<0xZZ>",
            "<|eot_id", "|eot_id|>", "<|", "|>", "NAME", "Straße", "wordy", "lefty", "righty", "bothy", "▁", "▁▁", "<fim>", "ﬁm"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\r", "\v", "\f", "\u00a0", "\u2003", "\u3000", "\u0085", "\u2028",
          "\u200b", " \n", "\n ", "\t\t", " \t \n", "    ", "        "]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "❤️", "☃", "🤷🏻‍♂️", "1️⃣", "🧑‍💻", "\u200d", "\ufe0f", "©", "™"]
MARKS = ["\u0301", "\u0308", "\u0323", "\u0307", "\u20e3", "\u093f", "\u0e31", "\u05b0", "\u064b", "\u1160", "\u11a8"]
ODD = ["\ufffd", "\ufffd\ufffd", "\u0000", "\u0001", "\u007f", "\u00ad", "\ufeff", "\u202e", "\ue000", "\U000f0000", "\U0010ffff",
       "\ufffe", "\u0378", "\u2060", "\u00a0\u00a0", "Ã©", "â\u0080\u0099", "ï¿½", "Ġ", "Ċ", "ĠĠ", "\u0100", "\u0143", "\u0144"]

NEW_SINCE_12 = [(0x1fb00, 0x1fbff), (0x61d, 0x61d), (0x890, 0x8ff)]


def training_text(rng):
    """Lines with the words of WORDS in a falling frequency, some of the others, numbers and code."""
    weights = [1 / (i + 3) for i in range(len(WORDS))]
    lines = []
    for _ in range(6000):
        words = rng.choices(WORDS, weights, k=rng.randint(3, 14))
        if rng.random() < 0.4:
            words.insert(rng.randrange(len(words)), rng.choice(FOREIGN))
        if rng.random() < 0.3:
            words.insert(rng.randrange(len(words)), str(rng.randint(0, 10 ** rng.randint(1, 6))))
        if rng.random() < 0.2:
            words.append(rng.choice(CONTRACTIONS))
        line = " ".join(words)
        if rng.random() < 0.5:
            line = line.capitalize() + rng.choice([".", "!", "?", ".\n", ":\n\n"])
        lines.append(line)
        if rng.random() < 0.1:
            lines.append(rng.choice(CODE))
    return lines


def random_character(rng):
    """From all planes; only characters that every Unicode since 12.0 agrees about, because the library's regex engine,
    its normaliser and the standard library of Rust each bring another version."""
    while True:
        character = any_character(rng)
        category = unicodedata.category(character)
        newer = (category == "Cn" and ord(character) < 0x40000) or (category[0] in "MP" and ord(character) >= 0x10a00)
        if not newer and not any(first <= ord(character) <= last for first, last in NEW_SINCE_12):
            return character


def any_character(rng):
    kind = rng.random()
    if kind < 0.3:
        return chr(rng.randrange(0x20, 0x7f))
    if kind < 0.5:
        return chr(rng.randrange(0xa0, 0x600))
    if kind < 0.7:
        return chr(rng.choice([rng.randrange(0x600, 0x3000), rng.randrange(0x3000, 0xd800), rng.randrange(0xe000, 0x10000)]))
    if kind < 0.95:
        return chr(rng.randrange(0x10000, 0x20000))
    return chr(rng.randrange(0x20000, 0x110000))


def random_word(rng):
    word = rng.choice(WORDS) if rng.random() < 0.7 else "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(1, 12)))
    return rng.choice([word, word, word, word.capitalize(), word.upper(), word[:1] + word[1:].title()])


def random_piece(rng):
    """One of many kinds of text, a few characters to a line."""
    return rng.choice([
        lambda: " ".join(random_word(rng) for _ in range(rng.randint(1, 8))),
        lambda: " " + random_word(rng),
        lambda: "".join(random_character(rng) for _ in range(rng.randint(1, 12))),
        lambda: rng.choice(FOREIGN),
        lambda: " ".join(rng.sample(FOREIGN, 3)),
        lambda: rng.choice(CODE),
        lambda: rng.choice(CONTRACTIONS),
        lambda: rng.choice(SPECIALS),
        lambda: rng.choice(SPACES) * rng.randint(1, 3),
        lambda: rng.choice(EMOJI),
        lambda: random_word(rng) + rng.choice(MARKS) * rng.randint(1, 3),
        lambda: rng.choice(ODD),
        lambda: "".join(rng.choices("0123456789", k=rng.randint(1, 10))),
        lambda: "".join(rng.choices("0123456789٣४５²½Ⅷ", k=rng.randint(1, 6))),
        lambda: "".join(rng.choices("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", k=rng.randint(1, 6))),
        lambda: rng.choice("aA!1 é字") * rng.randint(2, 40),
        lambda: "".join(rng.choices(["A", "b", "ǅ", "ʰ", "字", "\u0301", "Z", "q", "'s", "'S", " "], k=rng.randint(2, 9))),
        lambda: "".join(rng.choices(SPACES + ["x", "\n", "/"], k=rng.randint(2, 8))),
    ])()


def random_strings(rng):
    fixed = ["", " ", "  ", "\n", "a", "A", "é", "字", "😀", "\u0301", "▁", "▁a", " a", "a ", "\ufffd"] + SPECIALS + CONTRACTIONS + FOREIGN
    fixed += [a + b for a in SPECIALS for b in (" x", "x", "\n")] + [b + a for a in SPECIALS for b in ("x ", "x", "\n", "  ")]
    strings = fixed[:]
    while len(strings) < COUNT:
        strings.append("".join(random_piece(rng) for _ in range(min(rng.randint(1, 6), rng.randint(1, 6)))))
    return strings[:COUNT]


def train(lines, pre_tokenizer, size, alphabet, normalizer=None):
    """vocabulary (text -> id in order) and merges of a BPE trained on lines."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet,
                                  limit_alphabet=max(len(alphabet), 160), min_frequency=2)
    tokenizer.train_from_iterator(lines, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [tuple(m) for m in model["merges"]]


def byte_level(lines, pattern, specials, normalizer=None, ignore_merges=False, size=1300):
    pre = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if pattern:
        pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    vocab, merges = train(lines, pre, size, pre_tokenizers.ByteLevel.alphabet(), normalizer)
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(vocab)}, merges=merges, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens(specials)
    return tokenizer


def sentence_piece(lines, first, size=1300, **options):
    """first: the tokens before the bytes."""
    vocab, merges = train(lines, pre_tokenizers.Metaspace(), size, [])
    vocab = first + [f"<0x{i:02X}>" for i in range(256)] + vocab
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(vocab)}, merges=merges, byte_fallback=True, **options))
    return tokenizer


def make_llama3(lines):
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = byte_level(lines, PATTERN_LLAMA3, specials, ignore_merges=True)
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B",
                                      special_tokens=[("<|begin_of_text|>", bos)])])
    return tokenizer


def make_gpt2(lines):
    tokenizer = byte_level(lines, None, ["<|endoftext|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def make_gpt2_prefix(lines):
    tokenizer = byte_level(lines, None, ["<s>", "</s>"], size=800)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", tokenizer.token_to_id("</s>")),
                                                            ("<s>", tokenizer.token_to_id("<s>")))
    return tokenizer


def make_qwen2(lines):
    return byte_level(lines, PATTERN_QWEN2, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], normalizers.NFC())


def make_o200k(lines):
    return byte_level(lines, PATTERN_O200K, ["<|endoftext|>"], size=900)


def make_tekken(lines):
    return byte_level(lines, PATTERN_TEKKEN, ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"], size=900, ignore_merges=True)


def add_bos(tokenizer, bos):
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))])


def make_llama2(lines):
    tokenizer = sentence_piece(lines, ["<unk>", "<s>", "</s>"], unk_token="<unk>", fuse_unk=True)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    add_bos(tokenizer, "<s>")
    return tokenizer


def make_mistral(lines):
    tokenizer = sentence_piece(lines, ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"], size=900, unk_token="<unk>", fuse_unk=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")])
    add_bos(tokenizer, "<s>")
    return tokenizer


def make_gemma(lines):
    tokenizer = sentence_piece(lines, ["<pad>", "</s>", "<bos>", "<unk>"], size=900, unk_token="<unk>", fuse_unk=True)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in ("<pad>", "</s>", "<bos>", "<unk>", "<start_of_turn>")])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("\n\n", "\n\n\n", "▁▁", "▁▁▁▁", "<fim>")])
    add_bos(tokenizer, "<bos>")
    return tokenizer


def make_metaspace(lines):
    """Metaspace that splits; added tokens with every option; unknown characters without byte fallback."""
    vocab, merges = train(lines, pre_tokenizers.Metaspace(), 800, [])
    vocab = ["<unk>", "<s>"] + vocab
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(vocab)}, merges=merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.add_tokens([AddedToken("wordy", single_word=True), AddedToken("lefty", lstrip=True), AddedToken("NAME", normalized=True),
                          AddedToken("righty", rstrip=True), AddedToken("bothy", lstrip=True, rstrip=True, single_word=True)])
    return tokenizer


def make_folded(lines):
    """Compatibility forms, lower case, no accents; words and punctuation apart; normalised added tokens."""
    normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(),
                                       normalizers.Strip(left=True, right=False)])
    pre = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=False),
                                   pre_tokenizers.Punctuation("contiguous")])
    vocab, merges = train(lines, pre, 700, [], normalizer)
    vocab = ["<unk>"] + vocab
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(vocab)}, merges=merges, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre
    tokenizer.add_tokens([AddedToken("Straße", normalized=True), AddedToken("NAME", normalized=True), AddedToken("<fim>", normalized=False)])
    return tokenizer


MAKERS = {name[5:]: make for name, make in list(globals().items()) if name.startswith("make_")}


def fnv1a(data):
    value = 0xcbf29ce484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    return value


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "--show":
        tokenizer = Tokenizer.from_file(str(OUT / f"{sys.argv[2]}.json"))
        text = random_strings(random.Random(SEED + 1))[int(sys.argv[3])]
        encoding = tokenizer.encode(text)
        print(repr(text), encoding.ids, encoding.tokens, repr(tokenizer.decode(encoding.ids)), sep="\n")
        return
    OUT.mkdir(exist_ok=True)
    lines = training_text(random.Random(SEED))
    strings = random_strings(random.Random(SEED + 1))
    packed = [s.encode() for s in strings]
    (OUT / "strings.bin").write_bytes(b"".join(struct.pack("<I", len(p)) + p for p in packed))
    for name, make in MAKERS.items():
        tokenizer = make(lines)
        (OUT / f"{name}.json").write_text(tokenizer.to_str(), encoding="utf-8")
        tokenizer = Tokenizer.from_file(str(OUT / f"{name}.json"))
        out = []
        for encoding in tokenizer.encode_batch(strings):
            ids = encoding.ids
            text = tokenizer.decode(ids)
            out.append(struct.pack("<QI", fnv1a(struct.pack(f"<{len(ids)}I", *ids)), fnv1a(text.encode()) & 0xffffffff))
        (OUT / f"{name}.bin").write_bytes(b"".join(out))
        print(name, tokenizer.get_vocab_size(), sum(len(e.ids) for e in tokenizer.encode_batch(strings)))


if __name__ == "__main__":
    main()
