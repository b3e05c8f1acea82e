"""Writes files with our code, opens them with PyTorch, compares the contents, and stores checksums of the files that are
right.

    python3 tests/golden/check_torch_files.py
"""

import hashlib
import json
import math
import pathlib
import pickle
import subprocess
import sys
import tempfile
import zipfile

import torch

sys.dont_write_bytecode = True
torch.set_num_threads(1)

from pytorch_gpt import GPT, GPTConfig

HERE = pathlib.Path(__file__).parent
OUT = HERE / "torch_files"


def same(actual, expected, where=""):
    """Whether two values are equal bit for bit, including their types."""
    if isinstance(expected, torch.Tensor):
        assert actual.dtype == expected.dtype and actual.shape == expected.shape, where
        assert actual.contiguous().numpy(force=True).tobytes() == expected.contiguous().numpy(force=True).tobytes(), where
    elif isinstance(expected, dict):
        assert isinstance(actual, dict) and list(actual) == list(expected), (where, list(actual), list(expected))
        for key in expected:
            same(actual[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert type(actual) is type(expected) and len(actual) == len(expected), where
        for i, (a, b) in enumerate(zip(actual, expected)):
            same(a, b, f"{where}.{i}")
    else:
        assert type(actual) is type(expected) and actual == expected, (where, actual, expected)


def check_values(path):
    weight = torch.arange(12.0).reshape(3, 4) / 2
    expected = {
        "tensors": {
            "weight": weight,
            "tied": weight,
            "scalar": torch.tensor(30.0),
            "empty": torch.zeros(0, 3),
            "f64": torch.tensor([math.pi, -0.0], dtype=torch.float64),
            "f16": (torch.arange(4.0) / 2).half().reshape(2, 2),
            "bf16": torch.tensor([1, 1.00390625, 1.01171875, -math.inf]).bfloat16().view(torch.int16),
            "i32": torch.tensor([[-1, 2**31 - 1]], dtype=torch.int32),
            "i64": torch.tensor([-1, 2**62]),
            "bool": torch.tensor([True, False]),
        },
        "list": [None, True, False, 0, 255, -1, 2**31, -(2**31) - 1, 2**70, 0.5, -0.0, 1e300, 1.0],
        "tuple": (1, (), [], {}),
        "keys": {"a": "naïve \ufeff 🙂\n\0", 7: "", -1: "x" * 300},
    }
    for options in [{}, {"mmap": True}]:
        actual = torch.load(path, weights_only=True, **options)
        tensors = actual["tensors"]
        assert tensors["weight"].data_ptr() == tensors["tied"].data_ptr()
        assert tensors["bf16"].dtype == torch.bfloat16
        tensors["bf16"] = tensors["bf16"].view(torch.int16)  # numpy has no bfloat16
        same(actual, expected)
        assert math.copysign(1, actual["list"][10]) == -1


def check_checkpoint(path):
    ours, theirs = torch.load(path, weights_only=True), torch.load(OUT / "ckpt.pt", weights_only=True)
    theirs["best_val_loss"] = theirs["best_val_loss"].item()
    for group in theirs["optimizer"]["param_groups"]:  # groups may be in another order
        group.update({key: group.pop(key) for key in ours["optimizer"]["param_groups"][0]})
    same({**ours, "model": dict(ours["model"])}, {**theirs, "model": dict(theirs["model"])})
    assert ours["model"]["lm_head.weight"].data_ptr() == ours["model"]["transformer.wte.weight"].data_ptr()
    model = GPT(GPTConfig(**ours["model_args"]))
    model.load_state_dict(ours["model"])
    optimizer = model.optimizer(0.5, 0.5, (0.5, 0.5))
    optimizer.load_state_dict(ours["optimizer"])
    expected = json.loads((OUT / "ckpt.json").read_text())
    for batch, before in zip(torch.tensor(expected["batches"]), expected["losses"]):
        _, loss = model(batch[:, :-1], batch[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert loss.item() == before, (loss.item(), before)


def check_meta(path):
    characters = json.loads((OUT / "meta.json").read_text())
    itos, stoi = dict(enumerate(characters)), {character: i for i, character in enumerate(characters)}
    same(pickle.loads(path.read_bytes()), {"vocab_size": len(characters), "itos": itos, "stoi": stoi})


if __name__ == "__main__":
    verified = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["deno", "run", "-A", str(HERE / "torch_files.ts"), folder], check=True)
        for name, check in [("values.pt", check_values), ("ckpt.pt", check_checkpoint), ("meta.pkl", check_meta)]:
            path = pathlib.Path(folder) / name
            check(path)
            if path.suffix == ".pt":
                assert zipfile.ZipFile(path).testzip() is None
            verified[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (OUT / "verified.json").write_text(json.dumps({"torch": torch.__version__, **verified}, indent=2) + "\n")
    print(f"PyTorch {torch.__version__} opens {', '.join(verified)}, and they are what they should be")
