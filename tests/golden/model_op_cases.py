"""The ops of a GPT, at sizes around the tile sizes of kernels: 1, 6, 8, 16, 256, 384."""

import numpy as np
import torch
import torch.nn.functional as F

from philox import dropout_mask
from pytorch_gpt import causal_attention
from recorder import case, ids, normal, shape_of

# Products


def matmul(a, b, note=""):
    case("matmul", shape_of(a, b) + note, torch.matmul, a, b, kind="matmul")


for m, k, n in [
    (1, 1, 1), (1, 5, 1), (5, 1, 7), (5, 7, 15), (6, 8, 16), (7, 9, 17), (6, 16, 8), (12, 8, 32), (13, 33, 47), (49, 17, 50),
    (1, 64, 65), (1, 400, 3), (3, 400, 2), (2, 769, 3), (3, 384, 1), (3, 385, 1), (300, 3, 2), (2, 3, 300), (257, 1, 1),
]:  # fmt: skip
    matmul(normal(m, k), normal(k, n))
for a, b in [
    ((3, 5, 7), (3, 7, 4)), ((1, 4, 5), (1, 5, 6)), ((2, 3, 4, 5), (2, 3, 5, 6)), ((2, 1, 4, 5), (3, 5, 2)), ((4, 5), (3, 5, 2)),
    ((3, 4, 5), (5, 2)), ((2, 7, 9), (9, 17)), ((5,), (5,)), ((3, 5), (5,)), ((5,), (5, 3)), ((2, 3, 5), (5,)), ((17, 1, 9), (17, 9, 1)),
]:  # fmt: skip
    matmul(normal(*a), normal(*b))
x = normal(5, 5)
matmul(x, x, " of a matrix and itself")

for shape, out in [
    ((1, 1), 1), ((4, 5), 3), ((5,), 3), ((2, 3, 8), 9), ((2, 2, 2, 5), 7), ((7, 9), 17), ((6, 16), 16), ((12, 15), 33), ((257, 3), 2),
    ((2, 400), 5), ((3, 769), 2), ((2, 9, 32), 31), ((1, 130), 9),
]:  # fmt: skip
    x, weight, bias = normal(*shape), normal(out, shape[-1]), normal(out)
    case("linear", shape_of(x, weight), F.linear, x, weight, kind="matmul")
    case(
        "linear",
        shape_of(x, weight) + " with bias",
        F.linear,
        normal(*shape),
        normal(out, shape[-1]),
        bias,
        kind="matmul",
    )

# Normalisation, activation, embedding

for c in [1, 3, 7, 8, 9, 31, 128, 130]:
    for rows in {1: [(1,), (5,)], 9: [(2, 3), (257,)], 128: [(5,)]}.get(c, [(3,)]):
        x, weight, bias = normal(*rows, c, mean=0.5), normal(c), normal(c)
        norm = lambda x, weight, bias=None, options={}: F.layer_norm(
            x, weight.shape, weight, bias, options.get("epsilon", 1e-5)
        )
        case("layerNorm", shape_of(x), norm, x, weight, kind="layerNorm")
        case(
            "layerNorm", shape_of(x) + " with bias", norm, normal(*rows, c, scale=3), normal(c), bias, kind="layerNorm"
        )
case("layerNorm", "epsilon 0.1", norm, normal(2, 5), normal(5), normal(5), {"epsilon": 0.1}, kind="layerNorm")

SIZES = [1, 7, 8, 9, 16, 17, 257]
far = np.append(np.arange(-8, 8.25, 0.25), [-100, -20, -1e-3, -1e-20, 1e-20, 1e-3, 20, 100]).astype(np.float32)
gelu = lambda x, options: F.gelu(x, approximate=options["approximate"])
for approximate in ["none", "tanh"]:
    for shape in [(n,) for n in SIZES] + [(2, 3, 5)]:
        x = normal(*shape, scale=2)
        case("gelu", f"{shape_of(x)} {approximate}", gelu, x, {"approximate": approximate}, kind="gelu")
    case("gelu", f"far from zero, {approximate}", gelu, far, {"approximate": approximate}, kind="gelu")

