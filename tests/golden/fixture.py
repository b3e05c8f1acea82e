"""Writes fixtures: safetensors files whose metadata holds the cases as JSON.

A file is eight bytes with the length of its header, the header (JSON: name -> dtype, shape, place), and the elements.
"""

import json
import struct

import numpy as np

NAMES = {np.dtype("float32"): "F32", np.dtype("float64"): "F64", np.dtype("int32"): "I32"}


class Fixture:
    def __init__(self):
        self.tensors = {}
        self.cases = []

    def put(self, name, array):
        """Keeps a copy under a name; torch tensors and other integers are taken too."""
        array = np.array(array.detach() if hasattr(array, "detach") else array)
        if array.dtype.kind in "iub":
            array = array.astype(np.int32)
        assert name not in self.tensors, name
        assert not np.isnan(array).any(), name
        self.tensors[name] = array

    def write(self, path):
        header = {"__metadata__": {"cases": json.dumps(self.cases)}}
        place = 0
        ordered = sorted(self.tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))  # keeps elements aligned
        for name, array in ordered:
            header[name] = {
                "dtype": NAMES[array.dtype],
                "shape": list(array.shape),
                "data_offsets": [place, place + array.nbytes],
            }
            place += array.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _, array in ordered:
                file.write(array.astype(array.dtype.newbyteorder("<")).tobytes())
