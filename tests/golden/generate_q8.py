"""Writes tests/golden/fixtures/q8_0.bin: what `gguf.quants` (PyPI gguf 0.19.0) makes of blocks of 32 numbers.

    pip install gguf==0.19.0 && python3 tests/golden/generate_q8.py

For each block: 32 f32, its 34 bytes in q8_0, and the 32 f32 that those stand for.
"""

import pathlib

import numpy
from gguf import GGMLQuantizationType, quants

generator = numpy.random.default_rng(20261129)
rows = [generator.normal(0, 0.02 * 4.0**n, 32) for n in range(-8, 12)]
rows.append(numpy.zeros(32))
rows.append(numpy.arange(32) - 16.0)  # the greatest magnitude is negative
rows.append(numpy.linspace(-127, 127, 32).round())  # d is 1
rows.append(numpy.where(numpy.arange(32) % 2, 127, numpy.arange(32) - 16 + 0.5))  # halves: away from zero
rows.append(numpy.full(32, -1e-7))
rows.append(numpy.linspace(-1e-6, 1e-6, 32))  # d is smaller than an f16's least
rows.append(numpy.linspace(-3e-3, 1e-3, 32))  # d is a subnormal f16
rows.append(numpy.linspace(-8e6, 8e6, 32))
rows.append(generator.normal(0, 1, 32) * (numpy.arange(32) == 5))
values = numpy.array(rows, dtype=numpy.float32)

blocks = quants.quantize(values, GGMLQuantizationType.Q8_0)
wide = quants.dequantize(blocks, GGMLQuantizationType.Q8_0).astype(numpy.float32)
with open(pathlib.Path(__file__).parent / "fixtures" / "q8_0.bin", "wb") as file:
    for parts in zip(values, blocks, wide):
        for part in parts:
            file.write(part.tobytes())
print(f"{len(rows)} blocks")
