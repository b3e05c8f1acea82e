"""Rewrites tests/golden/gguf: a file written by PyPI's gguf, a file written by llama.cpp's converter, and their expected
contents.

    python3 tests/golden/generate_gguf.py LLAMA_CPP

LLAMA_CPP is the folder with convert_hf_to_gguf.py. Expected weights are checksums of what `gguf.quants` dequantises.
Expected logits are transformers' (GELU with tanh), computed in f64 from the stored weights.
"""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version

sys.dont_write_bytecode = True
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel

HERE = pathlib.Path(__file__).parent / "gguf"
random = np.random.Generator(np.random.PCG64(20261129))
TEXT = "the cat sat on the mat, the hat that the cat sat on; 12 cats and 3 hats."
PARTS = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "lm_head": "output",
}


def make(**config):
    """A model with weights so large that attention is not uniform, and with random biases and norms."""
    ends = {"bos_token_id": None, "eos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(n_positions=9, n_embd=32, n_layer=1, n_head=4, **ends, **config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = parameter.dim() == 1 and name.endswith("weight")
            values = random.standard_normal(tuple(parameter.shape)) * 0.2 + (1 if is_norm else 0)
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return model.eval()


def ours_to_theirs(name):
    """transformer.h.0.attn.c_attn.weight -> blk.0.attn_qkv.weight"""
    module, part = name.rsplit(".", 1)
    layer = ""
    if module.startswith("transformer.h."):
        _, _, number, module = module.split(".", 3)
        layer = f"blk.{number}."
    return f"{layer}{PARTS[module]}.{part}"


def stored(name, tensor):
    """transformers stores linear layers as (in, out), GGUF as (out, in). The function is its own inverse."""
    return tensor.T if name.split(".")[-2] in ("c_attn", "c_proj", "c_fc") and tensor.ndim == 2 else tensor


def train_tokenizer(vocab_size):
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([TEXT], vocab_size=vocab_size, min_frequency=1, show_progress=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def write_mixed(path):
    """Every type of tensor and metadata, a different alignment, user-defined and unused tokens, an untied head."""
    tokenizer = json.loads(train_tokenizer(280).to_str())
    vocab, merges = tokenizer["model"]["vocab"], [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    tokens = sorted(vocab, key=vocab.get)
    types = [1] * len(tokens)
    for token, kind in [("<|endoftext|>", 3), ("the  end", 4), ("[PAD282]", 5), ("[PAD283]", 5)]:
        tokens.append(token)
        types.append(kind)
    model = make(vocab_size=len(tokens), tie_word_embeddings=False)
    writer = GGUFWriter(path, "gpt2")
    writer.add_custom_alignment(64)
    writer.add_name("mixed")
    config = model.config
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(280)
    writer.add_eos_token_id(280)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    writer.add_uint8("test.uint8", 255)
    writer.add_int8("test.int8", -128)
    writer.add_uint16("test.uint16", 65535)
    writer.add_int16("test.int16", -32768)
    writer.add_int32("test.int32", -(2**31))
    writer.add_uint64("test.uint64", 2**64 - 1)
    writer.add_int64("test.int64", -(2**53) - 1)
    writer.add_float64("test.float64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_array("test.floats", [0.5, -1.5])
    writer.add_array("test.bools", [True, False])
    kinds = [Type.Q8_0, Type.F16, Type.BF16, Type.F32]
    for number, (name, tensor) in enumerate(model.state_dict().items()):
        kind = kinds[number % 4] if tensor.dim() == 2 else kinds[1 + number % 3]
        weight = np.ascontiguousarray(stored(name, tensor.numpy()))
        writer.add_tensor(ours_to_theirs(name), quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


CONVERT = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
sys.argv = sys.argv[2:]
from conversion.base import TextModel
import convert_hf_to_gguf
TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
convert_hf_to_gguf.main()
"""


def write_converted(path):
    """Converts a folder of transformers with llama.cpp's converter, in f16. The tokenizer's pattern is passed, not detected."""
    model = make(vocab_size=270)
    with tempfile.TemporaryDirectory() as parent:
        folder = f"{parent}/tiny-gpt"  # the converter derives the model's name from it
        model.save_pretrained(folder)
        train_tokenizer(264).save(f"{folder}/tokenizer.json")  # ids up to 264: the converter pads to 270
        end = "<|endoftext|>"
        config = {"tokenizer_class": "GPT2TokenizerFast", "bos_token": end, "eos_token": end, "unk_token": end}
        pathlib.Path(folder, "tokenizer_config.json").write_text(json.dumps(config))
        settings = json.loads(pathlib.Path(folder, "config.json").read_text())
        settings["n_ctx"] = settings["n_positions"]
        pathlib.Path(folder, "config.json").write_text(json.dumps(settings))
        arguments = ["convert", folder, "--outtype", "f16", "--outfile", str(path)]
        subprocess.run([sys.executable, "-c", CONVERT, sys.argv[1], *arguments], check=True, capture_output=True)
    return model


def expect(path, model):
    """The contents of the file as PyPI's gguf reads it, and the logits of its model."""
    reader = GGUFReader(path)
    weights = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(np.array(stored(name, weights[ours_to_theirs(name)]))))
    ids = random.integers(0, model.config.vocab_size, 9).tolist()
    logits = model.double()(torch.tensor([ids])).logits[0, -1]
    sums = {name: hashlib.sha256(np.ascontiguousarray(w, "<f4").tobytes()).hexdigest() for name, w in weights.items()}
    shapes = {tensor.name: [int(size) for size in reversed(tensor.shape)] for tensor in reader.tensors}
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    exact = {key: str(value) if type(value) is int and abs(value) > 2**53 else value for key, value in fields.items()}
    return {"metadata": exact, "shapes": shapes, "types": types, "sha256": sums, "ids": ids, "logits": logits.tolist()}


def blocks():
    """Blocks of Q8_0: ordinary blocks, and blocks at the edges of rounding and of the scale."""
    usual = random.standard_normal((4, 32)).astype(np.float32)
    halves = np.arange(-127, 129, 8, dtype=np.float32)[None] / 2  # x / d = n + 1/2, with 127 among them
    halves[0, 0] = 127
    largest = np.array([0, 1e-9, 1e-6, 3e-5, 65504 * 126.0])[:, None]
    edges = (largest * usual[:1] / np.abs(usual[:1]).max()).astype(np.float32)
    values = np.concatenate([usual, halves, edges])
    return {"values": values.tobytes().hex(), "bytes": quantize(values, Type.Q8_0).tobytes().hex()}


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    writers = {"mixed.gguf": write_mixed, "converted.gguf": write_converted}
    expected = {name: expect(HERE / name, write(HERE / name)) for name, write in writers.items()}
    versions = {name: version(name) for name in ["gguf", "torch", "transformers"]}
    (HERE / "expected.json").write_text(json.dumps({"versions": versions, "q8_0": blocks(), "files": expected}) + "\n")


if __name__ == "__main__":
    main()
