"""Writes tests/golden/torch_files/: unusual tensors saved by torch.save and pickle, nanoGPT's checkpoints and
vocabularies, and pickles that try to call a function.

    python3 tests/golden/generate_torch_files.py
"""

import base64
import builtins
import collections
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import zipfile

import safetensors.torch
import torch

sys.dont_write_bytecode = True
torch.set_num_threads(1)
torch.manual_seed(20261124)

from pytorch_gpt import GPT, GPTConfig

OUT = pathlib.Path(__file__).parent / "torch_files"


def bits(tensor):
    """The value that our reader returns: 16-bit floats widened to f32, integers and booleans as i32, in row-major order."""
    wide = {torch.float16: torch.float32, torch.bfloat16: torch.float32}.get(tensor.dtype, tensor.dtype)
    if not wide.is_floating_point:
        wide = torch.int32
    return base64.b64encode(tensor.detach().to(wide).contiguous().numpy().tobytes()).decode()


def values():
    base, weight = torch.randn(5, 7), torch.nn.Parameter(torch.randn(3, 4))
    tensors = {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "one": torch.tensor([[[1.0]]]),
        "special": torch.tensor([0.0, -0.0, 1e-45, 3.4e38, float("inf"), -float("inf"), float("nan")]),
        "transposed": base.t(),
        "part": base[1:4, 2:6:2],
        "row": base[3],
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
        "expanded": torch.randn(3, 1).expand(3, 5),
        "diagonal": torch.randn(4, 4).diagonal(),
        "f64": torch.randn(3, 2, dtype=torch.float64),
        "f16": torch.tensor([1.5, -0.0, 6e-8, 65504.0, float("inf")], dtype=torch.float16),
        "bf16": torch.randn(2, 3).bfloat16(),
        "bf16_transposed": torch.randn(2, 3).bfloat16().t(),
        "i64": torch.tensor([0, -1, 2**31 - 1, -(2**31)]),
        "i32": torch.tensor([7, -7], dtype=torch.int32),
        "i16": torch.tensor([7, -32768], dtype=torch.int16),
        "i8": torch.tensor([7, -128], dtype=torch.int8),
        "u8": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([[True], [False]]),
        "parameter": weight,
        "tied": weight,
        "view": weight.detach().view(2, 6),
    }
    nested = {"list": [1, torch.tensor([3.0]), {"deep": (torch.tensor([4.0]),)}], 7: {True: torch.tensor([5.0])}}
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    plain = {
        "none": None,
        "yes": True,
        "no": False,
        "ints": [0, 255, 256, 65535, 65536, -1, 2**31 - 1, -(2**31), 2**53 - 1, -(2**53) + 1],
        "floats": [0.5, -1e300, 5e-324, 1e9],
        "text": "naïve \ufeff 🙂\n\0",
        "empty": [{}, [], [], ""],
        "size": list(torch.Size([2, 3])),
    }
    saved = {**plain, "empty": [{}, [], (), ""], "size": torch.Size([2, 3])}
    torch.save(
        {"tensors": tensors, "nested": nested, "model": model.state_dict(), "plain": saved, "large": 2**70},
        OUT / "values.pt",
    )
    expected = {f"tensors.{name}": tensor for name, tensor in tensors.items()}
    expected |= {"nested.list.1": nested["list"][1], "nested.list.2.deep.0": nested["list"][2]["deep"][0]}
    expected |= {"nested.7.true": nested[7][True]}
    expected |= {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    kinds = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16"}
    kinds |= {torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8"}
    kinds |= {torch.uint8: "U8", torch.bool: "BOOL"}
    listed = [
        {"name": name, "dtype": kinds[tensor.dtype], "shape": list(tensor.shape), "bits": bits(tensor)}
        for name, tensor in expected.items()
    ]
    write_json("values.json", {"tensors": listed, "plain": plain})

    with zipfile.ZipFile(OUT / "values.pt") as source, zipfile.ZipFile(
        OUT / "deflated.pt", "w", zipfile.ZIP_DEFLATED
    ) as target:
        for name in source.namelist():
            target.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), source.read(name), zipfile.ZIP_DEFLATED)
    torch.save({"x": torch.ones(2)}, OUT / "legacy.pt", _use_new_zipfile_serialization=False)


