"""Modules, the whole model, and optimizer steps, with random weights rounded to f32; computed in f64."""

import numpy as np
import torch
from torch import nn

from fixture import Fixture
from pytorch_gpt import GPT, MLP, Block, CausalSelfAttention, GPTConfig, LayerNorm, Noise
from recorder import stream

NOISE_SEED = 20261124
random = None  # the case's stream of random numbers


def begin(group, name):
    """Starts the case's stream: everything drawn from here on belongs to the case."""
    global random
    random = stream(group, name)


def normal(*shape, scale=1.0):
    return torch.from_numpy(np.asarray(random.standard_normal(shape) * scale, np.float32))


def ids(high, *shape):
    return torch.from_numpy(random.integers(0, high, shape))


@torch.no_grad()
def randomize(module):
    """Random weights, so large that attention is not uniform, and with random biases and norms."""
    for name, parameter in module.named_parameters():
        is_norm = parameter.dim() == 1 and name.endswith("weight")
        parameter.copy_(normal(*parameter.shape, scale=0.2) + (1 if is_norm else 0))
    return module.double()


def keep_weights(fixture, prefix, module, gradients):
    for name, parameter in module.named_parameters():
        name = f"{prefix}.w.{name}".replace("lm_head", "transformer.wte")
        fixture.put(name, parameter.float())
        if gradients:
            fixture.put(name + ".grad", parameter.grad)


def modules():
    """CASE.x and the parameters CASE.w.NAME give CASE.out; the upstream gradient CASE.dout gives NAME.grad and CASE.x.grad."""
    fixture = Fixture()
    for bias in [True, False]:
        for width, heads, B, T in [(16, 2, 2, 9), (15, 3, 1, 5), (3, 3, 3, 2)]:
            config = GPTConfig(block_size=T, vocab_size=1, n_layer=1, n_head=heads, n_embd=width, bias=bias)
            for kind, module in {
                "Linear": nn.Linear(width, width + 1, bias),
                "LayerNorm": LayerNorm(width, bias),
                "CausalSelfAttention": CausalSelfAttention(config, Noise(0, 0)),
                "MLP": MLP(config, Noise(0, 0)),
                "Block": Block(config, Noise(0, 0)),
            }.items():
                number = len(fixture.cases)
                name = f"{kind} {width} wide, {'with' if bias else 'without'} bias"
                begin("modules", name)
                randomize(module)
                x = normal(B, T, width)
                fixture.put(f"{number}.x", x)
                x = x.double().requires_grad_()
                out = module(x)
                dout = normal(*out.shape)
                out.backward(dout.double())
                fixture.put(f"{number}.out", out)
                fixture.put(f"{number}.dout", dout)
                fixture.put(f"{number}.x.grad", x.grad)
                keep_weights(fixture, number, module, gradients=True)
                fixture.cases.append({"name": name, "module": kind, "config": config.camel()})
    return fixture


