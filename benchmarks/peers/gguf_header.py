"""What a GGUF file says of itself: its metadata, without its tensors. Standard library only."""

import struct

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9


class Reader:
    def __init__(self, file):
        self.file = file

    def scalar(self, form):
        return struct.unpack(form, self.file.read(struct.calcsize(form)))[0]

    def text(self):
        return self.file.read(self.scalar("<Q")).decode(errors="replace")

    def value(self, kind):
        """Of an array how long it is, for vocabularies are long and nobody here wants their words."""
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.scalar(SCALARS[kind])
        of, n = self.scalar("<I"), self.scalar("<Q")
        if of == STRING:
            for _ in range(n):
                self.file.seek(self.scalar("<Q"), 1)
        else:
            self.file.seek(n * struct.calcsize(SCALARS[of]), 1)
        return n


def read_metadata(path):
    with open(path, "rb") as file:
        reader = Reader(file)
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path} is no GGUF file")
        _, _, n_entries = reader.scalar("<I"), reader.scalar("<Q"), reader.scalar("<Q")
        return {reader.text(): reader.value(reader.scalar("<I")) for _ in range(n_entries)}


def vocab_size(path):
    return read_metadata(path)["tokenizer.ggml.tokens"]
