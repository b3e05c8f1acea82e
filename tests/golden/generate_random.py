"""Writes random.json: numbers drawn by PyTorch's CPU generator, and two generators implemented with plain Python integers.

`exponential_` and `multinomial` are computed here from PyTorch's raw words by its own rules. On Intel processors
PyTorch itself draws them from other streams, but the fixture must not depend on the processor's maker. Normal numbers
come from PyTorch's AVX2 kernels, which every current x86-64 processor can run; this program starts a process that
selects them.
"""

import hashlib
import json
import math
import os
import pathlib
import subprocess
import sys

import numpy
import torch

from fixture import write_text


def words(n):
    """The generator's next n words, n even, drawn in pairs as 64-bit integers; the high word comes first."""
    pairs = torch.empty(n // 2, dtype=torch.int64).random_(-(2**63), None).numpy().view(numpy.uint64)
    return [int(word) for pair in pairs for word in (pair >> numpy.uint64(32), pair & numpy.uint64(0xFFFFFFFF))]


def exponential(n):
    """`exponential_` of n elements, as PyTorch computes it without MKL."""
    drawn = words(2 * n)
    low53 = [((high << 32) | low) & (2**53 - 1) for high, low in zip(drawn[0::2], drawn[1::2])]
    return numpy.array([-math.log1p(-u * 2.0**-53) for u in low53], dtype=numpy.float32)


def digest(tensor):
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def philox(counter, key):
    """Philox4x32-10 by the paper's formulas, with Python's unbounded integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 % 2**32, (p0 >> 32) ^ c3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def write(folder):
    torch.set_num_threads(1)
    cases = {"torch": torch.__version__.split("+")[0]}

    # Seeds are written as strings, because JSON readers round large integers.
    cases["words"] = []
    for seed in (0, 1, 1337, 2**32 - 1, 2**32, 2**40 + 5, 2**64 - 1, -1, -(2**63)):
        torch.manual_seed(seed)
        cases["words"].append({"seed": str(seed), "words": words(6)})
    torch.manual_seed(1337)
    cases["word_2000"] = words(2000)[-1]

    cases["uniform"] = []
    for n, low, high in ((1, 0.0, 1.0), (7, -0.3, 0.45), (40, 0.0, 1.0), (33, -0.0883883461356163, 0.0883883461356163)):
        torch.manual_seed(11)
        values = torch.empty(n).uniform_(low, high)
        cases["uniform"].append({"n": n, "from": low, "to": high, "values": values.tolist()})

    # One stream: the number left over by a draw of an odd count is used by the next short draw, even after a long one.
    torch.manual_seed(12)
    cases["normal"] = []
    for n, mean, std in ((1, 0.0, 1.0), (16, 0.0, 1.0), (4, 0.5, 2.0), (33, 0.0, 0.02), (15, -1.0, 0.1), (3, 0.0, 1.0)):
        values = torch.empty(n).normal_(mean, std)
        cases["normal"].append({"n": n, "mean": mean, "std": std, "values": values.tolist()})
    torch.manual_seed(13)
    cases["normal_digests"] = [
        {"n": n, "mean": mean, "std": std, "sha256": digest(torch.empty(n).normal_(mean, std))}
        for n, mean, std in ((200_000, 0.0, 1.0), (100_003, 0.3, 0.02))
    ]

    torch.manual_seed(14)
    cases["randint"] = []
    for high in (1, 2, 65, 1003789, 2**28 - 1, 2**28, 2**31, 2**32 + 7, 2**53):
        cases["randint"].append({"high": high, "values": torch.randint(high, (8,)).tolist()})
    cases["randperm"] = [torch.randperm(n).tolist() for n in (0, 1, 2, 10, 100)]

    # nanoGPT's batches: 12 rows of 64 tokens from tiny Shakespeare's training part, after seeding.
    torch.manual_seed(1337)
    tokens, block, rows = 1003854, 64, 12
    offsets = [torch.randint(tokens - block, (rows,)).tolist() for _ in range(2)]
    cases["batches"] = {"tokens": tokens, "block": block, "rows": rows, "offsets": offsets}

    torch.manual_seed(15)
    cases["exponential"] = exponential(40).tolist()
    # multinomial(p, 1) is the index of the largest p / q in float32, where q is exponential noise.
    p = torch.softmax(torch.arange(10, dtype=torch.float32) / 3, 0).numpy()
    chosen = [int(numpy.argmax(p / exponential(10))) for _ in range(40)]
    cases["multinomial"] = {"p": p.tolist(), "chosen": chosen}

    state = 7
    cases["philox"] = []
    for _ in range(50):
        numbers = []
        for _ in range(6):  # any counters and keys will do: these come from a linear congruential generator
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            numbers.append(state >> 32)
        counter, key = numbers[:4], numbers[4:]
        cases["philox"].append({"counter": counter, "key": key, "words": philox(counter, key)})

    write_text(pathlib.Path(folder) / "random.json", json.dumps(cases, indent=2) + "\n")


def main(folder):
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
    subprocess.run([sys.executable, os.path.abspath(__file__), folder], env=environment, check=True)


if __name__ == "__main__":
    write(sys.argv[1])
