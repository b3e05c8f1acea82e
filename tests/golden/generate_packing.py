"""Rewrites packing.json with TRL's pack_dataset: lists of lengths, and the rows in each bin."""

import json
import pathlib
import random
import sys

sys.dont_write_bytecode = True
from datasets import Dataset, disable_progress_bars
from trl import pack_dataset

disable_progress_bars()
draw = random.Random(20261129)


def bins(lengths, size):
    rows = Dataset.from_dict({"input_ids": [[i] * length for i, length in enumerate(lengths)]})
    packed = pack_dataset(rows, seq_length=size, strategy="bfd")
    found = []
    for ids, own in zip(packed["input_ids"], packed["seq_lengths"]):
        starts = [sum(own[:i]) for i in range(len(own))]
        found.append([ids[start] for start in starts])
        assert [min(lengths[row], size) for row in found[-1]] == own
    return found


cases = [([5, 2, 3, 1], 4), ([1] * 9, 4), ([3, 3, 3, 2, 2, 2, 1, 1, 1], 5), ([0, 7, 0, 2], 6)]
for size, count, longest in [(16, 60, 20), (7, 200, 9), (64, 300, 64), (33, 120, 12)]:
    cases.append(([draw.randint(0 if size == 7 else 1, longest) for _ in range(count)], size))
cases.append(([draw.randint(1, 40) for _ in range(2300)], 64))  # more rows than TRL packs at once
out = [{"maxLength": size, "lengths": lengths, "bins": bins(lengths, size)} for lengths, size in cases]
lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in out)
(pathlib.Path(__file__).parent / "packing.json").write_text(f"[\n{lines}\n]\n")
