"""GPT-2 as nanoGPT builds it, in plain PyTorch: pre-norm blocks, tied embedding and head, GELU by erf.

Radford, Wu, Child, Luan, Amodei, Sutskever: Language models are unsupervised multitask learners, 2019. Modules draw
from PyTorch's generator in the order in which they are constructed, so this order is part of the result.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from philox import dropout_mask


@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0
    bias: bool = True

    def camel(self):
        """The config under TypeScript's names."""
        return {
            name.split("_")[0] + "".join(part.title() for part in name.split("_")[1:]): value
            for name, value in vars(self).items()
        }


def causal_attention(qkv, options):
    """softmax(q kᵀ / √hs, causal) v over the packed (B, T, 3C); dropout applies to the probabilities.

    With starts (B, T), a token attends from the start of its document: the mask is block-diagonal and causal.
    """
    B, T, C, heads = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3, options["heads"]
    q, k, v = (part.reshape(B, T, heads, C // heads).transpose(1, 2) for part in qkv.split(C, 2))
    hidden = torch.ones(T, T, dtype=torch.bool).triu(1)
    if (starts := options.get("starts")) is not None:
        hidden = hidden | (torch.arange(T) < starts[:, None, :, None])  # (B, 1, T, T)
    scores = (q @ k.transpose(-2, -1) / math.sqrt(C // heads)).masked_fill(hidden, -torch.inf)
    probabilities = F.softmax(scores, -1)  # (B, nh, T, T)
    if dropout := options.get("dropout"):
        T4 = (T + 3) // 4 * 4
        mask = dropout_mask(B * heads * T * T4, **dropout).reshape(B, heads, T, T4)[..., :T]
        probabilities = probabilities * torch.from_numpy(mask).to(qkv.dtype)
    return (probabilities @ v).transpose(1, 2).reshape(B, T, C)


class Noise:
    """Dropout by Philox. The offset is the number of the forward pass; the stream numbers the dropouts within a pass, in order."""

    def __init__(self, p, seed):
        self.p, self.seed, self.offset, self.stream = p, seed, 0, 0

    def begin(self):
        self.offset, self.stream = self.offset + 1, 0

    def next(self):
        self.stream += 1
        return {"p": self.p, "seed": self.seed, "offset": self.offset, "stream": self.stream - 1}

    def drop(self, x):
        if self.p == 0:
            return x
        return x * torch.from_numpy(dropout_mask(x.numel(), **self.next()).reshape(x.shape)).to(x.dtype)


class LayerNorm(nn.Module):
    def __init__(self, width, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class CausalSelfAttention(nn.Module):
    def __init__(self, config, noise):
        super().__init__()
        self.heads, self.noise = config.n_head, noise
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, config.bias)

    def forward(self, x):
        options = {"dropout": self.noise.next()} if self.noise.p > 0 else {}
        return self.noise.drop(self.c_proj(causal_attention(self.c_attn(x), {"heads": self.heads, **options})))


class MLP(nn.Module):
    def __init__(self, config, noise):
        super().__init__()
        self.noise = noise
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, config.bias)

    def forward(self, x):
        return self.noise.drop(self.c_proj(F.gelu(self.c_fc(x))))


class Block(nn.Module):
    def __init__(self, config, noise):
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, config.bias)
        self.attn = CausalSelfAttention(config, noise)
        self.ln_2 = LayerNorm(config.n_embd, config.bias)
        self.mlp = MLP(config, noise)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, config, noise_seed=0):
        super().__init__()
        self.config = config
        self.noise = Noise(config.dropout, noise_seed)
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.n_embd),
                "wpe": nn.Embedding(config.block_size, config.n_embd),
                "h": nn.ModuleList(Block(config, self.noise) for _ in range(config.n_layer)),
                "ln_f": LayerNorm(config.n_embd, config.bias),
            }
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.transformer.wte.weight = self.lm_head.weight
        for module in self.modules():  # the head comes last and draws the shared weight again
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, 0.0, 0.02)
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, 0.0, 0.02 / math.sqrt(2 * config.n_layer))

    def forward(self, tokens, targets=None):
        self.noise.begin()
        x = self.noise.drop(self.transformer.wte(tokens) + self.transformer.wpe.weight[: tokens.shape[1]])  # (B, T, C)
        for block in self.transformer.h:
            x = block(x)
        x = self.transformer.ln_f(x)
        if targets is None:
            return self.lm_head(x[:, -1:]), None
        logits = self.lm_head(x)  # (B, T, V)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)

    def optimizer(self, weight_decay, learning_rate, betas):
        """Weights with two or more dimensions decay, all other parameters do not."""
        parameters = list(self.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas)