def cached_attention():
    """Attention of N tokens of several slots to a cache: CASE.qkv (N, 3C) and CASE.cache give CASE.out.

    All tokens are written before any is attended to, token n to position CASE.position[n] of slot CASE.slot[n]; a slot
    of -1 is idle. CASE.cache_bf16 has all keys and values, including the new tokens', rounded to bfloat16 by PyTorch;
    CASE.out_bf16 attends to them.
    """
    fixture = Fixture()
    for slots, size, heads, width, tokens in [
        (1, 1, 1, 1, [(0, 0)]),
        (1, 6, 2, 3, [(0, 4)]),
        (3, 9, 2, 8, [(2, 8), (-1, 0), (0, 0), (1, 3)]),
        (4, 30, 3, 5, [(3, t) for t in range(9, 26)] + [(0, 2), (-1, 5), (2, 29)] + [(0, t) for t in range(2)]),
        (2, 9, 1, 64, [(t % 2, t // 2) for t in range(18)]),
        (2, 5, 2, 2, [(-1, 0), (-1, 3)]),
    ]:
        number, C = len(fixture.cases), heads * width
        name = f"{len(tokens)} tokens, {slots} slots of {size}, {heads} heads of {width}"
        begin("cached_attention", name)
        qkv, cache = normal(len(tokens), 3 * C), normal(slots, heads, size, 2, width)
        after = cache.clone()
        for row, (slot, place) in zip(qkv, tokens):
            if slot >= 0:
                after[slot, :, place] = row[C:].view(2, heads, width).transpose(0, 1)
        rounded, outs = after.bfloat16().float(), []
        for stored in [after, rounded]:
            out = torch.zeros(len(tokens), C, dtype=torch.float64)
            for n, (slot, place) in enumerate(tokens):
                if slot < 0:
                    continue
                keys, values = stored[slot, :, : place + 1].double().permute(2, 0, 1, 3)  # (heads, places, width) each
                query = qkv[n, :C].double().view(heads, 1, width)
                out[n] = nn.functional.scaled_dot_product_attention(query, keys, values).reshape(C)
            outs.append(out)
        expected = {"out": outs[0], "cache_bf16": rounded, "out_bf16": outs[1]}
        for key, tensor in {"qkv": qkv, "cache": cache, **expected}.items():
            fixture.put(f"{number}.{key}", tensor)
        fixture.put(f"{number}.slot", np.array([slot for slot, _ in tokens]))
        fixture.put(f"{number}.position", np.array([place for _, place in tokens]))
        fixture.cases.append({"name": name})
    return fixture


def models():
    """CASE.tokens and CASE.targets give CASE.logits, CASE.loss and NAME.grad; without targets, CASE.last.

    Dropout is seeded with the case's seed. Its first pass is the pass with targets, its second the pass without.
    """
    fixture = Fixture()
    for config, B, T in [
        (GPTConfig(block_size=32, vocab_size=65, n_layer=2, n_head=2, n_embd=24, bias=True), 2, 32),
        (GPTConfig(block_size=16, vocab_size=65, n_layer=2, n_head=4, n_embd=16, bias=False), 3, 16),
        (GPTConfig(block_size=9, vocab_size=11, n_layer=1, n_head=3, n_embd=15, bias=True), 2, 7),
        (GPTConfig(block_size=4, vocab_size=3, n_layer=3, n_head=3, n_embd=3, bias=False), 1, 1),
        (GPTConfig(block_size=8, vocab_size=7, n_layer=2, n_head=2, n_embd=12, bias=True, dropout=0.2), 2, 7),
    ]:
        number = len(fixture.cases)
        title = f"{config.n_layer} layers, {config.n_head} heads, {config.n_embd} wide, {'with' if config.bias else 'without'} bias"
        title += f", dropout {config.dropout}" if config.dropout else ""
        begin("models", title)
        model = randomize(GPT(config, noise_seed=NOISE_SEED))
        tokens, targets = ids(config.vocab_size, B, T), ids(config.vocab_size, B, T)
        if number == 2:
            targets[0, :3] = -1
        logits, loss = model(tokens, targets)
        loss.backward()
        for name, tensor in {
            "tokens": tokens,
            "targets": targets,
            "logits": logits,
            "loss": loss,
            "last": model(tokens)[0],
        }.items():
            fixture.put(f"{number}.{name}", tensor)
        keep_weights(fixture, number, model, gradients=True)
        fixture.cases.append({"name": title, "seed": NOISE_SEED, "config": config.camel()})
    return fixture


def documents():
    """As models, for rows with several documents (CASE.starts, CASE.positions). Expected: the results of each document alone."""
    fixture = Fixture()
    for rows, bias in [([[5, 1, 10], [16]], True), ([[3, 4, 2]], False)]:
        number, T = len(fixture.cases), sum(rows[0])
        config = GPTConfig(block_size=T, vocab_size=13, n_layer=2, n_head=2, n_embd=8, bias=bias)
        title = f"documents of {rows}, {'with' if bias else 'without'} bias"
        begin("documents", title)
        model = randomize(GPT(config))
        tokens, targets = ids(config.vocab_size, len(rows), T), ids(config.vocab_size, len(rows), T)
        starts = np.array([np.repeat(np.cumsum([0, *row[:-1]]), row) for row in rows])
        logits = torch.empty(len(rows), T, config.vocab_size, dtype=torch.float64)
        for b, row in enumerate(rows):
            for first, length in zip(np.cumsum([0, *row[:-1]]), row):
                targets[b, first + length - 1] = -1  # the token after a document is not predicted
                own = slice(first, first + length)
                logits[b, own] = model(tokens[None, b, own], targets[None, b, own])[0]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
        loss.backward()
        named = {"tokens": tokens, "targets": targets, "starts": starts, "positions": np.arange(T) - starts}
        for name, tensor in {**named, "logits": logits, "loss": loss, "last": logits[:, -1:]}.items():
            fixture.put(f"{number}.{name}", tensor)
        keep_weights(fixture, number, model, gradients=True)
        fixture.cases.append({"name": title, "seed": 0, "config": config.camel()})
    return fixture


RATES = [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 4e-3, 3e-3, 2e-3, 1e-3, 5e-4]
HYPER = {"betas": [0.9, 0.99], "weightDecay": 0.1, "gradClip": 1.0, "learningRates": RATES}


def keep_state(fixture, prefix, named, optimizer):
    for name, parameter in named:
        name = name.replace("lm_head", "transformer.wte")
        state = optimizer.state[parameter]
        for key, tensor in {"p": parameter, "m": state["exp_avg"], "v": state["exp_avg_sq"]}.items():
            fixture.put(f"{prefix}.{key}.{name}", tensor)


def optimizer_steps():
    """CASE.w.NAME are the weights before; CASE.STEP.p.NAME, .m. and .v. after steps 1 and 10; CASE.norms before clipping.

    Case 0 has the gradients, CASE.STEP.g.NAME. Case 1 computes them with a model, from the batch CASE.tokens[step] in
    each step.
    """
    fixture = Fixture()
    begin("optimizer", "gradients given")
    named = {
        name: nn.Parameter(normal(*shape))
        for name, shape in {"a": (5, 7), "b": (9,), "c": (257,), "d": (3, 8, 2), "e": (1,)}.items()
    }
    for name, parameter in named.items():
        fixture.put(f"0.w.{name}", parameter)
        parameter.data = parameter.data.double()
    parameters = list(named.values())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=HYPER["betas"])

    def gradients(step):
        for name, parameter in named.items():
            gradient = normal(*parameter.shape, scale=[0.3, 0.01, 1][step % 3])  # norms above and below 1
            fixture.put(f"0.{step + 1}.g.{name}", gradient)
            parameter.grad = gradient.double()

    run_steps(fixture, 0, list(named.items()), optimizer, gradients)
    fixture.cases.append({"name": "gradients given", **HYPER})

    begin("optimizer", "gradients of a model")
    config = GPTConfig(block_size=8, vocab_size=13, n_layer=1, n_head=2, n_embd=16, bias=False)
    model = randomize(GPT(config))
    keep_weights(fixture, 1, model, gradients=False)
    tokens = ids(13, 10, 4, 9)
    fixture.put("1.tokens", tokens[..., :-1])
    fixture.put("1.targets", tokens[..., 1:])
    optimizer = model.optimizer(HYPER["weightDecay"], RATES[0], HYPER["betas"])
    losses = []

    def backward(step):
        loss = model(tokens[step, :, :-1], tokens[step, :, 1:])[1]
        losses.append(loss.item())
        loss.backward()

    run_steps(fixture, 1, list(model.named_parameters()), optimizer, backward)
    fixture.put("1.losses", np.array(losses))
    fixture.cases.append({"name": "gradients of a model", "config": config.camel(), **HYPER})
    return fixture


def run_steps(fixture, number, named, optimizer, fill_gradients):
    norms = []
    for step, rate in enumerate(RATES):
        fill_gradients(step)
        norms.append(nn.utils.clip_grad_norm_([p for _, p in named], HYPER["gradClip"]).item())
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        if step in (0, 9):
            keep_state(fixture, f"{number}.{step + 1}", named, optimizer)
    fixture.put(f"{number}.norms", np.array(norms))
