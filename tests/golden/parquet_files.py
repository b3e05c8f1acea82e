"""Writes parquet/: small files by pyarrow, with every compression method and several encodings, and their contents in
rows.json.

    python3 tests/golden/parquet_files.py
"""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet

HERE = Path(__file__).parent / "parquet"
WORDS = ["", "Paris", "é😀", "a longer text, of some words, that stands in many rows", "\r\n\t\0"]


def turns(i):
    call = [{"name": "add", "numbers": [i, i + 1]}] if i % 7 == 3 else None
    return [
        {"role": "user", "content": f"{WORDS[i % 5]} {i}", "calls": None},
        {"role": "assistant", "content": WORDS[i % 3] * (i % 4), "calls": call},
    ][: 1 + i % 2]  # fmt: skip


ROWS = [
    {
        "text": WORDS[i % 5] if i % 11 else None,
        "label": i % 3,
        "score": i / 8,
        "right": i % 2 == 0,
        "name": f"row {i}",
        "messages": turns(i) if i % 13 else None,
    }
    for i in range(40)
]
SCHEMA = pyarrow.schema(
    [
        ("text", pyarrow.string()),
        ("label", pyarrow.int64()),
        ("score", pyarrow.float64()),
        ("right", pyarrow.bool_()),
        ("name", pyarrow.string()),
        (
            "messages",
            pyarrow.list_(
                pyarrow.struct(
                    [
                        ("role", pyarrow.string()),
                        ("content", pyarrow.string()),
                        ("calls", pyarrow.list_(pyarrow.struct([("name", pyarrow.string()), ("numbers", pyarrow.list_(pyarrow.int32()))]))),
                    ]
                )
            ),
        ),
    ]
)  # fmt: skip
FILES = {
    "plain": {"compression": "none", "use_dictionary": False, "data_page_version": "1.0"},
    "snappy": {"compression": "snappy", "row_group_size": 15},
    "gzip": {"compression": "gzip", "data_page_version": "2.0"},
    "brotli": {"compression": "brotli", "data_page_size": 64, "write_page_index": True},
    "zstd": {"compression": "zstd", "data_page_version": "2.0", "row_group_size": 7},
    "lz4": {"compression": "lz4"},
    "delta": {
        "compression": "none", "use_dictionary": False, "data_page_version": "2.0",
        "column_encoding": {"text": "DELTA_BYTE_ARRAY", "label": "DELTA_BINARY_PACKED", "score": "BYTE_STREAM_SPLIT"},
    },
}  # fmt: skip

if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    table = pyarrow.Table.from_pylist(ROWS, SCHEMA)
    for name, options in FILES.items():
        parquet.write_table(table, HERE / f"{name}.parquet", **options)
        assert parquet.read_table(HERE / f"{name}.parquet").to_pylist() == ROWS
    rows = {"pyarrow": pyarrow.__version__, "rows": ROWS}
    (HERE / "rows.json").write_text(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