def checkpoints():
    """A model after six updates, as train.py saves it, and the losses of the next six updates."""
    config = dict(n_layer=2, n_head=2, n_embd=12, block_size=8, bias=True, vocab_size=11, dropout=0.0)
    flags = dict(dataset="shakespeare_char", batch_size=3, learning_rate=1e-2, weight_decay=0.1, beta1=0.9, beta2=0.99)
    flags |= dict(n_layer=2, compile=True, device="cuda", wandb_log=False, eval_interval=6, decay_lr=True, min_lr=1e-4)
    model = GPT(GPTConfig(**config))
    with torch.no_grad():
        for parameter in model.parameters():  # so that all parameters differ
            parameter.add_(0.1 * torch.randn_like(parameter))
    optimizer = model.optimizer(0.1, 1e-2, (0.9, 0.99))
    batches = torch.randint(11, (12, 3, 9))

    def step(batch):
        _, loss = model(batch[:, :-1], batch[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    for batch in batches[:6]:
        loss = step(batch)
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "model_args": config,
        "iter_num": 6,
        "best_val_loss": loss,
        "config": flags,
    }
    torch.save(saved, OUT / "ckpt.pt")

    # With the names of torch.compile, the masks of PyTorch before 2.0, and plain Python numbers.
    compiled = collections.OrderedDict()
    for name, tensor in saved["model"].items():
        compiled[f"_orig_mod.{name}"] = tensor
        if name.endswith("ln_1.bias"):
            mask = name.replace("ln_1", "attn")
            compiled[f"_orig_mod.{mask}"] = torch.tril(torch.ones(8, 8)).view(1, 1, 8, 8)
    torch.save({**saved, "model": compiled, "best_val_loss": loss.item()}, OUT / "ckpt_compiled.pt")

    # In the numbering of nanoGPT's first versions: embeddings do not decay, and each group is sorted by name.
    parameters = dict(model.named_parameters())
    linear = sorted(name for name, p in parameters.items() if p.dim() >= 2 and ".wte." not in name and ".wpe." not in name)
    groups = [linear, sorted(set(parameters) - set(linear))]
    older = torch.optim.AdamW([{"params": [parameters[name] for name in group]} for group in groups])
    older.state.update(optimizer.state)
    torch.save({**saved, "optimizer": older.state_dict()}, OUT / "ckpt_older.pt")

    names = [name for name, p in model.named_parameters() if p.dim() >= 2]
    names += [name for name, p in model.named_parameters() if p.dim() < 2]
    tensors = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for i, name in enumerate(names):
        for part in ["exp_avg", "exp_avg_sq"]:
            tensors[f"{name}.{part}"] = saved["optimizer"]["state"][i][part].clone()
    safetensors.torch.save_file(tensors, OUT / "ckpt.safetensors")
    losses = [step(batch).item() for batch in batches[6:]]
    expected = {"names": names, "best_val_loss": saved["best_val_loss"].item(), "batches": batches[6:].tolist()}
    write_json("ckpt.json", {**expected, "losses": losses, "config": config, "flags": flags})


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function, *args):
        self.reduced = (function, args)

    def __reduce__(self):
        return self.reduced


def pickles():
    plain = {"a": [1, -2, 3.5, None, True], "t": [1, [2, 3]], "s": "text", 4: {"n": {}}, "u": "\U0001f642", "big": 2**40}
    read = [
        {"protocol": protocol, "bytes": base64.b64encode(pickle.dumps(plain, protocol)).decode()}
        for protocol in [2, 3, 4, 5]
    ]
    hostile = {
        "posix.system": Calls(os.system, "true"),
        "builtins.eval": Calls(builtins.eval, "1"),
        "builtins.exec": Calls(builtins.exec, ""),
        "builtins.getattr": Calls(builtins.getattr, 1, "x"),
        "torch.serialization.load": Calls(torch.load, "x"),
        "torch.storage._load_from_bytes": Calls(torch.storage._load_from_bytes, b""),
        "runpy.run_path": Calls(__import__("runpy").run_path, "x"),
        "numpy.ndarray": Calls(__import__("numpy").ndarray, (1,)),
        "collections.Counter": Calls(collections.Counter),
    }
    refused = [
        {"name": name.replace("builtins", "__builtin__") if protocol == 2 else name, "protocol": protocol}
        | {"bytes": base64.b64encode(pickle.dumps({"x": [value]}, protocol)).decode()}
        for name, value in hostile.items()
        for protocol in [2, 4]
    ]
    write_json("pickles.json", {"plain": plain, "read": read, "refused": refused})
    torch.save({"model": Calls(os.system, "true")}, OUT / "hostile.pt")


def meta():
    characters = sorted(set("\n !aZé\ufeff\u2028漢🙂\U0010ffff\0"))
    itos, stoi = dict(enumerate(characters)), {character: i for i, character in enumerate(characters)}
    (OUT / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(characters), "itos": itos, "stoi": stoi}))
    write_json("meta.json", characters)


def write_json(name, value):
    (OUT / name).write_text(json.dumps(value) + "\n")


if __name__ == "__main__":
    verified = OUT / "verified.json"
    kept = verified.read_text() if verified.exists() else "{}\n"
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    verified.write_text(kept)
    values()
    checkpoints()
    pickles()
    meta()
    subprocess.run(["deno", "fmt", "-q", str(OUT)], check=True)
    print(sum(file.stat().st_size for file in OUT.iterdir()), "bytes")
