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


def read_header(path):
    """(metadata, {name of a tensor: its dimensions, the inputs first})"""
    with open(path, "rb") as file:
        reader = Reader(file)
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path} is no GGUF file")
        _, n_tensors, n_entries = reader.scalar("<I"), reader.scalar("<Q"), reader.scalar("<Q")
        metadata = {reader.text(): reader.value(reader.scalar("<I")) for _ in range(n_entries)}
        tensors = {}
        for _ in range(n_tensors):
            name = reader.text()
            tensors[name] = [reader.scalar("<Q") for _ in range(reader.scalar("<I"))]
            file.seek(4 + 8, 1)  # type and place
        return metadata, tensors


def read_metadata(path):
    return read_header(path)[0]


def linear_weights(path):
    """(weights of the layers' matrices, of the LM head): what a token is multiplied with"""
    tensors = read_header(path)[1]
    matrices = {name: dims[0] * dims[1] for name, dims in tensors.items() if len(dims) == 2}
    head = matrices.get("output.weight", matrices["token_embd.weight"])
    return sum(n for name, n in matrices.items() if name.startswith("blk.")), head


def vocab_size(path):
    return read_metadata(path)["tokenizer.ggml.tokens"]
