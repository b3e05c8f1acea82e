"""Shared by the alignment cases: the models of a file, random rows, and updates by AdamW."""

import hashlib

import numpy as np
import torch

from pytorch_gpt import GPT, GPTConfig

CONFIG = GPTConfig(block_size=12, vocab_size=12, n_layer=2, n_head=2, n_embd=8)
END, PAD, LONGEST = 10, 11, 6  # the last id is used for padding only, as TRL requires
ADAM = {"learningRate": 5e-4, "weightDecay": 0.1, "betas": [0.9, 0.99], "gradClip": 0.5}
SHARED = ("v_head.summary.weight", "v_head.summary.bias")


def stream(*names):
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(" ".join(names).encode()).digest(), "big")))


def f32(values):
    return torch.from_numpy(np.asarray(values, np.float32)).double()


def drawn(random, shape, scale, centre=0.0):
    return f32(centre + scale * random.standard_normal(shape))


def moved(random, shape):
    """Log-ratios on both sides of all clips of the cases, none of them close to a clip."""
    away = np.resize([-0.5, -0.3, -0.15, -0.05, 0.05, 0.14, 0.22, 0.29, 0.4], shape)
    return torch.from_numpy(random.permuted(away) + random.uniform(-0.005, 0.005, shape))


class Modules:
    """The models of a file in f64 (or another dtype): w, r and v are GPTs, h and s are linear layers."""

    def __init__(self, method):
        random = stream(method, "weights")
        self.w, self.r, self.v = (GPT(CONFIG).double() for _ in range(3))
        for model in (self.w, self.v):
            for name, parameter in model.named_parameters():
                centre = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
                parameter.data = drawn(random, parameter.shape, 0.25, centre)
        for mine, other in zip(self.r.parameters(), self.w.parameters()):
            mine.data = f32(other.data + 0.05 * random.standard_normal(other.shape))
        self.h, self.s = torch.nn.Linear(CONFIG.n_embd, 1, bias=method == "ppo"), torch.nn.Linear(CONFIG.n_embd, 1, bias=False)
        for parameter in [*self.h.parameters(), *self.s.parameters()]:
            parameter.data = drawn(random, parameter.shape, 0.4)
        names = dict(zip(("weight", "bias"), SHARED)) if method == "ppo" else {"weight": "score.weight"}
        self.names = {"h": names, "s": {"weight": "score.weight"}}
        self.start = {letter: {n: p.data.clone() for n, p in self.module(letter).named_parameters()} for letter in "wrvhs"}

    def module(self, letter):
        return getattr(self, letter)

    def named(self, letters):
        """The parameters of some modules as MODULE.NAME."""
        for letter in letters:
            for name, parameter in self.module(letter).named_parameters():
                yield f"{letter}.{self.names.get(letter, {}).get(name, name)}", parameter

    def restart(self, dtype=torch.float64):
        for letter, values in self.start.items():
            for name, parameter in self.module(letter).to(dtype).named_parameters():
                parameter.data, parameter.grad = values[name].to(dtype).clone(), None
        return self


def apart(values, *bends):
    """Asserts that no value is close to a kink of the loss: in f32 it could be on the other side."""
    for bend in bends:
        assert (values.detach() - bend).abs().min() > 1e-3, (values, bend)


def trained(modules, letters, case, loss_of):
    """Makes a case's updates. loss_of(micro-batch, parts) returns a loss, already divided by `parts`, and metrics."""
    named, results, losses, norms = dict(modules.named(letters)), {}, [], []
    if rate := case.get("learningRate"):
        groups = [(True, case["weightDecay"]), (False, 0.0)]
        groups = [{"params": [p for p in named.values() if (p.dim() >= 2) == wide], "weight_decay": decay} for wide, decay in groups]
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=case["betas"])
    for update in case["updates"]:
        total = 0.0
        for rows in update:
            loss, metrics = loss_of(rows, len(update))
            loss.backward()
            total += loss.item()
            if not losses and len(update) == 1:
                case["metrics"] = list(metrics)
                results["m"] = torch.stack([value.detach().double() for value in metrics.values()])
        if not losses and not rate:
            results.update({f"g.{name}": p.grad.clone() for name, p in named.items() if p.grad is not None})
        losses.append(total if abs(total) > 1e-15 else 0.0)  # advantages sum to 0, except for rounding errors
        if rate:
            limit = case["gradClip"] or torch.inf
            norms.append(torch.nn.utils.clip_grad_norm_(named.values(), limit).item())
            optimizer.step()
            optimizer.zero_grad()
    results["losses"] = torch.tensor(losses, dtype=torch.float64)
    if rate:
        results["norms"] = torch.tensor(norms, dtype=torch.float64)
        results.update({f"p.{name}": p.data.clone() for name, p in named.items()})
    return results


def side_by_side(values, mask):
    return values[mask]


def spread(flat, mask):
    """The reverse of side_by_side: (rows, n), 0 outside of the mask."""
    out = torch.zeros(mask.shape, dtype=flat.dtype)
    out[mask] = flat
    return out


def mask_of(rows, length=LONGEST):
    return torch.arange(length) < torch.tensor([[len(row["ids"]) - row["from"]] for row in rows])


def texts(random, count):
    return random.integers(0, END, count).tolist()


def rollouts(random, groups, size, prompt=None, lengths=None):
    """Several completions of each prompt. Some end early, some exactly at the maximum length, and some are cut off."""
    rows = []
    for group in range(groups):
        asked = texts(random, prompt or random.integers(1, 6))
        for i in range(size):
            length = (lengths or [3, 6, 1, 6, 4, 2, 5, 6])[(group * size + i) % 8]
            ended = length < LONGEST or (group * size + i) % 4 == 1
            said = texts(random, length - ended) + [END] * ended
            rows.append({"ids": asked + said, "from": len(asked), "ended": ended, "group": group})
    return rows


def all_of(rows):
    return [[list(range(len(rows)))]]
