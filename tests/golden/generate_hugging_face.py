"""Rewrites tests/golden/hugging_face with transformers: GPT-2 folders of tiny models, and their expected logits and
gradients.

A folder is saved by transformers, or written by hand in the format of older files. Expected values are computed in f64
from the stored weights.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

sys.dont_write_bytecode = True

from fixture import Fixture

HERE = pathlib.Path(__file__).parent / "hugging_face"
random = np.random.Generator(np.random.PCG64(20261124))
B, T = 2, 7
SMALL = {"n_positions": 9, "n_embd": 12, "n_layer": 2, "n_head": 3, "vocab_size": 31}
SPECIAL = {"bos_token_id": None, "eos_token_id": None}


def make(**config):
    """A model with weights so large that attention is not uniform, and with random biases and norms."""
    model = GPT2LMHeadModel(GPT2Config(**{**SMALL, **SPECIAL, **config}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = parameter.dim() == 1 and name.endswith("weight")
            values = random.standard_normal(tuple(parameter.shape)) * 0.2 + (1 if is_norm else 0)
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return model.eval()


def older(model):
    """Like the hub's first files: names without a prefix, and the mask among the weights."""
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in model.transformer.state_dict().items()}
    size = model.config.n_positions
    for layer in range(model.config.n_layer):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(size, size).tril().view(1, 1, size, size)
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    return tensors


def save_as(model, name, tensors, write):
    folder = HERE / name
    folder.mkdir()
    model.config.architectures = ["GPT2LMHeadModel"]
    model.config.save_pretrained(folder)
    write(tensors, folder)


def write_bin(tensors, folder):
    torch.save(tensors, folder / "pytorch_model.bin")


def write_bin_shards(tensors, folder):
    names = list(tensors)
    halves = [names[: len(names) // 2], names[len(names) // 2 :]]
    files = [f"pytorch_model-{i + 1:05}-of-00002.bin" for i in range(2)]
    for file, half in zip(files, halves):
        torch.save({name: tensors[name] for name in half}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": {n: f for f, half in zip(files, halves) for n in half}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def expect(fixture, name):
    """Logits, loss and gradients of the folder opened by transformers."""
    number = len(fixture.cases)
    model, info = GPT2LMHeadModel.from_pretrained(HERE / name, attn_implementation="eager", output_loading_info=True)
    assert not any(info[key] for key in ["missing_keys", "mismatched_keys", "error_msgs"]), info
    model = model.double().eval()
    config = model.config
    tokens = torch.from_numpy(random.integers(0, config.vocab_size, (B, T)))
    labels = torch.from_numpy(random.integers(0, config.vocab_size, (B, T)))
    logits = model(tokens).logits
    loss = torch.nn.functional.cross_entropy(logits.view(B * T, -1), labels.view(-1))
    loss.backward()
    fixture.put(f"{number}.tokens", tokens)
    fixture.put(f"{number}.targets", labels)
    fixture.put(f"{number}.logits", logits)
    fixture.put(f"{number}.loss", loss)
    for key, parameter in model.named_parameters():
        fixture.put(f"{number}.grad.{key}", parameter.grad)
    fixture.cases.append({"name": name, "tied": config.tie_word_embeddings})


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    model = make()
    model.save_pretrained(HERE / "f32")
    model.half().save_pretrained(HERE / "f16")
    model = GPT2LMHeadModel.from_pretrained(HERE / "f32")
    model.bfloat16().save_pretrained(HERE / "bf16_sharded", max_shard_size=3000)
    model = make(activation_function="gelu", tie_word_embeddings=False, n_head=2, n_inner=20, layer_norm_epsilon=1e-3)
    model.save_pretrained(HERE / "untied")
    model = make(activation_function="relu", n_head=1, n_layer=1, n_embd=5, vocab_size=17, n_positions=7)
    save_as(model, "older", older(model), lambda tensors, folder: save_file(tensors, folder / "model.safetensors"))
    model = make(n_layer=1)
    save_as(model, "bin", model.state_dict(), write_bin)
    model = make(n_layer=1, activation_function="gelu_pytorch_tanh")
    save_as(model, "bin_sharded", model.half().state_dict(), write_bin_shards)
    fixture = Fixture()
    fixture.cases = []
    for name in ["f32", "f16", "bf16_sharded", "untied", "older", "bin", "bin_sharded"]:
        expect(fixture, name)
    fixture.write(HERE / "expected.safetensors")
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    (HERE / "manifest.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
