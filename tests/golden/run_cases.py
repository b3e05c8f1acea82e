"""Cases that depend on a seed: initial weights, batches, a training run like nanoGPT's train.py, and sampled tokens."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from fixture import Fixture
from pytorch_gpt import GPT, GPTConfig

TRAINED = GPTConfig(block_size=16, vocab_size=0, n_layer=2, n_head=2, n_embd=16, bias=False)


def learning_rate_at(iteration, learning_rate, warmup_iters, lr_decay_iters, min_lr):
    """Linear from learning_rate / (warmup + 1), then half a cosine down to min_lr."""
    if iteration < warmup_iters:
        return learning_rate * (iteration + 1) / (warmup_iters + 1)
    if iteration > lr_decay_iters:
        return min_lr
    share = (iteration - warmup_iters) / (lr_decay_iters - warmup_iters)
    return min_lr + 0.5 * (1 + math.cos(math.pi * share)) * (learning_rate - min_lr)


def schedule():
    """The iterations CASE.iterations and their learning rates CASE.rates."""
    fixture = Fixture()
    for learning_rate, warmup_iters, lr_decay_iters, min_lr in [
        (1e-3, 100, 2000, 1e-4),
        (6e-4, 2000, 600000, 6e-5),
        (5e-3, 0, 50, 0.0),
        (1e-2, 3, 7, 1e-2),
    ]:
        flags = {
            "learning_rate": learning_rate,
            "warmup_iters": warmup_iters,
            "lr_decay_iters": lr_decay_iters,
            "min_lr": min_lr,
        }
        at = {0, 1, warmup_iters // 2, lr_decay_iters * 2} | {
            edge + d
            for edge in (warmup_iters, (warmup_iters + lr_decay_iters) // 2, lr_decay_iters)
            for d in (-1, 0, 1)
        }
        at = sorted(i for i in at if i >= 0)
        fixture.put(f"{len(fixture.cases)}.iterations", np.array(at))
        fixture.put(f"{len(fixture.cases)}.rates", np.array([learning_rate_at(i, **flags) for i in at]))
        fixture.cases.append({"name": ", ".join(f"{k} {v}" for k, v in flags.items()), **flags})
    return fixture


def initial():
    """CASE.w.NAME right after construction, in f32, and CASE.next: sixteen words mod 2^28 drawn afterwards."""
    fixture = Fixture()
    for seed, config in [
        (1337, GPTConfig(block_size=16, vocab_size=19, n_layer=2, n_head=2, n_embd=16, bias=False)),
        (42, GPTConfig(block_size=5, vocab_size=11, n_layer=2, n_head=3, n_embd=9, bias=True)),
        (
            2**32 - 1,
            GPTConfig(block_size=4, vocab_size=5, n_layer=1, n_head=1, n_embd=3, bias=True),
        ),  # fewer than 16 elements
    ]:
        torch.manual_seed(seed)
        model = GPT(config)
        number = len(fixture.cases)
        for name, parameter in model.named_parameters():
            fixture.put(f"{number}.w.{name}".replace("lm_head", "transformer.wte"), parameter)
        fixture.put(f"{number}.next", torch.randint(2**28 - 1, (16,)))
        fixture.cases.append(
            {
                "name": f"seed {seed}, {config.n_embd} wide, {'with' if config.bias else 'without'} bias",
                "seed": seed,
                "config": config.camel(),
            }
        )
    return fixture


def text(length):
    """Words chosen by a linear congruential generator: a text from which something can be learned."""
    words, state, out = "one two three four five six seven eight nine ten".split(), 1, ""
    while len(out) < length:
        state = (1103515245 * state + 12345) % 2**31
        out += words[(state >> 16) % len(words)] + ("\n" if (state >> 20) % 8 == 0 else " ")
    return out[:length]


class Run:
    """train.py's loop: a batch is drawn ahead, evaluation precedes the update, the logged loss is the last micro-batch's."""

    def __init__(self, config, train, val, flags):
        self.flags, self.data = flags, {"train": train, "val": val}
        torch.manual_seed(flags["seed"])
        self.model = GPT(config)
        self.initial = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}
        self.model.double()
        self.offsets, self.losses, self.norms, self.rates, self.evaluations = [], [], [], [], []

    def batch(self, split):
        data, size = self.data[split], self.model.config.block_size
        ix = torch.randint(len(data) - size, (self.flags["batch_size"],))
        self.offsets.append(ix.tolist())
        return torch.stack([data[i : i + size] for i in ix]), torch.stack([data[i + 1 : i + 1 + size] for i in ix])

    @torch.no_grad()
    def evaluate(self):
        for split in ["train", "val"]:
            losses = [self.model(*self.batch(split))[1].item() for _ in range(self.flags["eval_iters"])]
            self.evaluations.append(sum(losses) / len(losses))

    def train(self):
        flags, model = self.flags, self.model
        optimizer = model.optimizer(flags["weight_decay"], flags["learning_rate"], (flags["beta1"], flags["beta2"]))
        x, y = self.batch("train")
        for iteration in range(flags["max_iters"] + 1):
            rate = learning_rate_at(
                iteration, *(flags[name] for name in ["learning_rate", "warmup_iters", "lr_decay_iters", "min_lr"])
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            if iteration % flags["eval_interval"] == 0:
                self.evaluate()
            for _ in range(flags["gradient_accumulation_steps"]):
                loss = model(x, y)[1]
                x, y = self.batch("train")
                (loss / flags["gradient_accumulation_steps"]).backward()
            self.norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), flags["grad_clip"]).item())
            optimizer.step()
            optimizer.zero_grad()
            self.losses.append(loss.item())
            self.rates.append(rate)


FLAGS = {
    "seed": 1337, "max_iters": 50, "eval_interval": 25, "eval_iters": 3, "batch_size": 8, "gradient_accumulation_steps": 1,
    "learning_rate": 5e-3, "warmup_iters": 5, "lr_decay_iters": 50, "min_lr": 5e-4, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99,
    "grad_clip": 1.0,
}  # fmt: skip


def curves():
    """`train` and `val` are the text as ids. Each case has the offsets of all batches in the order drawn, losses, norms,
    learning rates, and the evaluations (train, val, train, val, ...). Also returns the first run's model."""
    fixture = Fixture()
    written = text(2000)
    vocabulary = sorted(set(written))
    data = torch.tensor([vocabulary.index(character) for character in written])
    train, val = data[:1800], data[1800:]
    fixture.put("train", train)
    fixture.put("val", val)
    first = None
    for name, config, changes in [
        ("without bias", GPTConfig(**{**vars(TRAINED), "vocab_size": len(vocabulary)}), {}),
        ("with bias, two micro-batches", GPTConfig(block_size=12, vocab_size=len(vocabulary), n_layer=1, n_head=3, n_embd=15, bias=True),
         {"seed": 7, "gradient_accumulation_steps": 2, "batch_size": 3, "learning_rate": 1e-3, "eval_interval": 20}),
    ]:  # fmt: skip
        number, flags = len(fixture.cases), {**FLAGS, **changes}
        run = Run(config, train, val, flags)
        run.train()
        first = first or run.model
        for key in ["offsets", "losses", "norms", "rates", "evaluations"]:
            fixture.put(f"{number}.{key}", np.array(getattr(run, key)))
        fixture.cases.append({"name": name, "config": config.camel(), "flags": flags})
    return fixture, first


