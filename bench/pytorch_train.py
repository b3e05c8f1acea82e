"""Trains the model on characters with PyTorch, in the order of nanoGPT's train.py, for bench/losses.ts.

Prints a line of JSON per iteration, {"iter", "loss", "ms"}, and one per evaluation, {"iter", "train_loss", "val_loss"}.
The model is from tests/golden/pytorch_gpt.py, with PyTorch's fused attention and its own dropout.
"""

import argparse
import json
import math
import pathlib
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests" / "golden"))
import pytorch_gpt  # noqa: E402


def fused_attention(qkv, options):
    B, T, C, heads = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3, options["heads"]
    q, k, v = (part.view(B, T, heads, C // heads).transpose(1, 2) for part in qkv.split(C, 2))
    dropout = options.get("dropout", {"p": 0.0})["p"]
    y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    return y.transpose(1, 2).contiguous().view(B, T, C)


class OwnNoise(pytorch_gpt.Noise):
    def begin(self):
        """Does not count calls: torch.compile would compile again for each count."""

    def next(self):
        return {"p": self.p}

    def drop(self, x):
        return F.dropout(x, self.p) if self.p > 0 else x


def learning_rate(flags, it):
    if it < flags.warmup_iters:
        return flags.learning_rate * (it + 1) / (flags.warmup_iters + 1)
    if it > flags.lr_decay_iters:
        return flags.min_lr
    ratio = (it - flags.warmup_iters) / (flags.lr_decay_iters - flags.warmup_iters)
    return flags.min_lr + 0.5 * (1 + math.cos(math.pi * ratio)) * (flags.learning_rate - flags.min_lr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True)
    parser.add_argument("--threads", type=int, default=2)
    whole = dict(n_layer=4, n_head=4, n_embd=128, block_size=64, batch_size=12, max_iters=100, eval_interval=250,
                 eval_iters=20, warmup_iters=100, lr_decay_iters=2000, seed=1337)
    real = dict(dropout=0.0, learning_rate=1e-3, min_lr=1e-4, weight_decay=0.1, beta1=0.9, beta2=0.99, grad_clip=1.0)
    for name, value in {**whole, **real}.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    flags = parser.parse_args()

    pytorch_gpt.causal_attention, pytorch_gpt.Noise = fused_attention, OwnNoise
    torch.set_num_threads(flags.threads)
    text = pathlib.Path(flags.input).read_text(encoding="utf-8")
    ids = {c: i for i, c in enumerate(sorted(set(text)))}
    data = np.array([ids[c] for c in text], dtype=np.uint16)
    split = int(len(data) * 0.9)
    data = {"train": data[:split], "val": data[split:]}

    torch.manual_seed(flags.seed)
    config = pytorch_gpt.GPTConfig(flags.block_size, len(ids), flags.n_layer, flags.n_head, flags.n_embd, flags.dropout, False)
    model = pytorch_gpt.GPT(config)
    optimizer = model.optimizer(flags.weight_decay, flags.learning_rate, (flags.beta1, flags.beta2))

    def batch(name):
        at = torch.randint(len(data[name]) - flags.block_size, (flags.batch_size,))
        rows = [[torch.from_numpy(data[name][i + d:i + d + flags.block_size].astype(np.int64)) for i in at] for d in (0, 1)]
        return torch.stack(rows[0]), torch.stack(rows[1])

    @torch.no_grad()
    def evaluate():
        losses = {}
        noise, model.noise.p = model.noise.p, 0.0
        for name in ("train", "val"):
            losses[name] = float(torch.tensor([model(*batch(name))[1].item() for _ in range(flags.eval_iters)]).mean())
        model.noise.p = noise
        return losses

    X, Y = batch("train")
    start = time.perf_counter()
    for it in range(flags.max_iters + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(flags, it)
        if it % flags.eval_interval == 0:
            losses = evaluate()
            print(json.dumps({"iter": it, "train_loss": losses["train"], "val_loss": losses["val"]}))
            start = time.perf_counter()
        _, loss = model(X, Y)
        X, Y = batch("train")
        loss.backward()
        if flags.grad_clip > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), flags.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value, now = loss.item(), time.perf_counter()
        print(json.dumps({"iter": it, "loss": value, "ms": (now - start) * 1e3}))
        start = now


if __name__ == "__main__":
    main()
