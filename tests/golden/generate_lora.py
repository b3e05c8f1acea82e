"""Rewrites fixtures/lora/: logits, losses, gradients and ten AdamW steps of PEFT's LoRA on small random GPT-2s, and PEFT's
folders.

Run by hand, with peft 0.21.2, transformers 5.24 and PyTorch 2.13: `python3 tests/golden/generate_lora.py`. Weights are
numbers that f32 represents; everything is computed in f64. Our dropout masks (philox.py) replace torch's.
"""

import hashlib
import json
import pathlib
import shutil
import sys
import warnings

import numpy as np
import peft
import torch
import torch.nn.functional as F
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

sys.dont_write_bytecode = True
torch.set_num_threads(1)
warnings.filterwarnings("ignore")

from fixture import Fixture
from philox import dropout_mask

HERE = pathlib.Path(__file__).parent
OUT = HERE / "fixtures" / "lora"
SIZES = {"vocabSize": 17, "blockSize": 8, "nLayer": 2, "nHead": 2, "nEmbd": 32, "bias": True, "dropout": 0, "activation": "gelu_new"}
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
STEPS, B, T = 10, 2, 8
RATE, BETAS, DECAY, CLIP = 5e-3, (0.9, 0.99), 0.1, 1.0
random = np.random.Generator(np.random.PCG64(20261130))


def draw(parameter, scale, centre=0.0):
    values = np.asarray(centre + scale * random.standard_normal(tuple(parameter.shape)), np.float32)
    parameter.data = torch.from_numpy(values).double()


def base_model(tied):
    config = GPT2Config(
        vocab_size=SIZES["vocabSize"], n_positions=SIZES["blockSize"], n_embd=SIZES["nEmbd"], n_layer=SIZES["nLayer"],
        n_head=SIZES["nHead"], activation_function="gelu_new", resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        bos_token_id=None, eos_token_id=None, attn_implementation="eager", tie_word_embeddings=tied,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).double()
    for name, parameter in model.named_parameters():
        draw(parameter, 0.2, 1.0 if ".ln_" in name and name.endswith("weight") else 0.0)
    return model


class Mask(torch.nn.Module):
    """Dropout with our masks. `offset` is the number of the model's pass, from 1; `stream` the dropout's number in it."""

    passes = 0

    def __init__(self, p, stream):
        super().__init__()
        self.p, self.stream = p, stream

    def forward(self, x):
        if not self.training:
            return x
        mask = dropout_mask(x.numel(), self.p, 1337, Mask.passes, self.stream)
        return x * torch.from_numpy(mask.reshape(x.shape)).to(x.dtype)


def names_of(model):
    """The trained parameters, under their names in the saved file."""
    named = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        for part in (".default", ".modules_to_save"):
            name = name.replace(part, "")
        named[name] = parameter
    return named


