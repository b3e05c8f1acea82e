"""Writes fixtures: safetensors files whose metadata has the cases as JSON.

A file consists of eight bytes with the length of the header, the header (JSON: name -> dtype, shape, offsets), and the
elements.
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
        """Stores a copy under a name. Also accepts torch tensors and other integer types."""
        array = np.array(array.detach() if hasattr(array, "detach") else array)
        if array.dtype.kind in "iub":
            array = array.astype(np.int32)
        assert name not in self.tensors, name
        assert not np.isnan(array).any(), name
        self.tensors[name] = array

    def write(self, path):
        """Writes the file, unless its contents are the same up to rounding. Returns whether it was written."""
        if path.exists() and self.is_as(Fixture.read(path)):
            return False
        path.write_bytes(self.encode())
        return True

    def is_as(self, other):
        """Whether cases and inputs are equal, and results up to rounding: square roots in f64 differ between processors."""
        if self.cases != other.cases or self.tensors.keys() != other.tensors.keys():
            return False
        return all(is_close(array, other.tensors[name]) for name, array in self.tensors.items())

    @staticmethod
    def read(path):
        data, fixture = path.read_bytes(), Fixture()
        (length,) = struct.unpack_from("<Q", data)
        header, elements = json.loads(data[8 : 8 + length]), data[8 + length :]
        fixture.cases = json.loads(header.pop("__metadata__")["cases"])
        types = {name: dtype for dtype, name in NAMES.items()}
        for name, entry in header.items():
            array = np.frombuffer(elements[slice(*entry["data_offsets"])], types[entry["dtype"]].newbyteorder("<"))
            fixture.tensors[name] = array.astype(types[entry["dtype"]]).reshape(entry["shape"])
        return fixture

    def encode(self):
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
        elements = [array.astype(array.dtype.newbyteorder("<")).tobytes() for _, array in ordered]
        return struct.pack("<Q", len(text)) + text + b"".join(elements)


def is_close(array, other):
    if array.dtype != other.dtype or array.shape != other.shape:
        return False
    if np.array_equal(array, other):
        return True
    # A tenth of the tolerance of the reference device, which is in f64 too.
    return array.dtype == np.float64 and abs(array - other).max() <= 1e-13 * abs(other).max()


def write_text(path, text):
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