for shape, v, c in [
    ((), 3, 2),
    ((1,), 1, 1),
    ((3, 4), 7, 5),
    ((2, 9), 5, 8),
    ((300,), 3, 9),
    ((5,), 257, 3),
    ((2, 3), 4, 130),
]:
    index = ids(v, *shape)
    case("embedding", f"{shape_of(index)} of [{v},{c}]", F.embedding, index, normal(v, c), kind="arithmetic")

# Softmax and cross-entropy

soft_of = lambda fn: lambda x, options: fn(x, options["axis"])
for op, fn in [("softmax", F.softmax), ("logSoftmax", F.log_softmax)]:
    soft = soft_of(fn)
    for shape, axis in [
        ((1,), 0),
        ((7,), -1),
        ((3, 1), 1),
        ((2, 8), 1),
        ((3, 9), -1),
        ((2, 65), -1),
        ((2, 257), 1),
        ((4, 3), 0),
        ((2, 5, 3), 1),
        ((9, 2, 2), 0),
        ((2, 3, 4, 2), -2),
        ((257, 2), 1),
    ]:
        x = normal(*shape, scale=2)
        case(op, f"{shape_of(x)} axis {axis}", soft, x, {"axis": axis}, kind="softmax")
    case(op, "large magnitudes", soft, normal(3, 9, scale=1000), {"axis": -1}, kind="softmax")
    case(op, "large and equal", soft, np.full((1, 5), 1e4, np.float32), {"axis": -1}, kind="softmax")
hidden = np.arange(27).reshape(3, 9) % 9 > np.array([[4], [6], [3]])
masked = normal(3, 9).then(lambda x: np.where(hidden, np.float32(-np.inf), x))
case("softmax", "with minus infinities", soft_of(F.softmax), masked, {"axis": -1}, kind="softmax")

cross = lambda x, t, options={}: F.cross_entropy(
    x.reshape(-1, x.shape[-1]), t.reshape(-1), ignore_index=options.get("ignoreIndex", -100)
)
for shape in [(1, 1), (1, 5), (4, 8), (3, 65), (2, 3, 9), (2, 257), (257, 2), (2, 2, 17)]:
    x, target = normal(*shape, scale=2), ids(shape[-1], *shape[:-1])
    case("crossEntropy", shape_of(x), cross, x, target, kind="crossEntropy")
some = np.zeros((3, 4), bool)
some[0, 1:] = some[2, 0] = True
for ignore in [-1, -100, 3]:
    ignored, options = np.int32(ignore), {"ignoreIndex": ignore}
    target = ids(7, 3, 4).then(lambda t: np.where(some, ignored, t))
    case("crossEntropy", f"some targets {ignore} ignored", cross, normal(3, 4, 7), target, options, kind="crossEntropy")
    target = np.where(np.arange(9) == 5, np.int32(2), ignored)
    case("crossEntropy", f"all but one {ignore} ignored", cross, normal(9, 5), target, options, kind="crossEntropy")
target = ids(7, 4).then(lambda t: np.where(np.arange(4) == 1, np.int32(-100), t))
case("crossEntropy", "-100 ignored by default", cross, normal(4, 7), target, kind="crossEntropy")
case("crossEntropy", "large magnitudes", cross, normal(5, 9, scale=1000), ids(9, 5), kind="crossEntropy")



def logprobs(x, t, options={}):
    ignored = t == options.get("ignoreIndex", -100)
    of_all = F.log_softmax(x / options.get("temperature", 1), dim=-1)
    found = of_all.gather(-1, t.masked_fill(ignored, 0)[..., None])[..., 0]
    return found.masked_fill(ignored, 0)


for shape in [(1, 1), (1, 5), (4, 8), (3, 65), (2, 3, 9), (2, 257), (257, 2), (2, 2, 17)]:
    case("logprobs", shape_of(x := normal(*shape, scale=2)), logprobs, x, ids(shape[-1], *shape[:-1]), kind="crossEntropy")
for ignore, temperature in [(-1, 1), (-100, 0.5), (3, 2)]:
    options = {"ignoreIndex": ignore, "temperature": temperature}
    target = ids(7, 3, 4).then(lambda t: np.where(some, np.int32(ignore), t))
    name = f"some targets {ignore} ignored, temperature {temperature}"
    case("logprobs", name, logprobs, normal(3, 4, 7), target, options, kind="crossEntropy")