def case(name, tied=True, options={}, ours={}, save=False):
    fixture = Fixture()
    model = base_model(tied)
    for key, parameter in model.named_parameters():
        weight = parameter.detach().float()
        fixture.put(f"w.{key}", weight.T if key.endswith(TRANSPOSED) else weight)
    torch.manual_seed(1337)
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options), autocast_adapter_dtype=False)
    tuned.train()
    named = names_of(tuned)
    p = options.get("lora_dropout", 0)
    stream = 0
    for key, module in tuned.named_modules():
        if hasattr(module, "lora_dropout"):
            if p:
                module.lora_dropout["default"] = Mask(p, stream)
            stream += 1
    for key, parameter in named.items():  # B is not zero, so that A has a gradient
        draw(parameter, 0.1, 1.0 if ".ln_" in key and key.endswith("weight") else 0.0)
        fixture.put(f"a.{key}", parameter.float())
    if save:
        folder = OUT / save
        shutil.rmtree(folder, ignore_errors=True)
        tuned.float().save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        tuned.double()
        assert set(load_file(folder / "adapter_model.safetensors")) == set(named), set(named)
    tokens, targets = (random.integers(0, SIZES["vocabSize"], (STEPS, B, T)) for _ in range(2))
    targets[0, 0, :3] = -1
    optimizer = torch.optim.AdamW(
        [{"params": [q], "weight_decay": DECAY if q.dim() >= 2 else 0.0} for q in named.values()], lr=RATE, betas=BETAS
    )
    losses, norms = [], []
    for step in range(STEPS):
        Mask.passes = step + 1
        logits = tuned(torch.from_numpy(tokens[step])).logits
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets[step]).flatten(), ignore_index=-1)
        loss.backward()
        if step == 0:
            fixture.put("logits", logits)
            for key, parameter in named.items():
                fixture.put(f"g.{key}", parameter.grad)
        losses.append(loss.item())
        norms.append(torch.nn.utils.clip_grad_norm_(list(named.values()), CLIP).item())
        optimizer.step()
        optimizer.zero_grad()
    for key, parameter in named.items():
        fixture.put(f"t.{key}", parameter)
    tuned.eval()
    with torch.no_grad():
        after = tuned(torch.from_numpy(tokens[0])).logits
        with tuned.disable_adapter():
            fixture.put("disabled", tuned(torch.from_numpy(tokens[0])).logits)
        fixture.put("after", after)
        if "modules_to_save" not in options:
            assert (tuned.merge_and_unload()(torch.from_numpy(tokens[0])).logits - after).abs().max() < 1e-12
    fixture.put("tokens", tokens)
    fixture.put("targets", targets)
    fixture.put("losses", np.array(losses))
    fixture.put("norms", np.array(norms))
    fixture.cases.append(
        {"name": name, "config": {**SIZES, "tieWordEmbeddings": tied}, "lora": ours, "folder": save or None, "learningRate": RATE,
         "betas": BETAS, "weightDecay": DECAY, "gradClip": CLIP}
    )  # fmt: skip
    return fixture


def initial():
    """The weights that PEFT draws for a seed, layer after layer."""
    fixture = Fixture()
    model = base_model(True).float()
    torch.manual_seed(7)
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["c_attn", "c_fc"]))
    for key, parameter in names_of(tuned).items():
        if "lora_A" in key:
            fixture.put(key, parameter)
    fixture.cases.append({"seed": 7, "rank": 4, "targets": ["c_attn", "c_fc"], "config": SIZES})
    return fixture


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    made = {
        "attention": case(
            "rank 2 on c_attn", options={"r": 2, "lora_alpha": 3}, ours={"rank": 2, "alpha": 3}, save="c_attn",
        ),
        "all_linear": case(
            "rslora on all linear layers, ranks and alphas by patterns", options={
                "r": 3, "lora_alpha": 5, "use_rslora": True, "target_modules": "all-linear",
                "rank_pattern": {r"h\.1\.attn\.c_attn": 5, "c_fc": 2}, "alpha_pattern": {"mlp.c_proj": 2},
            }, ours={
                "rank": 3, "alpha": 5, "rslora": True, "targets": "all-linear",
                "rankPattern": {r"h\.1\.attn\.c_attn": 5, "c_fc": 2}, "alphaPattern": {"mlp.c_proj": 2},
            },
        ),
        "dropout": case(
            "dropout, in the second block", options={
                "r": 4, "lora_dropout": 0.25, "target_modules": ["c_attn", "mlp.c_proj"], "layers_to_transform": [1],
            }, ours={"rank": 4, "dropout": 0.25, "targets": ["c_attn", "mlp.c_proj"], "layers": [1]},
        ),
        "modules_to_save": case(
            "a pattern, and modules that are saved whole", tied=False, options={
                "r": 2, "target_modules": r".*\.h\.0\.(attn|mlp)\.c_proj", "modules_to_save": ["ln_f", "lm_head"],
            }, ours={
                "rank": 2, "targets": r".*\.h\.0\.(attn|mlp)\.c_proj", "modulesToSave": ["ln_f", "lm_head"],
            }, save="saved",
        ),
        "tokens": case(
            "rows of two tokens, and a tied head", options={"r": 2, "trainable_token_indices": [15, 3]},
            ours={"rank": 2, "trainableTokens": [15, 3]}, save="tokens",
        ),
        "head": case(
            "the head, which is not tied", tied=False, options={"r": 3, "target_modules": ["lm_head"]},
            ours={"rank": 3, "targets": ["lm_head"]},
        ),
        "initial": initial(),
    }  # fmt: skip
    manifest = {"peft": peft.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    for name, fixture in made.items():
        path = OUT / f"{name}.safetensors"
        fixture.write(path)
        manifest[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (OUT / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