def sampling(model):
    """CASE.tokens continue CASE.prompt, sampled with the weights w.NAME. Noise is computed from MT19937 words, as
    PyTorch's own multinomial does on AMD processors; on Intel's it uses MKL's streams."""
    fixture = Fixture()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.float())
    for name, parameter in model.named_parameters():
        fixture.put(f"w.{name}".replace("lm_head", "transformer.wte"), parameter.float())
    vocab = model.config.vocab_size
    for seed, temperature, top_k, prompt in [
        (1337, 0.8, 5, [0]),
        (42, 1.0, None, list(range(vocab)) * 2),
        (2**31, 0.8, 20, [1, 2, 3]),
    ]:
        draw, tokens, margin = np.random.RandomState(seed), list(prompt), math.inf
        for _ in range(200):
            logits = model(torch.tensor([tokens[-model.config.block_size :]]))[0][0, -1] / temperature
            if top_k is not None:
                best = logits.topk(min(top_k, vocab)).values
                logits = logits.masked_fill(logits < best[-1], -torch.inf)
                kept = logits.isfinite()
                margin = min(margin, best[-1].item() - max((logits[~kept].tolist() or [-math.inf])))
            words = draw.randint(0, 2**32, 2 * vocab, np.uint32).astype(np.uint64)
            uniform = ((words[0::2] << np.uint64(32) | words[1::2]) & np.uint64(2**53 - 1)).astype(
                np.float64
            ) * 2.0**-53
            noise = (-np.log1p(-uniform)).astype(np.float32).astype(np.float64)
            shares = F.softmax(logits, -1) / torch.from_numpy(noise)
            two = shares.topk(2).values
            margin = min(margin, (1 - two[1] / two[0]).item())
            tokens.append(shares.argmax().item())
        assert margin > 1e-4, f"seed {seed}: a choice hangs on {margin}, which f32 does not decide; take another"
        number = len(fixture.cases)
        fixture.put(f"{number}.prompt", np.array(prompt))
        fixture.put(f"{number}.tokens", np.array(tokens[len(prompt) :]))
        fixture.cases.append(
            {
                "name": f"seed {seed}, temperature {temperature}, top_k {top_k}",
                "seed": seed,
                "temperature": temperature,
                "topK": top_k,
                "config": model.config.camel(),
                "margin": margin,
            }
        )
    return fixture