case("logprobs", "large magnitudes", logprobs, normal(5, 9, scale=1000), ids(9, 5), kind="softmax")

# Attention and dropout

for B, T, heads, width in [
    (1, 1, 1, 1), (2, 1, 2, 4), (1, 2, 1, 4), (2, 2, 3, 1), (2, 5, 1, 8), (1, 5, 4, 15), (2, 5, 3, 32), (1, 5, 2, 64), (1, 7, 4, 8),
    (1, 17, 2, 15), (2, 33, 1, 4), (1, 63, 1, 8), (1, 64, 2, 4), (1, 65, 1, 15), (1, 65, 2, 8), (1, 34, 1, 32), (1, 130, 1, 4),
    (1, 130, 2, 1), (1, 16, 1, 64), (3, 9, 2, 8),
]:  # fmt: skip
    case(
        "causalSelfAttention",
        f"B {B}, T {T}, {heads} heads of {width}",
        causal_attention,
        normal(B, T, 3 * heads * width),
        {"heads": heads},
        kind="attention",
    )
case("causalSelfAttention", "large scores", causal_attention, normal(1, 9, 48, scale=8), {"heads": 2}, kind="attention")
for B, T, heads, width, p, seed, offset, stream in [
    (2, 5, 2, 8, 0.2, 1337, 0, 3), (1, 9, 3, 4, 0.5, 2**32 - 1, 7, 0), (1, 66, 1, 4, 0.1, 42, 1, 2**31), (2, 7, 1, 15, 0.25, 0, 2**32 - 1, 1), (1, 4, 1, 1, 0.2, 9, 0, 0),
]:  # fmt: skip
    options = {"heads": heads, "dropout": {"p": p, "seed": seed, "offset": offset, "stream": stream}}
    case(
        "causalSelfAttention",
        f"B {B}, T {T}, {heads} heads of {width}, dropout {p}",
        causal_attention,
        normal(B, T, 3 * heads * width),
        options,
        kind="attention",
    )

documents = lambda *rows: np.array([np.repeat(np.cumsum([0, *row[:-1]]), row) for row in rows], np.int32)
for starts, heads, width, scale, p in [
    (documents([1], [1]), 1, 4, 1, 0), (documents([2, 1, 4], [7]), 2, 8, 1, 0), (documents([16, 17], [1, 32]), 1, 15, 1, 0),
    (documents([24, 1, 40]), 2, 4, 1, 0), (documents([4, 5], [6, 3]), 2, 8, 6, 0), (documents([3, 5, 9], [8, 9, 0]), 1, 5, 1, 0.3),
]:  # fmt: skip
    B, T = starts.shape
    drops = {"dropout": {"p": p, "seed": 42, "offset": 3, "stream": 1}} if p else {}
    case(
        "causalSelfAttention",
        f"B {B}, T {T}, {heads} heads of {width}, documents, scores of size {scale}, dropout {p}",
        causal_attention,
        normal(B, T, 3 * heads * width, scale=scale),
        {"heads": heads, "starts": starts, **drops},
        kind="attention",
    )

dropout = lambda x, options: x * torch.from_numpy(dropout_mask(x.numel(), **options).reshape(x.shape)).to(x.dtype)
for shape, p, seed, offset, stream in [
    ((1,), 0.1, 1, 0, 0), ((7,), 0.5, 1337, 0, 0), ((8,), 0.5, 1337, 1, 0), ((9,), 0.5, 1337, 0, 1), ((3, 5), 0.2, 2**32 - 1, 3, 2), ((257,), 0.1, 7, 2**31, 5),
    ((2, 3, 67), 0.25, 2**31, 2**32 - 1, 2**32 - 1), ((5, 5), 0.0, 1, 0, 0),
]:  # fmt: skip
    x = normal(*shape)
    options = {"p": p, "seed": seed, "offset": offset, "stream": stream}
    case("dropout", f"{shape_of(x)} {options}", dropout, x, options, kind="arithmetic")
