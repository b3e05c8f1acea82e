"""Rewrites fixtures/tuning.safetensors with PyTorch: ten AdamW steps of a model that is trained in part, or whose parts
have different learning rates.

CASE.w.NAME are the weights; CASE.tokens and CASE.targets are (steps, B, T). CASE.losses and CASE.norms (over all
groups, before clipping) have one number for each step. CASE.STEP.p.NAME and the moments .m. and .v. are of every
trained parameter after steps 1 and 10. Weights are numbers that f32 represents; everything is computed in f64.
"""

import pathlib
import sys

import numpy as np
import torch

sys.dont_write_bytecode = True
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

from fixture import Fixture
from pytorch_gpt import GPT, GPTConfig

CONFIG = GPTConfig(block_size=8, vocab_size=13, n_layer=2, n_head=2, n_embd=8, bias=False)  # without biases, as a gradient of keys' biases is only rounding errors, which Adam scales
STEPS, B, T = 10, 3, 8
BETAS, DECAY, RATE = (0.9, 0.99), 0.1, 5e-3
FACTORS = [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.9, 0.7, 0.4, 0.1]
random = np.random.Generator(np.random.PCG64(20261129))


def new_model():
    model = GPT(CONFIG).double()
    for name, parameter in model.named_parameters():
        centre = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
        values = np.asarray(centre + 0.2 * random.standard_normal(parameter.shape), np.float32)
        parameter.data = torch.from_numpy(values).double()
    return model


def record(fixture, case, model, clip, groups):
    """`groups` as in TypeScript: names of parameters, with their own learning rate and weight decay if set."""
    number = len(fixture.cases)
    names = dict(model.named_parameters())
    for name, parameter in names.items():
        fixture.put(f"{number}.w.{name}", parameter.float())
    trained = [name for group in groups for name in group["names"]]
    optimizer = torch.optim.AdamW(
        [
            {"params": [names[name]], "lr": group.get("learningRate", RATE), "base": group.get("learningRate", RATE),
             "weight_decay": group.get("weightDecay", DECAY) if names[name].dim() >= 2 else 0.0}
            for group in groups for name in group["names"]
        ],
        betas=BETAS,
    )  # fmt: skip
    tokens, targets = (random.integers(0, CONFIG.vocab_size, (STEPS, B, T)) for _ in range(2))
    losses, norms = [], []
    for step, factor in enumerate(FACTORS, 1):
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor
        loss = model(torch.from_numpy(tokens[step - 1]), torch.from_numpy(targets[step - 1]))[1]
        loss.backward()
        losses.append(loss.item())
        norms.append(torch.nn.utils.clip_grad_norm_([names[name] for name in trained], clip).item())
        optimizer.step()
        optimizer.zero_grad()
        if step in (1, STEPS):
            for name in trained:
                state = optimizer.state[names[name]]
                fixture.put(f"{number}.{step}.p.{name}", names[name])
                fixture.put(f"{number}.{step}.m.{name}", state["exp_avg"])
                fixture.put(f"{number}.{step}.v.{name}", state["exp_avg_sq"])
    assert min(norms) < clip < max(norms), norms  # some steps clip, some do not
    fixture.put(f"{number}.tokens", tokens)
    fixture.put(f"{number}.targets", targets)
    fixture.put(f"{number}.losses", np.array(losses))
    fixture.put(f"{number}.norms", np.array(norms))
    fixture.cases.append(
        {"name": case, "config": CONFIG.camel(), "betas": BETAS, "gradClip": clip, "weightDecay": DECAY,
         "learningRate": RATE, "factors": FACTORS, "groups": groups}
    )  # fmt: skip


if __name__ == "__main__":
    fixture = Fixture()
    last = f"transformer.h.{CONFIG.n_layer - 1}."

    model = new_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(last))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    record(fixture, "a frozen body and a trained last block", model, 0.5, [{"names": trained}])

    model = new_model()
    names = [name for name, _ in model.named_parameters()]
    body = [name for name in names if not name.startswith(last)]
    record(
        fixture,
        "two groups with rates and decays of their own",
        model,
        1.5,
        [{"names": body, "learningRate": 1e-3, "weightDecay": 0.02}, {"names": [n for n in names if n.startswith(last)]}],
    )
    fixture.write(pathlib.Path(__file__).parent / "fixtures" / "tuning.safetensors")
